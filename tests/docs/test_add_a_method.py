"""docs/add-a-method.md: its code and its commands, as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from scannet_css.records.record import load_record

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "add-a-method.md").read_text()
FAST = "--base-epochs 1 --epochs 1 --batch-voxels 8000 --elastic false --network minkunet14s"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


COMMANDS = [line for block in blocks("console") for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    (code,) = blocks("python")
    folder = tmp_path_factory.mktemp("add-a-method")
    (folder / "my_method.py").write_text(code)
    return folder


def test_from_an_empty_file_to_rows_in_the_table(folder, command_line, small_set, three_steps):
    """The commands with nothing changed but where files lie and how long it takes."""
    runs = folder / "runs"
    assert [line for line in COMMANDS if not line.startswith("python benchmarks/")] == []
    for line in COMMANDS:
        script, *arguments = shlex.split(line.replace("my_method.py", str(folder / "my_method.py")))[1:]
        if script == "benchmarks/run.py":
            short = ("--runs", runs, "--data", small_set, "--protocol", three_steps, *FAST.split())
        else:
            arguments = [runs if each == "runs" else each for each in arguments]
            short = ("--out", folder / "results")
        done = command_line(script, *arguments, *short)
        assert done.returncode == 0, done.stderr
    records = {record.method.name: record for record in map(load_record, runs.rglob("record.json"))}
    assert sorted(records) == ["keep-directions", "keep-prototypes", "lgkd+keep-directions"]
    assert records["lgkd+keep-directions"].method.settings["weight"] == 3
    assert len(list((runs / "base").iterdir())) == 1  # one step 0 for all
    assert not list(runs.glob("dry-run*"))
    table = (folder / "results" / "leaderboard.md").read_text()
    assert all(f"| {name} " in table.replace("**", "") for name in records)


BROKEN = {
    "twice": (
        'terms = super().loss(step, batch, new, old); terms["ce"] = new.logits.sum()',
        "'ce' is set twice",
    ),
    "detached": ('terms = {"ce": new.logits.detach().sum()}', "no loss term is attached to the network"),
    "infinite": ('terms = {"x": new.logits.sum() / 0}', "loss term 'x' is"),
    "nothing": ("terms = new.logits.sum()", "its loss gave Tensor; expected LossTerms"),
    "misspelt": ('terms = {"x": new.logitss.sum()}', "has no attribute 'logitss'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_method_ends_before_step_0(name, command_line, small_set, three_steps, tmp_path):
    body, message = BROKEN[name]
    path = tmp_path / "broken.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from scannet_css.methods.method import Method\n"
        "@dataclass\n"
        "class Broken(Method):\n"
        "    name = 'broken'\n"
        "    def loss(self, step, batch, new, old):\n"
        f"        {body}\n"
        "        return terms\n"
    )
    arguments = ("--method", f"{path}:Broken", "--runs", tmp_path / "runs", "--data", small_set)
    done = command_line("benchmarks/run.py", *arguments, "--protocol", three_steps, *FAST.split())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_combination_without_sense_is_refused(command_line, small_set, tmp_path):
    path = tmp_path / "both.py"
    path.write_text(
        "from baselines.joint import Joint\n"
        "from baselines.lgkd import LGKD\n"
        "class Both(LGKD, Joint):\n"
        "    name = 'both'\n"
        "class Taught(Joint):\n"
        "    name = 'taught'\n"
        "    needs_teacher = True\n"
    )
    for name, message in (("Both", "a loss of its own exclude each other"), ("Taught", "has no teacher")):
        done = command_line("benchmarks/run.py", "--method", f"{path}:{name}", "--data", small_set)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
