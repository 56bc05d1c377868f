"""benchmarks/suite.py as a user drives it, on a suite of a few seconds, and the file that it reads."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scannet_css.results.record import load_record

ROOT = Path(__file__).parents[2]
SUITE = """
[data.small]
folder = "{data}"

[recipe.fast]
network = "minkunet14s"
base_epochs = {epochs}
epochs = 1
batch_voxels = 8000
elastic = false

[settings.mine]
lgkd = {{ novel_weight = 2 }}

[[block]]
name = "pair"
description = "two methods of one base"
data = "small"
protocols = ["{protocol}"]
methods = ["finetune", "lgkd"]
seeds = [0]
recipe = "fast"
settings = "mine"

[[block]]
name = "weights"
description = "one of them again, and another"
data = "small"
protocols = ["{protocol}"]
methods = ["lgkd"]
seeds = [0]
recipe = "fast"
grid = {{ background_weight = [5.0], novel_weight = [2.0, 0.0] }}
"""


@pytest.fixture
def suite(tmp_path, small_set, three_steps):
    """`suite(old, new)` writes the file, with `old` replaced by `new`, and gives its path."""

    def write(old="", new="", epochs=1):
        text = SUITE.format(data=small_set, protocol=three_steps, epochs=epochs)
        assert old in text
        path = tmp_path / "suite.toml"
        path.write_text(text.replace(old, new, 1) if old else text)
        return path

    return write


def test_runs_what_is_missing_and_nothing_twice(suite, command_line, tmp_path):
    path, runs = suite(), tmp_path / "runs"
    arguments = ("--suite", path, "--runs", runs)
    dry = command_line("benchmarks/suite.py", *arguments, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "3 runs: 0 done, 3 left, unknown time" in dry.stdout  # the grid's first point is the pair's second
    assert dry.stdout.count("with its base step") == 3 and not runs.exists()

    first = command_line("benchmarks/suite.py", *arguments, "--only", "pair", "--jobs", 2, "--threads", 1)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "2 runs: 0 done, 2 left" in first.stdout and "2/2 pair/three-steps" in first.stdout
    assert len(list((runs / "base").iterdir())) == 1
    times = [json.loads(line) for line in (runs / "suite.jsonl").read_text().splitlines()]
    assert [row["base"] for row in times] == [True, False]  # the second waited for the first one's base

    dry = command_line("benchmarks/suite.py", *arguments, "--dry-run")
    assert "3 runs: 2 done, 1 left, about 0 min" in dry.stdout and "base step" not in dry.stdout
    assert command_line("benchmarks/suite.py", *arguments).returncode == 0
    records = {path: load_record(path) for path in runs.rglob("record.json")}
    weights = [
        record.method.settings["novel_weight"] for record in records.values() if record.method.settings
    ]
    assert sorted(weights) == [0.0, 2.0]
    bytes_before = {path: path.read_bytes() for path in records}
    again = command_line("benchmarks/suite.py", *arguments)
    assert again.returncode == 0 and "3 runs: 3 done, 0 left" in again.stdout
    assert bytes_before == {path: path.read_bytes() for path in runs.rglob("record.json")}


def test_a_stopped_suite_leaves_no_process_and_goes_on(suite, command_line, tmp_path):
    path, runs = suite(epochs=40), tmp_path / "runs"
    command = [sys.executable, "benchmarks/suite.py", "--suite", path, "--runs", runs, "--only", "pair"]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not list(runs.rglob("metrics.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert [pid for pid in os.listdir("/proc") if pid.isdigit() and _mentions(pid, str(runs))] == []
    path = suite(epochs=40)
    again = command_line("benchmarks/suite.py", "--suite", path, "--runs", runs, "--only", "pair")
    assert again.returncode == 0, again.stdout
    epochs = [
        json.loads(line)["iteration"] for log in runs.rglob("base/*/metrics.jsonl") for line in log.open()
    ]
    assert epochs == list(range(len(epochs)))  # no iteration of the base step twice


def _mentions(pid, text):
    try:
        return text in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_a_failing_run_is_named_and_the_others_go_on(suite, command_line, tmp_path):
    path, runs = (
        suite('methods = ["finetune", "lgkd"]', 'methods = ["replay", "finetune"]'),
        tmp_path / "runs",
    )
    done = command_line("benchmarks/suite.py", "--suite", path, "--runs", runs, "--only", "pair")
    assert done.returncode == 1
    assert (
        "1/2 pair/three-steps" in done.stdout and "scenes_kept is 100; expected at most the 10" in done.stdout
    )
    assert len(list(runs.rglob("record.json"))) == 1


def test_data_that_are_not_there_are_named(suite, command_line, tmp_path, small_set):
    path = suite(str(small_set), str(tmp_path / "nowhere"))
    done = command_line("benchmarks/suite.py", "--suite", path, "--runs", tmp_path / "runs")
    assert done.returncode == 0
    assert f"3 wait for {tmp_path / 'nowhere'}, which is not prepared" in done.stdout
    only = command_line("benchmarks/suite.py", "--suite", path, "--runs", tmp_path / "runs", "--only", "pair")
    assert only.returncode == 2 and "none of these runs has its data" in only.stderr


BAD = [
    ("seeds = [0]", "seed = [0]", "block 'pair': unknown key 'seed' (did you mean 'seeds'?)"),
    ("seeds = [0]", 'seeds = ["0"]', "block 'pair': seed '0'; expected whole numbers from 0"),
    ("seeds = [0]", "", "block 'pair': seeds is missing"),
    ('name = "weights"', 'name = "pair"', "block 'pair': the name occurs twice"),
    ('"lgkd"]', '"lgdk"]', "block 'pair': method 'lgdk' is not known (did you mean 'lgkd'?)"),
    ('data = "small"', 'data = "smal"', "data is 'smal', which is not defined (did you mean 'small'?)"),
    ("base_epochs", "base_epoch", "recipe.fast: unknown key 'base_epoch' (did you mean 'base_epochs'?)"),
    ("base_epochs = 1", "base_epochs = 0", "recipe.fast: base_epochs 0: expected more than 0"),
    ("elastic = false", "elastic = 0", "recipe.fast: elastic is 0; expected true or false"),
    ("novel_weight = 2", "novl_weight = 2", "settings.mine.lgkd: method 'lgkd' has no setting 'novl_weight'"),
    ("novel_weight = 2", "novel_weight = -2", "novel_weight is -2; expected at least 0"),
    ("[5.0]", "5.0", "block 'weights': grid.background_weight is 5.0; expected a list of values"),
    ("[[block]]", "[[blok]]", "the file: unknown key 'blok' (did you mean 'block'?)"),
    ("[[block]]", "[block]]", "not TOML"),
]


@pytest.mark.parametrize("old, new, message", BAD)
def test_a_bad_suite_file_is_one_line(old, new, message, suite, tmp_path):
    from suite import main

    from scannet_css.errors import InputError

    with pytest.raises(InputError) as caught:
        main(["--suite", str(suite(old, new)), "--runs", str(tmp_path / "runs")])
    assert message in str(caught.value) and str(tmp_path / "suite.toml") in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_the_official_suite_names_every_protocol_and_method():
    from suite_file import read_suite

    from scannet_css.learning.method import find_method, method_names
    from scannet_css.protocols import protocol_names

    runs = read_suite(ROOT / "benchmarks" / "suite.toml", ROOT)
    assert {run.protocol for run in runs} == set(protocol_names())
    ours = {name for name in method_names() if find_method(name).__module__.startswith("baselines.")}
    for data, protocol in (("study", "scannet/s0-15-5"), ("scannet", "scannet/s1-15-1")):
        of_protocol = [run for run in runs if run.data.name == data and run.protocol == protocol]
        assert {run.method for run in of_protocol} >= ours
        assert {run.seed for run in of_protocol} == {0, 1, 2}
