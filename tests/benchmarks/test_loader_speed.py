"""`speed.py loader`: what it computes from its runs; no time is tested."""

import importlib
import json
import statistics
from pathlib import Path

import pytest

from scannet_css.commands import run_command

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("speed_lib.loader_speed")


def test_rates_and_stages(script, monkeypatch, tmp_path, capsys):
    loaded = []
    load_all = script.load_all

    def counting(batch_set, workers, device):
        loaded.append((batch_set.with_elastic, workers, [len(batch) for batch in batch_set.batches]))
        load_all(batch_set, workers, device)

    monkeypatch.setattr(script, "VERTICES", 3000)
    monkeypatch.setattr(script, "load_all", counting)
    path = tmp_path / "speed.json"
    sizes = (
        "--scenes",
        "2",
        "--passes",
        "3",
        "--workers",
        "0",
        "1",
        "--repeats",
        "2",
        "--batch-voxels",
        "8000",
    )
    speed = importlib.import_module("speed")
    assert run_command(speed.main, ["loader", *sizes, "--device", "cpu", "--json", str(path)]) == 0
    result = json.loads(path.read_text())

    assert result["date"] and result["environment"]["platform"] and result["environment"]["threads"]
    assert (result["passes"], result["repeats"], result["batch_voxels"]) == (3, 2, 8000)
    assert len(result["scenes"]) == 2
    assert all(0 < s["voxels"] <= s["vertices"] == pytest.approx(3000, rel=0.15) for s in result["scenes"])
    kinds = [(elastic, workers) for elastic in (False, True) for workers in (0, 1)]
    assert [(run["elastic"], run["workers"]) for run in result["runs"]] == kinds
    assert [call[:2] for call in loaded] == kinds * 3  # in turns, the first of which warms up
    assert all(sum(call[2]) == 6 for call in loaded)
    for run in result["runs"]:
        assert run["scenes"] == 6 and run["batches"] == len(loaded[0][2]) and len(run["all_seconds"]) == 2
        assert run["seconds"] == statistics.median(run["all_seconds"]) > 0
        assert run["scenes_per_second"] == pytest.approx(6 / run["seconds"])

    runs, stages = (
        [line[2:-2].split(" | ") for line in part.splitlines()]
        for part in capsys.readouterr().out.split("\n\n")[1:]
    )
    for cells, run in zip(runs[2:], result["runs"], strict=True):
        rates = [
            6 / seconds for seconds in (run["seconds"], max(run["all_seconds"]), min(run["all_seconds"]))
        ]
        assert cells == ["yes" if run["elastic"] else "no", str(run["workers"]), *(f"{r:.1f}" for r in rates)]
    for cells, row in zip(stages[2:], result["stages"], strict=True):
        times = [row[stage] for stage in script.STAGES]
        assert all(time > 0 for time in times)
        expected = (f"{1000 * time:.2f}" for time in (*times, sum(times)))
        assert cells == ["yes" if row["elastic"] else "no", *expected]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scenes", "0"), "--scenes 0: expected at least 1"),
        (("--workers", "2", "-1"), "--workers -1: expected at least 0"),
        (("--passes", "0"), "--passes 0: expected at least 1"),
        (("--batch-voxels", "0"), "--batch-voxels 0: expected at least 1"),
        (("--repeats", "x"), "argument --repeats: invalid int value"),
        (("--device", "gpu"), "--device 'gpu': expected auto, cpu, cuda or cuda:N"),
        (("--json", "/proc/nowhere/speed.json"), "/proc/nowhere"),
    ],
)
def test_wrong_options_are_one_line(script, capsys, options, message):
    speed = importlib.import_module("speed")
    assert run_command(speed.main, ["loader", *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and message in shown.err
