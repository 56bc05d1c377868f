"""benchmarks/run.py on a small set as a process of its own, and what it leaves."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from scannet_css.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
NAME = "synthetic/three-steps/{}/minkunet14s-seed0"
# Settings that fit the small set
MEMORIES = ("replay", "mib-augm", "ssul-m", "climb3d")
OPTIONS = {**dict.fromkeys(MEMORIES, ("--scenes-kept", 4)), "cfsseg": ("--width", 64)}
TIMES = ("seconds", "peak_memory_bytes", "created", "speed", "log_bytes")


class Command:
    """run.py on the small set: three steps of two epochs, a checkpoint after every batch."""

    def __init__(self, method, data, protocol, runs):
        self.runs, self.run = runs, runs / NAME.format(method)
        self.processes = []
        self.options = [
            *("--method", method, "--data", data, "--protocol", protocol, "--runs", runs),
            *("--network", "minkunet14s", "--base-epochs", 2, "--epochs", 2, "--batch-voxels", 4000),
            *("--base-learning-rate", 0.02, "--elastic", "false", "--threads", 1, "--device", "cpu"),
            *("--checkpoint-seconds", 0, *OPTIONS.get(method, ())),
        ]

    def start(self, *script, options=()):
        command = [sys.executable, *(script or ["benchmarks/run.py"]), *self.options, *options]
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def clear_up(self):
        """No process outlives a test that failed."""
        for process in self.processes:
            if process.poll() is None:  # else its number may be another's by now
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def finish(self, *script, options=()):
        """Exit code and standard error of a run to its end."""
        process = self.start(*script, options=options)
        _, errors = process.communicate(timeout=120)
        return process.returncode, errors

    def state(self):
        """Everything the run leaves, but for times, as digests by file."""
        files = {}
        for path in sorted(self.runs.rglob("*")):
            if path.suffix == ".pt":
                content = load_checkpoint(path)
                if "progress" in content:
                    for speed in ("scenes_per_second", "voxels_per_second", "memory_gib"):
                        content["progress"]["sums"].pop(speed, None)
                files[path.relative_to(self.runs)] = digest(content)
            elif path.name in ("metrics.jsonl", "record.json", "settings.json"):
                lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
                files[path.relative_to(self.runs)] = digest([json.loads(line) for line in lines])
            elif path.name != ".lock" and path.is_file() and path.parent.name != "tensorboard":
                files[path.relative_to(self.runs)] = "unexpected"
        return files

    def is_at_most_one_iteration_behind(self):
        """Every iteration that was logged is in a checkpoint, but for the last."""
        for log in self.runs.rglob("metrics.jsonl"):
            whole = log.read_bytes().count(b"\n")
            saved = [int(path.stem.split("-")[1]) for path in log.parent.glob("checkpoint-*.pt")]
            if not (log.parent / "finished.pt").exists() and whole - max(saved, default=0) > 1:
                return False
        return True


def digest(value):
    state = hashlib.sha256()

    def add(value):
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                if key not in TIMES:
                    state.update(f"{key}:".encode())
                    add(value[key])
        elif isinstance(value, list | tuple):
            state.update(f"[{len(value)}]".encode())
            for each in value:
                add(each)
        elif isinstance(value, torch.Tensor):
            state.update(f"{value.dtype}{tuple(value.shape)}".encode())
            state.update(value.contiguous().numpy().tobytes())
        else:
            state.update(repr(value).encode())

    add(value)
    return state.hexdigest()


def rows(one):
    """The log of all steps, in order."""
    logs = [*one.runs.glob("base/*/metrics.jsonl"), *sorted(one.run.glob("step*/metrics.jsonl"))]
    assert len(logs) == 3
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]
