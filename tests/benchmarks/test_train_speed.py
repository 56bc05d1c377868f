"""benchmarks/speed.py train as a user drives it; no time is tested."""

import importlib
import itertools
import json
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scannet_css.commands import run_command
from scannet_css.network import build_network
from scannet_css.sparse import SparseTensor

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
METHODS = ["finetune", "lgkd+plop3d"]


@pytest.fixture
def script(monkeypatch):
    """`script(name)`: the module benchmarks/<name>.py."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture(scope="module")
def measured(command_line, tmp_path_factory):
    """Standard output and JSON of a run with two small rooms and two turns."""
    path = tmp_path_factory.mktemp("speed") / "train.json"
    size = ("--networks", "minkunet14s", "--voxel-sizes", 0.2, "--vertices", 2000, "--scenes", 2)
    fixed = ("--device", "cpu", "--threads", 1, "--repeats", 2, "--batches", 2, "--workers", 1)
    options = (*size, *fixed, "--methods", *METHODS, "--json", path)
    done = command_line("benchmarks/speed.py", "train", *options)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout, json.loads(path.read_text())


def test_the_parts_fill_the_step_that_was_timed_with_them(measured):
    for values in measured[1]["rows"][0]["measured"].values():
        assert len(values["turns"]) == 2
        for turn in values["turns"]:
            parts = turn["parts"].values()
            assert min(parts) >= 0 and sum(parts) <= turn["timed_step"]
            assert 0 < turn["update"] <= turn["step"]
            assert all(turn["parts"][part] > 0 for part in ("loader", "maps", "forward", "loss", "backward"))


def test_only_a_method_with_a_teacher_has_the_time_of_one(measured):
    parts = {name: values["part_seconds"] for name, values in measured[1]["rows"][0]["measured"].items()}
    assert parts["lgkd+plop3d"]["teacher"] > 20 * parts["finetune"]["teacher"]


def test_methods_are_set_against_finetuning_on_the_same_batches(measured):
    found = measured[1]["rows"][0]["measured"]
    base = found["finetune"]["turns"]
    for values in found.values():
        assert [turn["voxels"] for turn in values["turns"]] == [turn["voxels"] for turn in base]
        ratios = [mine["update"] / other["update"] for mine, other in zip(values["turns"], base, strict=True)]
        assert values["times_finetune"] == statistics.median(ratios)
    assert found["finetune"]["times_finetune"] == 1


def test_figures_are_medians_of_the_turns(measured):
    row = measured[1]["rows"][0]
    for values in row["measured"].values():
        turns, median = values["turns"], statistics.median
        assert values["step_seconds"] == median(turn["step"] for turn in turns)
        assert values["update_seconds"] == median(turn["update"] for turn in turns)
        for part, seconds in values["part_seconds"].items():
            assert seconds == median(turn["parts"][part] for turn in turns)
        assert values["scenes_per_second"] == median(row["scenes"] / turn["step"] for turn in turns)
        assert values["voxels_per_second"] == median(turn["voxels"] / turn["step"] for turn in turns)
        assert values["peak_bytes"] is None or values["peak_bytes"] > 2**20


def test_the_table_shows_what_the_json_holds(measured):
    stdout, result = measured
    header, _, *rows = [line[2:-2].split(" | ") for line in stdout.splitlines()]
    assert len(rows) == len(METHODS)
    for name, cells in zip(METHODS, rows, strict=True):
        shown, values = dict(zip(header, cells, strict=True)), result["rows"][0]["measured"][name]
        assert (shown["network"], shown["voxel m"], shown["scenes"]) == ("minkunet14s", "0.2", "2")
        assert (shown["method"], shown["voxels"]) == (name, str(values["voxels"]))
        for part, seconds in values["part_seconds"].items():
            assert shown[f"{part} ms"] == f"{1000 * seconds:.1f}"
        assert shown["step s"] == f"{values['step_seconds']:.3g}"
        assert shown["x finetune"] == f"{values['times_finetune']:.2f}"
    assert (result["repeats"], result["batches"], result["workers"]) == (2, 2, 1)
    assert result["deterministic"] is True  # a CPU always is
    assert result["environment"]["threads"] == 1 and result["date"]


def test_a_part_inside_of_another_counts_for_itself_only(script):
    now = [10.0]
    parts = script("speed_lib.trainee").Parts(clock=lambda: now[0])

    def work(seconds):
        now[0] += seconds

    with parts.timed("forward"):
        work(1)
        with parts.timed("maps"):
            work(2)
            with parts.timed("maps"):  # a map that needs another one first
                work(4)
        work(8)
    work(16)  # belongs to nobody
    with parts.timed("forward"):
        work(32)
    assert parts.seconds == {"forward": 41, "maps": 6}


def test_the_clock_is_read_when_the_device_is_done(script):
    waits = []
    parts = script("speed_lib.trainee").Parts(
        wait=lambda: waits.append("wait"), clock=lambda: float(len(waits))
    )
    with parts.timed("forward"):
        assert len(waits) == 1
    assert parts.seconds == {"forward": 1} and len(waits) == 2


def test_seconds_are_those_of_the_clock_that_was_chosen(script):
    trainee, now = script("speed_lib.trainee"), itertools.count()
    device = torch.device("cpu")
    case = trainee.Case(
        None, 1, SimpleNamespace(learning_rate=0.1), SimpleNamespace(device=device), lambda: next(now)
    )
    one = object.__new__(trainee.Trainee)
    one.case, one.updater = case, SimpleNamespace(run=lambda *_, **__: None)
    loader = trainee.Parts(clock=case.clock)
    batches = iter([SimpleNamespace(voxels=7)] * 2)
    seconds, voxels = one._train(batches, 2, loader)
    # start, twice the two looks of the loader's timer, end
    assert (seconds, voxels, loader.seconds) == (5 / 2, 7, {"loader": 2})


def test_every_map_that_a_network_asks_for_is_timed_as_one(script):
    trainee = script("speed_lib.trainee")
    names, parts = [], trainee.Parts()
    timed = parts.timed
    parts.timed = lambda name: names.append(name) or timed(name)
    torch.manual_seed(0)
    x = SparseTensor(torch.ones(5000, 3), script("speed_lib.measured_rooms").batch_of_voxels(5000, 0.2))
    network = build_network("minkunet14s")
    with parts.timed("forward"), parts.timed_maps():
        network(x).logits.sum().backward()
    wanted = [name for name in x.manager.built if name[0] == "map"]
    assert names == ["forward"] + ["maps"] * (len(wanted) + 4)  # four lead back from a coarser level
    assert 0 < parts.seconds["maps"] < parts.seconds["forward"]
    SparseTensor(x.features, x.coordinates).manager.map(1, 3, 1)
    assert len(names) == 1 + len(wanted) + 4  # nothing is timed outside


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scenes", 1, 0), "--scenes 0: expected at least 1"),
        (("--repeats", 0), "--repeats 0: expected at least 1"),
        (("--batches", 0), "--batches 0: expected at least 1"),
        (("--workers", -1), "--workers -1: expected at least 0"),
        (("--vertices", 10), "--vertices 10: expected at least 1000"),
        (("--voxel-sizes", 2), "--voxel-sizes 2.0: expected metres, from 0.005 to 0.5"),
        (("--networks", "minkunet14z"), "network 'minkunet14z' is not known (did you mean"),
        (("--methods", "lgdk"), "method 'lgdk' is not known (did you mean 'lgkd'?)"),
        (("--methods", "joint"), "--methods joint: expected methods that are trained step by step"),
        (("--device", "gpu"), "--device 'gpu': expected auto, cpu, cuda or cuda:N"),
        (("--precision", "float8"), "argument --precision: invalid choice: 'float8'"),
        (("--device", "cpu", "--precision", "bfloat16"), "--precision bfloat16 on cpu: expected float32"),
        (("--device", "cpu", "--cpu-time", "--threads", 2), "--cpu-time: expected --device cpu --workers 0"),
        (("--json", "/proc/nowhere/train.json"), "/proc/nowhere"),
    ],
)
def test_wrong_options_are_one_line(script, capsys, options, message):
    assert run_command(script("speed").main, ["train", *map(str, options)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1 and message in shown.err
