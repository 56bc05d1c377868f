"""benchmarks/speed.py as a user drives it; no time is tested."""

import importlib
import itertools
import json
from pathlib import Path

import pytest
import torch

from scannet_css.commands import run_command
from scannet_css.network import build_network
from scannet_css.sparse.engines import choice

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = (4000, 12000)


@pytest.fixture
def script(monkeypatch):
    """`script(name)`: the module benchmarks/<name>.py; what it does to the choice of engine is undone."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(choice, "_chosen", None)
    return importlib.import_module


@pytest.fixture(scope="module")
def measured(command_line, tmp_path_factory):
    """Standard output and JSON of a run on two small batches."""
    path = tmp_path_factory.mktemp("speed") / "speed.json"
    options = ("--networks", "minkunet14s", "--voxel-sizes", 0.05, "--voxels", *SIZES, "--engines", "torch")
    fixed = ("--device", "cpu", "--threads", 1, "--repeats", 1, "--json", path)
    done = command_line("benchmarks/speed.py", "engine", *options, *fixed)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout, json.loads(path.read_text())


def pairs(voxels):
    """How often a voxel of the list has another, or itself, within its 3^3 neighbourhood."""
    exists = set(voxels)
    steps = list(itertools.product((-1, 0, 1), repeat=3))
    return sum((s, x + i, y + j, z + k) in exists for s, x, y, z in voxels for i, j, k in steps)


def products(coordinates):
    """Products of numbers in a forward pass of minkunet14s, layer by layer, and those of its stem."""
    levels = [[tuple(row) for row in coordinates.tolist()]]
    for _ in range(4):
        levels.append(list({(s, x // 2, y // 2, z // 2) for s, x, y, z in levels[-1]}))
    n, p = [len(level) for level in levels], [pairs(level) for level in levels]

    def block(level, channels, width):
        adapted = n[level] * channels * width if channels != width else 0
        return p[level] * (channels * width + width * width) + adapted

    stem = p[0] * 3 * 16
    encoder = n[0] * 16 * 16 + block(1, 16, 16) + n[1] * 16 * 16 + block(2, 16, 32)
    encoder += n[2] * 32 * 32 + block(3, 32, 48) + n[3] * 48 * 48 + block(4, 48, 64)
    decoder = n[3] * 64 * 64 + block(3, 64 + 48, 64) + n[2] * 64 * 48 + block(2, 48 + 32, 48)
    decoder += n[1] * 48 * 32 + block(1, 32 + 16, 32) + n[0] * 32 * 32 + block(0, 32 + 16, 32)
    return stem + encoder + decoder + n[0] * 32 * 20, stem


def test_the_operations_are_those_counted_pair_by_pair(measured, script):
    for size, row in zip(SIZES, measured[1]["rows"], strict=True):
        coordinates = script("speed_lib.measured_rooms").batch_of_voxels(size, 0.05)
        forward, stem = products(coordinates)
        assert row["voxels"] == len(coordinates) == size
        assert row["neighbours"] == pairs([tuple(c) for c in coordinates.tolist()]) / size
        assert row["forward_gflop"] == 2 * forward / 1e9
        assert row["step_gflop"] == 2 * (3 * forward - stem) / 1e9  # nobody needs the input's gradient


def test_the_figures_follow_from_the_measured_seconds(measured):
    stdout, result = measured
    for row in result["rows"]:
        values = row["measured"]["torch"]
        seconds = values["all_seconds"]
        assert [len(seconds[kind]) for kind in ("maps", "forward", "step")] == [2, 1, 1]
        assert values["step_seconds"] == seconds["step"][0] > 0
        assert values["step_gflops"] == pytest.approx(row["step_gflop"] / values["step_seconds"])
        assert values["share_of_product"] == pytest.approx(values["step_gflops"] / row["product_gflops"])
        assert values["times_as_fast_as_peer"] is None
    small, large = (row["measured"]["torch"] for row in result["rows"])
    if small["peak_bytes"] is not None:
        assert 0 < small["peak_bytes"] < large["peak_bytes"]
    assert result["engines"] == {"torch": torch.__version__}
    assert result["environment"]["threads"] == 1 and result["environment"]["device"]

    table, costs = ([line[2:-2].split(" | ") for line in part.splitlines()] for part in stdout.split("\n\n"))
    for cells, row in zip(table[2:], result["rows"], strict=True):
        shown = dict(zip(table[0], cells, strict=True))
        assert (shown["network"], shown["engine"]) == ("minkunet14s", "torch")
        assert shown["voxels"] == str(row["voxels"])
        assert shown["step s"] == f"{row['measured']['torch']['step_seconds']:.3g}"
    each = [row["measured"]["torch"]["step_seconds"] / row["voxels"] for row in result["rows"]]
    assert [line[-1] for line in costs[2:]] == ["1.00", f"{each[1] / each[0]:.2f}"]


def test_peers_are_what_engines_are_set_against(script):
    measure, speed = script("speed_lib.measure"), script("speed_lib.engine_speed")
    seconds = {"torch": 2.0, "spconv": 3.0, "minkowski": 5.0}
    times = {name: measure.Times([0.1], [1.0], [value] * 3) for name, value in seconds.items()}
    ratios = {name: speed.summary(name, times, 10, 1.0, None)["times_as_fast_as_peer"] for name in times}
    assert ratios == {"torch": 1.5, "spconv": 1.0, "minkowski": 0.6}


def test_rooms_are_whole_scenes_or_as_many_voxels_as_asked_for(script):
    rooms = script("speed_lib.measured_rooms")
    two = rooms.batch_of_scenes(2, 0.2)
    assert two[:, 0].unique().tolist() == [0, 1]
    assert len(two.unique(dim=0)) == len(two)
    cut = rooms.batch_of_voxels(len(two) - 50, 0.2)
    assert torch.equal(cut, two[: len(two) - 50])


@pytest.mark.parametrize("network", ["minkunet14s", "minkunet14a"])
def test_a_new_batch_has_every_map_that_the_network_asks_for(script, network):
    measure, rooms = script("speed_lib.measure"), script("speed_lib.measured_rooms")
    torch.manual_seed(0)
    device = torch.device("cpu")
    work = measure.Workload(build_network(network), rooms.batch_of_voxels(1000, 0.2), device, torch.float32)
    x = work.new_batch()

    def maps():  # but those of 1^3 layers, which are nothing but the rows in their order
        return {name: n for name, n in x.manager.built.items() if name[0] == "map" and name[2] > 1}

    built = maps()
    work.step(x)
    assert maps() == built
    assert all(parameter.grad is not None for parameter in work.network.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--voxels", 100), "--voxels 100: expected at least 4000"),
        (("--scenes", 1, 0), "--scenes 0: expected at least 1"),
        (("--scenes", "many"), "argument --scenes: invalid int value: 'many'"),
        (("--dtype", "float8"), "argument --dtype: invalid choice: 'float8'"),
        (("--repeats", 0), "--repeats 0: expected at least 1"),
        (("--voxel-sizes", 2), "--voxel-sizes 2.0: expected metres, from 0.005 to 0.5"),
        (("--networks", "minkunet14z"), "network 'minkunet14z' is not known (did you mean"),
        (("--engines", "torhc"), "engine 'torhc' is not known (did you mean 'torch'?)"),
        (("--device", "cpu", "--dtype", "bfloat16"), "--dtype bfloat16 on cpu: expected float32"),
        (("--json", "/proc/nowhere/speed.json"), "/proc/nowhere"),
    ],
)
def test_wrong_options_are_one_line(script, capsys, options, message):
    fixed = () if "--engines" in options else ("--engines", "torch")
    assert run_command(script("speed").main, ["engine", *map(str, (*fixed, *options))]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1 and message in shown.err
