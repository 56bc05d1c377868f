"""The leaderboard's folder while many submit at once and some are killed."""

import csv
import io
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from scannet_css.errors import InputError
from scannet_css.files import locked, write_json
from scannet_css.leaderboard import folder
from scannet_css.leaderboard.folder import Leaderboard
from scannet_css.leaderboard.reported import COLUMNS
from scannet_css.records.record import EntryRecord, load_record
from tests.leaderboard.submitter import record_of

ROOT = Path(__file__).parents[2]


def start(folder: Path, number: int, count: int) -> subprocess.Popen:
    script = Path(__file__).with_name("submitter.py")
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(number), str(count)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def read_table(folder: Path) -> list[dict[str, str]]:
    """leaderboard.csv as it lies there now; fails if it is torn."""
    text = (folder / "leaderboard.csv").read_bytes().decode("utf-8")
    assert text.endswith("\r\n") and text.count("\r\n") == text.count("\n")
    lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert tuple(lines[0]) == COLUMNS and {len(line) for line in lines} == {len(COLUMNS)}
    return [dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]]


@pytest.mark.parametrize(
    ("processes", "count", "kills"),
    [(4, 5, 4), pytest.param(16, 100, 20, marks=pytest.mark.deep)],
)
def test_every_acknowledged_submission_is_there_once(processes, count, kills, tmp_path):
    generator = random.Random(11)
    folder = tmp_path / "benchmarks"
    running = {number: start(tmp_path, number, count) for number in range(processes)}
    # kills fall between the first acknowledgement and the last, whatever the machine's speed
    marks = sorted(generator.randrange(1, processes * count - processes) for _ in range(kills))
    killed, parses = 0, 0
    while running:
        time.sleep(0.01)
        notes = [path.read_text() for path in tmp_path.glob("acknowledged-*")]
        acknowledged = sum(text.count("\n") for text in notes)
        if marks and acknowledged >= marks[0]:
            marks.pop(0)
            number = generator.choice(sorted(running))
            running[number].kill()
            running[number].wait()
            killed += 1
            running[number] = start(tmp_path, number, count)
        if (folder / "leaderboard.csv").exists():
            read_table(folder)
            parses += 1
        for number, process in list(running.items()):
            if process.poll() is not None:
                assert process.returncode == 0, process.stderr.read()
                del running[number]
    assert killed == kills and parses > kills
    wanted = {record_of(number, seed).hash for number in range(processes) for seed in range(count)}
    notes = Counter("".join(path.read_text() for path in tmp_path.glob("acknowledged-*")).split())
    assert set(notes) == wanted  # a process that was killed between storing and noting stores nothing twice
    stored = [load_record(path).hash for path in (folder / "records").glob("*.json")]
    assert sorted(stored) == sorted(wanted)
    table = read_table(folder)
    assert {row["method"]: row["n"] for row in table} == {f"mine{n}": str(count) for n in range(processes)}
    assert len(table) == processes
    board = Leaderboard(folder)
    board.render(None)
    left = [path.name for path in folder.rglob("*") if path.name.endswith(".tmp")]
    assert [name for name in left if name.startswith(".leaderboard")] == []
    board.add(record_of(0, count))  # the next one to submit clears what the killed ones left among records
    assert list((folder / "records").glob(".*.tmp")) == []


def test_waiting_ends_with_the_holder_named(tmp_path, monkeypatch, record):
    monkeypatch.setattr(folder, "PATIENCE", 0.05)
    board = Leaderboard(tmp_path)
    with (
        locked(board.records_folder, lambda holder: None),
        pytest.raises(InputError, match=rf"records: process {os.getpid()} on .* has been at work for"),
    ):
        board.add(record(method="mine"))
    assert list(board.records_folder.glob("*.json")) == []


def test_the_same_run_under_another_name_is_refused(tmp_path, record):
    board, mine = Leaderboard(tmp_path), record(method="mine")
    mine.entry = EntryRecord("A. Author", None, None, None, "2026-11-24")
    path = board.add(mine)
    assert board.add(mine) is None
    mine.entry = EntryRecord("B. Other", None, None, None, "2026-11-24")
    with pytest.raises(
        InputError, match="entry.name is 'B. Other': this very run stands in .* by 'A. Author'"
    ):
        board.add(mine)
    assert load_record(path).entry.name == "A. Author"


def test_runs_of_different_people_never_share_a_row(tmp_path, record):
    board = Leaderboard(tmp_path)
    for name, seed in (("A. Author", 0), ("A. Author", 1), ("B. Other", 2)):
        mine = record(method="mine", seed=seed)
        mine.entry = EntryRecord(name, None, None, None, "2026-11-24")
        board.add(mine)
    rows = board.sections()[0][0].methods
    assert sorted((row.name, len(row.records)) for row in rows) == [("A. Author", 2), ("B. Other", 1)]


def test_a_stored_file_that_was_edited_is_named_and_left_out(tmp_path, record):
    board = Leaderboard(tmp_path)
    path = board.add(record(method="mine", seed=0))
    board.add(record(method="mine", seed=1))
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    problems = board.render(None)
    assert len(problems) == 1 and f"{path}: holds the record" in problems[0]
    assert read_table(tmp_path)[0]["n"] == "1"


def test_submitting_says_who_and_links(run, value, tmp_path):
    write_json(tmp_path / "record.json", value(method="mine"))
    options = ("--name", "A. Author", "--paper", "https://arxiv.org/abs/2304.12345")
    done = run(tmp_path, "tools/submit.py", "record.json", *options)
    assert done.returncode == 0, done.stderr
    (row,) = read_table(tmp_path / "benchmarks")
    assert (row["name"], row["paper"]) == ("A. Author", "https://arxiv.org/abs/2304.12345")
    assert row["status"] == "self-reported" and "split is not registered" in row["flags"]
    text = (tmp_path / "benchmarks/leaderboard.md").read_text()
    assert "- mine: [paper](<https://arxiv.org/abs/2304.12345>)" in text
    for options, message in (
        (("--paper", "https://arxiv.org/abs/1"), "--name is missing: expected who submits"),
        (("--name", "A", "--code", "http://x.org"), "code is 'http://x.org': expected https://"),
        (("--name", "=1"), "name is '=1': expected 1 to 120"),
    ):
        done = run(tmp_path, "tools/submit.py", "record.json", *options)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    (stored,) = (tmp_path / "benchmarks/records").glob("*.json")
    again = run(tmp_path, "tools/submit.py", stored, "--name", "B")
    assert again.returncode == 1 and "the record says already who submits it" in again.stderr
