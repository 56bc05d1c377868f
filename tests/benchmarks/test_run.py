"""benchmarks/run.py as a user drives it, from the command to the leaderboard."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from scannet_css.records.record import load_record
from scannet_css.scenes import load_manifest
from scannet_css.scenes.store import save_manifest

FAST = (
    "--base-epochs",
    1,
    "--epochs",
    1,
    "--network",
    "minkunet14s",
    "--batch-voxels",
    8000,
    "--elastic",
    "false",
)


@pytest.fixture(scope="module")
def run(command_line, small_set, three_steps, tmp_path_factory):
    """Runs the command on the small set; the folder of runs is shared by the tests of this file."""
    runs = tmp_path_factory.mktemp("runs")

    def call(*arguments, **options):
        fixed = ("--runs", runs, "--data", options.get("data", small_set), "--protocol", three_steps, *FAST)
        return command_line("benchmarks/run.py", *fixed, *arguments)

    call.folder = runs
    return call


def folder_of(run, method, seed=0):
    return run.folder / "synthetic" / "three-steps" / method / f"minkunet14s-seed{seed}"


def test_a_run_leaves_a_record_that_the_leaderboard_shows(run, command_line, small_set, tmp_path):
    lgkd = ("--method", "lgkd", "--novel-weight", 2, "--engine", "torch")
    for arguments in (lgkd, ("--method", "joint")):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        assert "mIoU in %" in done.stdout

    record = load_record(folder_of(run, "lgkd") / "record.json")
    manifest = load_manifest(small_set)
    assert record.data.manifest_hash == manifest.hash and record.data.dataset == "synthetic"
    weights = {"lgkd_weight": 1.0, "background_weight": 5.0, "novel_weight": 2.0}
    assert record.method.settings == {**weights, "guidance": "transplant"}
    assert record.recipe["batch_voxels"] == 8000 and record.seed == 0
    assert record.environment.engine == "torch"
    assert [len(step.classes) for step in record.steps] == [10, 15, 18]
    scored = sum(sum(entry.class_counts) for entry in manifest.split("val"))
    assert [np.sum(step.confusion.vertices) for step in record.steps] == [scored] * 3
    joint = load_record(folder_of(run, "joint") / "record.json")
    assert joint.is_joint and joint.protocol == record.protocol

    shown = command_line("benchmarks/leaderboard.py", run.folder, "--out", tmp_path)
    assert shown.returncode == 0, shown.stderr
    for name in ("lgkd", "joint"):
        assert name in (tmp_path / "leaderboard.csv").read_text()
        assert name in (tmp_path / "leaderboard.md").read_text()


def test_the_same_command_again_changes_nothing(run):
    assert run("--method", "finetune").returncode == 0
    path = folder_of(run, "finetune") / "record.json"
    before = path.read_bytes()
    assert run("--method", "finetune").returncode == 0
    assert path.read_bytes() == before


def test_predictions_are_kept_and_shown(run, command_line, small_set, tmp_path):
    assert run("--method", "finetune", "--keep-predictions").returncode == 0
    name = load_manifest(small_set).split("val")[0].name
    prediction = folder_of(run, "finetune") / "predictions" / "step2" / f"{name}.safetensors"
    picture = tmp_path / "room.png"
    shown = command_line(
        "tools/view.py",
        small_set / "val" / f"{name}.safetensors",
        "--run",
        prediction,
        "--out",
        picture,
    )
    assert shown.returncode == 0, shown.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_weights_are_exported_and_started_from(run, tmp_path):
    assert run("--method", "finetune", "--export").returncode == 0
    folder = folder_of(run, "finetune") / "weights"
    assert sorted(path.name for path in folder.iterdir()) == [f"step{n}.safetensors" for n in range(3)]
    exported = folder / "step1.safetensors"
    again = run("--method", "finetune", "--seed", 4, "--init", exported)
    assert again.returncode == 0, again.stderr
    assert f"weights from {exported}; not used: final.bias, final.kernel" in again.stderr
    record = load_record(folder_of(run, "finetune", seed=4) / "record.json")
    assert record.network.start == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert load_record(folder_of(run, "finetune") / "record.json").network.start is None
    other = run("--method", "finetune", "--seed", 4)
    assert other.returncode == 2 and "holds a run with other settings (start" in other.stderr

    wrong = run("--method", "finetune", "--seed", 5, "--init", exported, "--inputs", "colour+normal")
    assert wrong.returncode == 2
    assert "the weights take 7 input channels, --inputs gives 6" in wrong.stderr
    missing = run("--method", "finetune", "--seed", 5, "--init", tmp_path / "none.pth")
    assert missing.returncode == 2 and f"error: {tmp_path / 'none.pth'}: no such file" in missing.stderr
    assert not folder_of(run, "finetune", seed=5).exists()


WANDB = """
import json

def init(**options):
    say("init", {name: str(value) for name, value in options.items() if name != "config"})
    return Run()

class Run:
    def define_metric(self, name, step_metric):
        say("metric", [name, step_metric])

    def log(self, values):
        say("log", values)

def say(what, value):
    with open("FILE", "a") as file:
        file.write(json.dumps([what, value]) + "\\n")
"""


def test_curves_go_to_wandb_in_one_run(run, tmp_path, monkeypatch):
    """With a stand-in for the package, which keeps what it is told."""
    told = tmp_path / "told.jsonl"
    (tmp_path / "wandb.py").write_text(WANDB.replace("FILE", str(told)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    done = run("--method", "lgkd", "--seed", 6, "--wandb", "my-project")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder_of(run, "lgkd", seed=6) / "step2")
    assert run("--method", "lgkd", "--seed", 6, "--wandb", "my-project").returncode == 0
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    starts = [value for what, value in lines if what == "init"]
    assert [start["project"] for start in starts] == ["my-project"] * 2
    assert starts[0]["id"] == starts[1]["id"] and starts[0]["resume"] == "allow"
    assert ["metric", ["step2/*", "step2/iteration"]] in lines
    log = folder_of(run, "lgkd", seed=6) / "step2" / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    sent = [value for what, value in lines if what == "log" and "step2/iteration" in value]
    sent = sent[len(sent) // 2 :]  # of the second start
    assert [value["step2/iteration"] for value in sent] == [row["iteration"] for row in rows]
    assert [value["step2/loss/lgkd"] for value in sent] == [row["loss"]["lgkd"] for row in rows]


def test_wandb_that_is_not_there_is_one_line(run, tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("raise ImportError('no wandb')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    done = run("--method", "lgkd", "--seed", 9, "--wandb", "my-project")
    assert done.returncode == 2 and not folder_of(run, "lgkd", seed=9).exists()
    assert "error: --wandb: the package wandb is not installed; pip install wandb" in done.stderr


def test_help_shows_the_options_of_the_method(command_line):
    shown = command_line("benchmarks/run.py", "--method", "plop3d", "--help")
    assert shown.returncode == 0
    for text in ("--feature-weight", "(0.01)", "--base-epochs", "--protocol", "method plop3d"):
        assert text in shown.stdout
    assert "--background-weight" not in shown.stdout


def test_a_method_of_ones_own_is_a_file_and_a_class(run, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from scannet_css.methods.method import Method, option\n"
        "@dataclass\n"
        "class Mine(Method):\n"
        "    name = 'mine'\n"
        "    weight: float = option(1.0, 'weight of the feature distance')\n"
        "    def loss(self, step, batch, new, old):\n"
        "        terms = super().loss(step, batch, new, old)\n"
        "        terms['features'] = self.weight * (new.features - old.features).square().mean()\n"
        "        return terms\n"
    )
    done = run("--method", f"{path}:Mine", "--weight", 3)
    assert done.returncode == 0, done.stderr
    assert load_record(folder_of(run, "mine") / "record.json").method.settings == {"weight": 3.0}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--method", "lgdk"), "method 'lgdk' is not known (did you mean 'lgkd'?)"),
        (
            ("--method", "lgkd", "--protocol", "lgkd-14-6"),
            "'lgkd-14-6' is not known (did you mean 'lgkd-14-5'?)",
        ),
        (
            ("--method", "lgkd", "--network", "minkunet14z"),
            "network is 'minkunet14z' (did you mean 'minkunet14",
        ),
        (("--method", "lgkd", "--data", "nowhere"), "nowhere"),
        (("--method", "lgkd", "--device", "gpu"), "--device 'gpu': expected auto, cpu, cuda or cuda:N"),
        (("--method", "lgkd", "--engine", "tritn"), "engine 'tritn' is not known (did you mean 'triton'?)"),
        (
            ("--method", "lgkd", "--engine", "triton", "--device", "cpu"),
            "engine 'triton' cannot run torch.float32 on cpu: ",
        ),
        (("--method", "lgkd", "--schedule", "linear"), "schedule is 'linear'; expected poly, cosine"),
        (("--method", "lgkd", "--runs", "/proc/nowhere"), "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_line(run, arguments, message, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # tests of the kernels set it; triton runs then
    before = sorted(run.folder.rglob("*"))
    done = run(*arguments)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr
    assert sorted(run.folder.rglob("*")) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for CUDA where there is none")
def test_cuda_where_there_is_none_is_one_line(run):
    done = run("--method", "lgkd", "--device", "cuda")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "finds no CUDA device here" in done.stderr


def test_the_environment_chooses_the_engine_where_the_command_line_does_not(run, monkeypatch):
    monkeypatch.setenv("SCANNET_CSS_ENGINE", "tortch")
    done = run("--method", "lgkd", "--seed", 7)
    assert done.returncode == 2 and done.stderr.startswith("error: SCANNET_CSS_ENGINE 'tortch' is not known")
    shown = run("--method", "lgkd", "--help")
    assert "--engine" in shown.stdout and "SCANNET_CSS_ENGINE" in shown.stdout


def test_the_engine_does_not_belong_to_what_is_run(run, monkeypatch):
    assert run("--method", "finetune").returncode == 0
    path = folder_of(run, "finetune") / "record.json"
    before = path.read_bytes()
    assert run("--method", "finetune", "--engine", "torch").returncode == 0
    assert path.read_bytes() == before
    settings = (folder_of(run, "finetune") / "settings.json").read_text()
    assert "engine" not in settings


def test_a_run_folder_of_other_settings_is_refused(run):
    assert run("--method", "lwf", "--seed", 8).returncode == 0
    done = run("--method", "lwf", "--seed", 8, "--weight", 3)
    assert done.returncode == 2
    assert "holds a run with other settings (settings.weight 100.0, now 3.0)" in done.stderr


def test_a_data_set_without_the_protocols_classes_is_refused(run, small_set, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(small_set, folder)
    manifest = load_manifest(folder)
    save_manifest(replace(manifest, classes=("rock", *manifest.classes[1:])))
    done = run("--method", "lgkd", data=folder)
    assert done.returncode == 2
    assert "class 'wall' is not in the data set" in done.stderr
