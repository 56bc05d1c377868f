"""tools/doctor.py as a user runs it, and on machines where something is broken."""

import importlib.util
import json
import math
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy
import pytest
import torch

from scannet_css.sparse.engines import choice, grouped_engine, torch_engine
from scannet_css.sparse.engines.choice import ENGINES
from scannet_css.sparse.engines.trial import BOUNDS, convolution_error
from scannet_css.training.one_room import Trial

TOOL = Path(__file__).parents[2] / "tools" / "doctor.py"
SECTIONS = ["software", "machine", "engines", "space", "data", "training"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def report(command_line, small_set, tmp_path_factory):
    """Standard output on the CPU with a prepared data set, and the JSON."""
    path = tmp_path_factory.mktemp("doctor") / "doctor.json"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    options = ("--device", "cpu", "--data", small_set, "--json", path)
    done = command_line("tools/doctor.py", *options, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text())


@pytest.fixture
def doctor(monkeypatch):
    monkeypatch.setattr(choice, "_chosen", None)  # by other tests of this process
    monkeypatch.delenv("SCANNET_CSS_ENGINE", raising=False)
    spec = importlib.util.spec_from_file_location("doctor", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def by_name(facts):
    return {fact.name: fact for fact in facts}


def test_lines_and_json_say_the_same(report):
    stdout, content = report
    marks = {"works": "ok", "absent": "--", "warning": "!", "broken": "!!"}
    expected = []
    for section in SECTIONS:
        expected.append(section)
        for fact in content[section]:
            expected.append(f"  {marks[fact['state']]:<2}  {fact['name']:<18} {fact['text']}")
    assert stdout.splitlines() == [*expected, "all that is needed works"]
    assert content["device"] == "cpu" and content["problems"] == 0
    assert "broken" not in {fact["state"] for section in SECTIONS for fact in content[section]}


def test_the_report_is_of_this_machine(report):
    _, content = report
    facts = {section: {fact["name"]: fact for fact in content[section]} for section in SECTIONS}
    assert facts["software"]["torch"]["text"] == torch.__version__
    assert facts["software"]["numpy"]["text"] == numpy.__version__
    assert 1 <= facts["machine"]["processor"]["values"]["cores"] <= os.cpu_count()
    memory = facts["machine"]["memory"]["values"]
    assert 0 < memory["free_bytes"] <= memory["total_bytes"]
    assert list(facts["engines"]) == ["in use", *(f"{name} float32" for name in ENGINES)]
    assert facts["engines"]["torch float32"]["state"] == "works"
    assert facts["engines"]["triton float32"] == {
        "name": "triton float32",
        "state": "absent",
        "text": "it needs a CUDA device",
        "values": {},
    }
    assert facts["data"]["manifest"]["text"] == "synthetic, 10 train, 4 val, voxels of 0.15 m"
    assert {"first of train", "first of val"} < set(facts["data"])


def test_the_training_run_learns(report):
    _, content = report
    facts = {fact["name"]: fact["values"] for fact in content["training"]}
    # a cross-entropy over 20 classes starts near log(20) = 3.0 and, on one room, falls far
    assert 2.5 < facts["loss"]["first"] < 5 and facts["loss"]["last"] < 0.5 * facts["loss"]["first"]
    speed, voxels = facts["speed"], facts["room"]["voxels"]
    assert 10_000 < voxels < 20_668  # vertices of the room
    assert speed["voxels_per_second"] * speed["seconds_per_step"] == pytest.approx(voxels)
    assert facts["memory"]["peak_bytes"] > 1e8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "gpu"), "--device 'gpu': expected auto, cpu, cuda or cuda:N"),
        (("--device", "cuda:x"), "--device 'cuda:x': expected auto, cpu, cuda or cuda:N"),
        (("--device", "cuda:99"), "--device cuda:99: torch 2"),
        (("--network", "minkunet14"), "network 'minkunet14' is not known (did you mean"),
    ],
)
def test_bad_options_are_one_line(command_line, options, message):
    done = command_line("tools/doctor.py", *options)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and message in done.stderr


def test_what_is_broken_is_marked_and_the_rest_still_reported(doctor, monkeypatch, capsys, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("no such instruction\nin libfoo")

    monkeypatch.setenv("SCANNET_CSS_ENGINE", "torch")
    monkeypatch.setattr(torch_engine, "convolve", fail)
    path = tmp_path / "doctor.json"
    options = ["--device", "cpu", "--data", str(tmp_path / "nowhere"), "--json", str(path)]
    assert doctor.main(options) == 1
    lines = capsys.readouterr().out.splitlines()
    for name in ("torch float32     ", "training          "):
        (line,) = (line for line in lines if line.startswith(f"  !!  {name}"))
        assert "RuntimeError: no such instruction in libfoo (test_doctor.py:" in line
    (line,) = (line for line in lines if line.startswith("  !!  data"))
    assert f"{tmp_path / 'nowhere' / 'manifest.json'}: no prepared data set here" in line
    assert lines[-1] == "3 problems" and [line for line in lines if line in SECTIONS] == SECTIONS
    assert json.loads(path.read_text())["problems"] == 3


def test_an_engine_that_computes_something_else_is_broken_if_needed(doctor, monkeypatch):
    right = {module: module.convolve for module in (torch_engine, grouped_engine)}
    for module in right:
        monkeypatch.setattr(module, "convolve", lambda *a, m=module: right[m](*a) * 1.1)
    facts = by_name(doctor.engines(CPU))
    assert facts["torch float32"].state == "broken"
    assert facts["torch float32"].text == "wrong by 0.1 of the largest value"
    assert facts["grouped float32"].state == "warning" or grouped_engine.unavailable(CPU, torch.float32)
    monkeypatch.setattr(torch_engine, "convolve", lambda *a: right[torch_engine](*a) * float("nan"))
    assert by_name(doctor.engines(CPU))["torch float32"].state == "broken"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_trial_tells_right_from_wrong(monkeypatch, dtype):
    assert convolution_error("torch", CPU, dtype) < BOUNDS[dtype] / 2
    right = torch_engine.gradients
    monkeypatch.setattr(torch_engine, "gradients", lambda *a: (right(*a)[0], right(*a)[1].flip(0)))
    assert convolution_error("torch", CPU, dtype) > 0.5


def test_an_engine_that_cannot_run_is_a_problem_if_it_was_asked_for(doctor, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("SCANNET_CSS_ENGINE", "triton")
    fact = by_name(doctor.engines(CPU))["in use"]
    assert fact.state == "broken"
    assert fact.text == "engine 'triton' cannot run torch.float32 on cpu: it needs a CUDA device"


@pytest.mark.parametrize(("free", "state"), [(6e9, "works"), (4.9e9, "warning")])
def test_little_space_is_a_warning(doctor, monkeypatch, free, state):
    usage = namedtuple("usage", "total used free")(10e9, 0, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    facts = by_name(doctor.space())
    assert {fact.state for fact in facts.values()} == {state}
    text = f"{free / 1e9} GB free in {TOOL.parents[1] / 'runs'}"
    assert facts["runs"].text == ("only " if state == "warning" else "") + text


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ([3.0, 3.0], "3.000 -> 3.000 in 2 steps of minkunet14s: expected to fall"),
        ([3.0, math.nan], "3.000 -> nan in 2 steps of minkunet14s: expected finite numbers"),
        ([math.inf, 3.0], "inf -> 3.000 in 2 steps of minkunet14s: expected finite numbers"),
    ],
)
def test_a_loss_that_does_not_fall_is_a_problem(doctor, monkeypatch, losses, text):
    monkeypatch.setattr(doctor, "train_on_a_room", lambda *_: Trial(100, losses, 0.5, 10**9))
    facts = by_name(doctor.training(doctor.build_network("minkunet14s"), "minkunet14s", CPU))
    assert (facts["loss"].state, facts["loss"].text) == ("broken", text)
    assert facts["speed"].text == "200 voxels/s, 0.500 s a step"
    json.dumps([fact.values for fact in facts.values()], allow_nan=False)


def test_missing_packages_are_problems_only_where_needed(doctor, monkeypatch):
    def version(name):
        if name in ("safetensors", "triton"):
            raise doctor.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor.metadata, "version", version)
    facts = by_name(doctor.software())
    assert (facts["safetensors"].state, facts["triton"].state) == ("broken", "absent")
    assert (facts["wandb"].state, facts["wandb"].text) == ("works", "1.0")


def test_a_gpu_that_torch_does_not_use_is_a_warning(doctor, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for driver, state in ((None, "absent"), ("550.54", "warning")):
        monkeypatch.setattr(doctor, "driver_version", lambda driver=driver: driver)
        (fact,) = doctor.cuda()
        assert fact.state == state and (driver or "no NVIDIA driver") in fact.text
