"""benchmarks/suite.py as a user drives it, on a suite of a few seconds, and the file that it reads."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from suite import main
from suite_lib.suite_file import read_suite
from suite_lib.synthetic_set import make_synthetic_set

from scannet_css.errors import InputError
from scannet_css.methods.method import find_method, method_names
from scannet_css.protocols import protocol_names
from scannet_css.records.record import load_record
from scannet_css.synthetic.scans import make_set
from scannet_css.training.signals import SIGNALS

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


@pytest.fixture
def suite_here(capsys):
    """`suite_here(*arguments)` runs the command in this process: its exit code, and what it prints."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield lambda *arguments: (main([str(argument) for argument in arguments]), capsys.readouterr().out)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_runs_what_is_missing_and_nothing_twice(suite, suite_here, tmp_path):
    path, runs = suite(), tmp_path / "runs"
    arguments = ("--suite", path, "--runs", runs)
    code, shown = suite_here(*arguments, "--dry-run")
    assert (
        code == 0 and "3 runs: 0 done, 3 left, unknown time" in shown
    )  # pair and weights have one in common
    assert shown.count("with its base step") == 3 and not runs.exists()

    # one that fails is named, and the others are run
    suite('methods = ["finetune", "lgkd"]', 'methods = ["replay", "finetune", "lgkd"]')
    code, shown = suite_here(*arguments, "--only", "pair", "--jobs", 2, "--threads", 1)
    assert code == 1 and "3 runs: 0 done, 3 left" in shown and "3/3 pair/three-steps/lgkd" in shown
    assert "1/3 pair/three-steps/replay-seed0: failed with exit code 2: " in shown
    assert "expected at most the 10" in shown
    assert len(list((runs / "base").iterdir())) == 1
    times = [json.loads(line) for line in (runs / "suite.jsonl").read_text().splitlines()]
    assert [row["base"] for row in times] == [True, False]  # the second waited for the first one's base
    folder = runs / "small" / "three-steps" / "lgkd,novel-weight=2.0" / "minkunet14s-fast-seed0"
    assert load_record(folder / "record.json").method.settings["novel_weight"] == 2.0

    suite()
    code, shown = suite_here(*arguments, "--dry-run", "--only", "pair,weights")
    assert "3 runs: 2 done, 1 left, about 0 min" in shown and "base step" not in shown
    bytes_before = {path: path.read_bytes() for path in runs.rglob("record.json")}
    code, shown = suite_here(*arguments, "--only", "pair")
    assert code == 0 and "2 runs: 2 done, 0 left" in shown
    assert bytes_before == {path: path.read_bytes() for path in runs.rglob("record.json")}

    suite(epochs=2)
    with pytest.raises(InputError, match=r"record.json: not of .* \(base_epochs 1, expected 2\)"):
        suite_here(*arguments, "--dry-run")


def test_a_killed_or_stopped_suite_leaves_no_process_and_goes_on(suite, suite_here, tmp_path):
    arguments = (
        "--suite",
        suite(epochs=3),
        "--runs",
        tmp_path / "runs",
        "--only",
        "*/finetune*",
        "--threads",
        1,
    )
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)):
        before = len(_iterations(tmp_path, "*"))
        command = [sys.executable, "benchmarks/suite.py", *map(str, arguments)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and len(_iterations(tmp_path, "*")) == before:
                time.sleep(0.02)
            process.send_signal(number)
        assert process.returncode == code
        deadline = time.monotonic() + 30
        while number == signal.SIGKILL and _processes(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)  # they write a checkpoint
        assert _processes(tmp_path) == []
    code, shown = suite_here(*arguments)
    assert code == 0 and "1/1 pair/three-steps/finetune-seed0: old" in shown
    iterations = _iterations(tmp_path, "base/*")
    assert iterations == list(range(len(iterations))) and len(iterations) >= 3  # none of them twice
    row = json.loads((tmp_path / "runs" / "suite.jsonl").read_text())
    assert row["goes_on"]
    code, shown = suite_here(*arguments[:4], "--dry-run")
    assert "3 runs: 1 done, 2 left, unknown time" in shown  # what was stopped is no measure


def _iterations(folder, step):
    """Of a step, as they were logged."""
    logs = folder.rglob(f"{step}/metrics.jsonl")
    return [json.loads(line)["iteration"] for log in logs for line in log.read_text().splitlines()]


def _processes(folder):
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and _mentions(pid, str(folder))]


def _mentions(pid, text):
    try:
        return text in Path(f"/proc/{pid}/cmdline").read_text() and int(pid) != os.getpid()
    except OSError:
        return False


def test_data_that_are_not_there_are_named(suite, suite_here, tmp_path, small_set):
    nowhere = tmp_path / "nowhere"
    arguments = ("--suite", suite(str(small_set), str(nowhere)), "--runs", tmp_path / "runs")
    code, shown = suite_here(*arguments)
    assert code == 0 and f"3 wait for {nowhere}, which is not prepared" in shown
    with pytest.raises(InputError, match=f"^--only pair: {nowhere} is not prepared"):
        suite_here(*arguments, "--only", "pair")


def test_a_dry_run_names_runs_whose_rooms_are_made_first(suite, suite_here, tmp_path, small_set):
    make = "make = { train = 10, val = 4, seed = 0, vertices = 2500, voxel_size = 0.15 }"
    path = suite(f'folder = "{small_set}"', f'folder = "{tmp_path / "rooms"}"\n{make}')
    code, shown = suite_here("--suite", path, "--runs", tmp_path / "runs", "--dry-run")
    assert code == 0 and "3 runs: 0 done, 3 left, unknown time" in shown and "3 need" in shown
    assert not (tmp_path / "rooms").exists()


def test_rooms_whose_making_was_stopped_are_completed(tmp_path):
    make_set(tmp_path / "scans", train=2, val=1, seed=0, vertices=2000)
    shutil.rmtree(tmp_path / "scans" / "scene0001_00")
    manifest = make_synthetic_set(tmp_path, train=2, val=1, seed=0, vertices=2000, voxel_size=0.2)
    assert sorted(manifest.scenes) == ["scene0000_00", "scene0001_00", "scene5000_00"]


def test_a_block_holds_its_runs_also_where_another_block_has_them_too(suite, suite_here, tmp_path):
    def shown(*only):
        _, text = suite_here("--suite", path, "--runs", tmp_path / "runs", "--dry-run", *only)
        return [line.split()[0] for line in text.splitlines() if line.startswith("  ")]

    path = suite()
    mine, other = "three-steps/lgkd,novel-weight=2.0-seed0", "three-steps/lgkd,novel-weight=0.0-seed0"
    assert shown() == ["pair/three-steps/finetune-seed0", f"pair/{mine}", f"weights/{other}"]
    assert shown("--only", "weights") == [f"weights/{mine}", f"weights/{other}"]
    assert shown("--only", f"weights/{other}") == [f"weights/{other}"]  # the comma is the name's
    assert shown("--only", "*/finetune*, weights") == [shown()[0], f"weights/{mine}", f"weights/{other}"]
    with pytest.raises(InputError, match=r"--only 'wieghts': .* \(did you mean 'weights'\?\)"):
        main(["--suite", str(path), "--only", "pair,wieghts"])


def test_a_method_from_a_file_goes_by_its_name(suite, tmp_path):
    (tmp_path / "own.py").write_text(
        "from dataclasses import dataclass\nfrom scannet_css.methods.method import Method\n\n"
        "@dataclass\nclass Own(Method):\n    name = 'own-of-suite'\n"
    )
    (run,) = read_suite(suite('["finetune", "lgkd"]', f'["{tmp_path}/own.py:Own"]'), ROOT)[:1]
    place = Path("runs/small/three-steps/own-of-suite/minkunet14s-fast-seed0")
    assert run.folder(Path("runs"), "minkunet14s") == place
    assert run.arguments()[:2] == ["--method", f"{tmp_path}/own.py:Own"]


def test_rate_and_length_of_the_later_steps_are_a_methods_own(suite):
    one, two = "novel_weight = 2", "novel_weight = 2, learning_rate = 0.25, epochs = 5"
    runs = read_suite(suite(one, two), ROOT)
    (own,) = [run for run in runs if run.method == "lgkd" and run.block == "pair"]
    (other,) = [run for run in runs if run.method == "finetune"]
    assert dict(own.own_recipe) == {"learning_rate": 0.25, "epochs": 5} and other.own_recipe == ()
    options = own.arguments()
    assert options[options.index("--learning-rate") + 1] == "0.25" and options.count("--epochs") == 1
    assert options[options.index("--epochs") + 1] == "5"
    assert "learning-rate=0.25" in own.label and "novel-weight=2.0" in own.label
    assert own.folder(Path("runs"), "net") != read_suite(suite(), ROOT)[1].folder(Path("runs"), "net")


def test_settings_of_several_tables(suite):
    more = "[settings.more]\nlgkd = { novel_weight = 3, background_weight = 4 }\n\n[[block]]"
    path = suite('settings = "mine"', 'settings = ["mine", "more"]')
    path.write_text(path.read_text().replace("[[block]]", more, 1))
    (run,) = [run for run in read_suite(path, ROOT) if run.method == "lgkd" and run.block == "pair"]
    assert dict(run.settings) == {"novel_weight": 3.0, "background_weight": 4.0}


BAD = [
    ("novel_weight = 2", "epochs = 0", "settings.mine.lgkd: epochs is 0; expected more than 0"),
    ('settings = "mine"', 'settings = ["mine", "mien"]', "is 'mien', which is not defined (did you mean"),
    ('settings = "mine"', "settings = 1", "block 'pair': settings is 1: expected a list or text"),
    ("seeds = [0]", "seed = [0]", "block 'pair': seed is [0]: unknown field (did you mean 'seeds'?)"),
    ("seeds = [0]", 'seeds = ["0"]', "block 'pair': seeds[0] is '0': expected an integer"),
    ("seeds = [0]", "seeds = [-1]", "block 'pair': seeds is [-1]: expected whole numbers from 0"),
    ("seeds = [0]", "", "block 'pair': seeds is None: missing"),
    ('name = "weights"', 'name = "pair"', "block 'pair': name is 'pair': expected one block of each name"),
    ('"lgkd"]', '"lgdk"]', "block 'pair': method 'lgdk' is not known (did you mean 'lgkd'?)"),
    ('data = "small"', 'data = "smal"', "data is 'smal', which is not defined (did you mean 'small'?)"),
    (
        "base_epochs",
        "base_epoch",
        "recipe.fast: base_epoch is 1: unknown field (did you mean 'base_",
    ),
    ("base_epochs = 1", "base_epochs = 0", "recipe.fast: base_epochs is 0; expected more than 0"),
    ("elastic = false", "elastic = 0", "recipe.fast: elastic is 0: expected true or false"),
    ("novel_weight = 2", "novl_weight = 2", "settings.mine.lgkd: method 'lgkd' has no setting 'novl_weight'"),
    ("novel_weight = 2", "novel_weight = -2", "novel_weight is -2; expected at least 0"),
    ("[5.0]", "5.0", "block 'weights': grid.background_weight is 5.0: expected a list"),
    (
        "[[block]]",
        "[[blok]]",
        "unknown field (did you mean 'block'?), expected data, recipe, ",
    ),
    ("[[block]]", "[block]]", "not a TOML file"),
    ("seeds = [0]", "seeds = []", "block 'pair': seeds is []: expected at least one"),
    ('["finetune", "lgkd"]', "[1]", "block 'pair': methods[0] is 1: expected text"),
    ('["finetune", "lgkd"]', "1", "block 'pair': methods is 1: expected a list or text"),
    ("minkunet14s", "minkunet14", "recipe.fast: network is 'minkunet14' (did you mean 'minkunet14"),
    (
        "epochs = 1\nbatch",
        "learning_rate = inf\nbatch",
        "learning_rate is inf: expected a finite number",
    ),
    ("novel_weight = 2", "novel_weight = true", "novel_weight is True; expected a finite number"),
]


@pytest.mark.parametrize("old, new, message", BAD)
def test_a_bad_suite_file_is_one_line(old, new, message, suite, tmp_path):
    with pytest.raises(InputError) as caught:
        main(["--suite", str(suite(old, new)), "--runs", str(tmp_path / "runs")])
    assert message in str(caught.value) and str(tmp_path / "suite.toml") in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_the_official_suite_names_every_protocol_and_method():
    runs = read_suite(ROOT / "benchmarks" / "suite.toml", ROOT)
    images = ("voc/", "ade20k/", "camvid/")  # theirs come with the networks for images
    points = {name for name in protocol_names() if not name.startswith(images)}
    assert {run.protocol for run in runs if not run.protocol.startswith(images)} == points
    ours = {name for name in method_names() if find_method(name).__module__.startswith("baselines.")}
    for data, protocol in (("study", "scannet/s0-15-5"), ("scannet", "scannet/s1-15-1")):
        of_protocol = [run for run in runs if run.data.name == data and run.protocol == protocol]
        assert {run.method for run in of_protocol} >= ours
        assert {run.seed for run in of_protocol} == {0, 1, 2}
