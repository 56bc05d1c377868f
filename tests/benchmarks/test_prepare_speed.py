"""`speed.py prepare`: what it computes from its runs; no time is tested."""

import importlib
import importlib.util
import json
from pathlib import Path

import pytest

from scannet_css.commands import run_command
from scannet_css.errors import InputError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SECONDS = {"--help": 2.0, "ply": 4.0, "segments": 12.0}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("speed_lib.prepare_speed")


def test_rates_stages_and_memory(script, monkeypatch, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("prepare_scannet", script.TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run_tool(*arguments):
        """The tool in this process, with times that are known."""
        words = list(map(str, arguments))
        seconds = next((SECONDS[word] for word in words if word in SECONDS), 0.0)
        if "--help" not in words:
            assert tool.main(words) == 0
        return script.Command(seconds, int(seconds * 1e8))

    for name, value in {"VERTICES": 3000, "MOST_VERTICES": 6000, "run_tool": run_tool}.items():
        monkeypatch.setattr(script, name, value)
    speed = importlib.import_module("speed")
    path = tmp_path / "speed.json"
    options = ["prepare", "--scans", "2", "--workers", "1", "--repeats", "1", "--json", str(path)]
    assert run_command(speed.main, options) == 0
    result = json.loads(path.read_text())

    assert len(result["scans"]) == 2 and result["environment"]["platform"]
    for scan in (*result["scans"], result["large_scan"]):
        wanted = 6000 if scan is result["large_scan"] else 3000
        assert scan["vertices"] == pytest.approx(wanted, rel=0.15) and scan["faces"] > scan["vertices"]
    assert [(run["labels"], run["workers"]) for run in result["runs"]] == [("ply", 1), ("segments", 1)]
    for run, alone, working in zip(result["runs"], (0.5, 2 / 12), (1.0, 0.2), strict=True):
        assert run["scans_per_second"] == pytest.approx(alone)
        assert run["scans_per_second_without_startup"] == pytest.approx(working)
        stages = dict(run["stages"])
        assert stages.pop("all") == pytest.approx(sum(stages.values()), abs=1e-3)
    assert result["peak_bytes"] == {"ply": 4e8, "segments": 12e8}
    assert result["load"]["vertices"] == result["scans"][0]["vertices"]

    shown = capsys.readouterr().out
    assert "| ply | 1 | 0.5 | 1.0 |" in shown and "| segments | 1 | 0.2 | 0.2 |" in shown
    assert "400 MB (ply), 1200 MB (segments)" in shown


def test_the_tool_is_run_as_a_user_does(script, tmp_path):
    command = script.run_tool("--help")
    assert command.seconds > 0 and command.peak_bytes > 1e7
    with pytest.raises(InputError, match="no such folder"):
        script.run_tool("--scans", tmp_path / "nothing", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scans", "0"), "--scans 0: expected at least 1"),
        (("--workers", "1", "0"), "--workers 0: expected at least 1"),
        (("--repeats", "x"), "argument --repeats: invalid int value"),
        (("--json", "/proc/nowhere/speed.json"), "/proc/nowhere"),
    ],
)
def test_wrong_options_are_one_line(script, capsys, options, message):
    speed = importlib.import_module("speed")
    assert run_command(speed.main, ["prepare", *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and message in shown.err
