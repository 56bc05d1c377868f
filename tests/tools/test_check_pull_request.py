"""tools/check_pull_request.py on a repository of its own, with pull requests as people send them."""

import json
import os
import runpy
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from scannet_css.commands import run_command
from scannet_css.files import write_json
from scannet_css.leaderboard.reported import check_line, read_lines
from scannet_css.records.record import Record
from tests.leaderboard.test_reported import good, to_csv
from tests.records.made_records import make_value

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Repository:
    """A checkout of the base branch; `propose` makes a pull request of what `edit` does to the tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-q", "-b", "main")
        self.add_record(seed=0)
        (folder / "benchmarks" / "leaderboard.csv").write_text("rendered\n")
        (folder / "code.py").write_text("print('base')\n")
        self.commit()

    def git(self, *arguments: str) -> str:
        names = {
            f"GIT_{who}_{what}": "x@y.z" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        command = ["git", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env={**os.environ, **names}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change")

    def add_record(self, name: str | None = None, content=None, **options) -> Path:
        value = make_value(method="mine", **options)
        name = name or f"{Record.from_json(value).hash[:16]}.json"
        path = self.folder / "benchmarks" / "records" / name
        write_json(path, value if content is None else content)
        return path

    def add_row(self, **changes) -> Path:
        content = to_csv(good(**changes))
        path = self.folder / "benchmarks" / "reported" / f"{check_line(read_lines(content)[0]).hash[:16]}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def propose(self, edit) -> None:
        self.git("checkout", "-q", "-b", "request", "main")
        edit(self)
        self.commit()
        self.git("checkout", "-q", "main")


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """`check(edit)`: the command's answer to a pull request that does `edit`."""

    def answer(edit) -> Done:
        repository = Repository(tmp_path)
        repository.propose(edit)
        monkeypatch.chdir(tmp_path)
        main = runpy.run_path(str(ROOT / "tools" / "check_pull_request.py"))["main"]
        code = run_command(main, ["main", "request"])
        assert (tmp_path / "code.py").read_text() == "print('base')\n"  # nothing was checked out
        return Done(code, *capsys.readouterr())

    return answer


def add_everything(repository):
    repository.add_record(seed=1)
    repository.add_row()
    (repository.folder / "benchmarks" / "leaderboard.csv").write_text("rendered by the contributor\n")


def test_added_submissions_pass(check):
    done = check(add_everything)
    assert done.returncode == 0 and done.stderr == ""
    assert "leaderboard.csv: passed over" in done.stdout and ".csv: self-reported" in done.stdout
    assert ".json: not verified: its validation split is not registered" in done.stdout


def edit_record(repository):
    (path,) = (repository.folder / "benchmarks" / "records").glob("*.json")
    value = json.loads(path.read_text())
    write_json(path, {**value, "seed": 5})


def remove_record(repository):
    (path,) = (repository.folder / "benchmarks" / "records").glob("*.json")
    path.unlink()


def link_out(repository):
    (repository.folder / "benchmarks" / "records" / "0123456789abcdef.json").symlink_to("/etc/passwd")


def claim(repository):
    value = make_value(method="mine", seed=0)
    value["entry"] = {"name": "Me", "paper": None, "code": None, "contact": None, "date": "2026-11-24"}
    repository.add_record(content=value, seed=0)


def row_twice(repository):
    repository.add_row()
    repository.add_row(hours="1.00")


REFUSED = {
    "code": (
        lambda repo: (repo.folder / "code.py").write_text("1"),
        "code.py: not a submission, expected bench",
    ),
    "a workflow": (
        lambda repo: write_json(repo.folder / ".github" / "workflows" / "x.yml", {}),
        ".github/workflows/x.yml: not a submission",
    ),
    "a split": (
        lambda repo: write_json(repo.folder / "benchmarks" / "splits" / "0123456789abcdef.json", {}),
        "not a submission",
    ),
    "a record in a folder below": (lambda repo: repo.add_record(name="a/b.json"), "not a submission"),
    "a record edited": (edit_record, "changes what stands on the leaderboard, expected added files only"),
    "a record removed": (remove_record, "changes what stands on the leaderboard"),
    "a link": (link_out, "has mode 120000, expected an ordinary file"),
    "another name": (lambda repo: repo.add_record(name="mine.json", seed=1), "mine.json: expected the name "),
    "a broken record": (
        lambda repo: repo.add_record(name="0123456789abcdef.json", content={"format": 3}),
        "0123456789abcdef.json: entry is None: missing",
    ),
    "a run that stands there": (claim, "changes what stands on the leaderboard"),
    "a row twice": (row_twice, "the row of mine stands twice in the request"),
    "a row without a contact": (
        lambda repo: repo.add_row().write_bytes(to_csv(good(contact=""))),
        "contact is ''",
    ),
    "a name that acts": (
        lambda repo: (repo.folder / "\x1b[31m\u202e.py").write_text(""),
        "\\x1b[31m\\u202e.py: not a submission",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_whatever_else_is_refused_in_one_line(check, name):
    edit, message = REFUSED[name]
    done = check(edit)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: ") and message in done.stderr and done.stderr.count("\n") == 1


def test_options_in_place_of_commits_and_unknown_ones_are_refused(tmp_path, monkeypatch, capsys):
    Repository(tmp_path)
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(ROOT / "tools" / "check_pull_request.py"))["main"]
    for head, message in (("nowhere", "git rev-parse"), ("main", "main: changes nothing")):
        assert run_command(main, ["main", head]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
