"""Finished runs for the commands that predict: two steps, all 20 classes, background no answer at the end."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open

from scannet_css.classes import CLASSES, NYU40_IDS
from scannet_css.commands import run_command
from scannet_css.scenes import load_manifest

FAST = (
    *("--network", "minkunet14s", "--inputs", "colour+normal+height", "--batch-voxels", 8000),
    *("--base-epochs", 2, "--epochs", 1, "--base-learning-rate", 0.02),
    *("--elastic", "false", "--device", "cpu"),
)
METHODS = {"lwf": (), "cfsseg": ("--width", 64)}


def stored(run, step, name):
    """What the run predicted of a scene, as NYU40 ids (P,)."""
    with safe_open(run / "predictions" / f"step{step}" / f"{name}.safetensors", framework="np") as file:
        channels, values = json.loads(file.metadata()["channels"]), file.get_tensor("prediction")
    ids = [0] + [NYU40_IDS[CLASSES.index(channel)] for channel in channels[1:]]
    return np.array(ids)[values]


@pytest.fixture(scope="session")
def trained(command_line, small_set, tmp_path_factory):
    """`.runs[method]`: run folders with predictions and exports, `.stored(run, step, name)`: one of the
    predictions; `.names` of the validation scenes, `.scan(name)`: the raw mesh of one; `.data` and `.scans`:
    prepared and raw set; `.commands[method]`: what was called, with `.folder` as the folder of runs."""
    folder = tmp_path_factory.mktemp("trained")
    protocol = folder / "two-steps.json"
    steps = [[name for n, name in enumerate(CLASSES) if n % 4], list(CLASSES[::4])]
    fixed = {"version": 1, "description": "for tests", "regime": "overlapped", "unannotated": "ignore"}
    protocol.write_text(json.dumps({"name": "two-steps", **fixed, "steps": steps, "background": []}))
    commands = {}
    for method, options in METHODS.items():
        commands[method] = [
            *("benchmarks/run.py", "--method", method, "--data", small_set, "--protocol", protocol),
            *("--runs", folder / "runs", "--keep-predictions", "--export", *FAST, *options),
        ]
        done = command_line(*commands[method])
        assert done.returncode == 0, done.stderr
    runs = folder / "runs" / "synthetic" / "two-steps"
    scans = small_set.parent / "scans"
    found = {path.name: path for path in scans.rglob("scene*_*_vh_clean_2.ply")}
    return SimpleNamespace(
        runs={method: runs / method / "minkunet14s-seed0" for method in METHODS},
        folder=folder / "runs",
        commands=commands,
        names=[entry.name for entry in load_manifest(small_set).split("val")],
        scan=lambda name: found[f"{name}_vh_clean_2.ply"],
        data=small_set,
        scans=scans,
        stored=stored,
    )


@pytest.fixture(scope="session")
def load_tool():
    """`load_tool("predict")`: the module of a command."""

    def load(name):
        path = Path(__file__).parents[2] / "tools" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        return tool

    return load


@pytest.fixture
def call(capfd):
    """`call(tool, arguments...)`: exit code, standard output and standard error of a command in this
    process."""

    def run(tool, *arguments):
        capfd.readouterr()
        code = run_command(tool.main, [str(argument) for argument in arguments])
        return (code, *capfd.readouterr())

    return run
