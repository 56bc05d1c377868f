"""Several processes under torchrun (gloo, CPU): the same losses, the same sums, the same record."""

import signal
import time
from dataclasses import dataclass

import pytest
import torch

from scannet_css.methods.means import Denominators, mean_over
from scannet_css.records.record import load_record
from scannet_css.training import epochs
from scannet_css.training.checkpoint import load_checkpoint
from tests.training.real_run import Command, rows

# Frozen statistics and small steps: what is left is rounding, which larger steps would blow up.
OPTIONS = (
    *("--batch-norm", "frozen", "--optimizer", "sgd", "--base-epochs", 1, "--epochs", 1),
    *("--learning-rate", 0.001, "--base-learning-rate", 0.01),
)
SUMMING = """
from dataclasses import dataclass
import torch
from scannet_css.methods.method import Method

@dataclass
class Summing(Method):
    name = "summing"
    needs_teacher = False

    def end(self, step):
        def sums(batch):
            return {
                "features": batch.features.double().sum(0),
                "labels": torch.bincount(batch.labels, minlength=256),
                "scenes": torch.tensor(len(batch.names)),
            }
        self.state["sums"] = step.add_up("everything", sums)
"""


def torchrun(processes):
    return (
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "benchmarks/run.py",
    )


@pytest.fixture(scope="module")
def finished(small_set, three_steps, tmp_path_factory):
    """`finished(method, processes)`: the command that has run to its end."""
    known = {}
    path = tmp_path_factory.mktemp("method") / "summing.py"
    path.write_text(SUMMING)

    def run(method, processes):
        if (method, processes) not in known:
            one = Command(method, small_set, three_steps, tmp_path_factory.mktemp("runs") / "runs")
            if method == "summing":
                one.options[1] = f"{path}:Summing"
            script = torchrun(processes) if processes > 1 else ()
            code, errors = one.finish(*script, options=OPTIONS)
            assert code == 0, errors
            known[method, processes] = one
        return known[method, processes]

    return run


def assert_same_curve(one, other, precision):
    first, second = rows(one), rows(other)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        same = ("step", "epoch", "batch", "iteration", "learning_rate", "scenes", "voxels")
        assert [a[name] for name in same] == [b[name] for name in same]
        assert a["loss"] == pytest.approx(b["loss"], rel=precision, abs=precision)


@pytest.mark.parametrize("processes", [2, 3])
def test_the_loss_curve_does_not_depend_on_the_number_of_processes(finished, processes):
    """Batches hold one to three scenes here, so that with three processes a share is often empty."""
    alone = finished("lgkd", 1)
    assert min(row["scenes"] for row in rows(alone)) < 3
    assert_same_curve(finished("lgkd", processes), alone, 1e-5)


def test_the_record_has_the_same_layout(finished):
    alone, two = (load_record(finished("lgkd", processes).run / "record.json") for processes in (1, 2))
    assert (alone.environment.processes, two.environment.processes) == (1, 2)
    assert all(step.deterministic for step in (*alone.steps, *two.steps))
    assert alone.recipe == two.recipe and alone.protocol == two.protocol
    for a, b in zip(alone.steps, two.steps, strict=True):
        assert (a.classes, a.scenes, a.epochs, a.iterations) == (b.classes, b.scenes, b.epochs, b.iterations)
        confusions = torch.tensor([a.confusion.vertices, b.confusion.vertices])
        assert confusions[0].sum() == confusions[1].sum()
        # a vertex may change sides where two logits are equal to within rounding
        assert (confusions[0] - confusions[1]).abs().sum() <= confusions[0].sum() / 1000


def test_what_a_method_adds_up_is_the_same(finished):
    sums = {}
    for processes in (1, 3):
        folder = finished("summing", processes).run
        sums[processes] = [load_checkpoint(path)["sums"] for path in (folder / "step0" / "method.pt",)] + [
            load_checkpoint(folder / f"step{step}" / "finished.pt")["method"]["sums"] for step in (1, 2)
        ]
    for alone, three in zip(sums[1], sums[3], strict=True):
        assert alone.keys() == three.keys()
        assert torch.equal(alone["labels"], three["labels"]) and alone["scenes"] == three["scenes"] > 0
        torch.testing.assert_close(alone["features"], three["features"], rtol=1e-12, atol=1e-9)


def test_thresholds_are_the_same_to_a_bin(finished):
    thresholds = [
        load_checkpoint(finished("plop3d", processes).run / "step1" / "finished.pt")["method"]["thresholds"]
        for processes in (1, 2)
    ]
    assert (thresholds[0] - thresholds[1]).abs().max() <= 1 / 4096 + 1e-7


def test_a_run_of_two_processes_goes_on_alone(small_set, three_steps, tmp_path, finished):
    one = Command("lgkd", small_set, three_steps, tmp_path / "runs")
    process = one.start(*torchrun(2), options=OPTIONS)
    while process.poll() is None and not list(one.run.glob("step1/checkpoint-*2.pt")):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode != 0 and not (one.run / "record.json").exists()
    code, errors = one.finish(options=OPTIONS)
    assert code == 0, errors
    assert_same_curve(one, finished("lgkd", 1), 1e-5)


@dataclass
class Entry:
    name: str
    voxels: int


def test_shares_are_even_and_hold_every_scene_once(monkeypatch):
    batch = [Entry(str(number), size) for number, size in enumerate([50, 10, 10, 40, 90, 30, 1])]
    shares = []
    for rank in range(3):
        monkeypatch.setattr(epochs.distributed, "processes", lambda: 3)
        monkeypatch.setattr(epochs.distributed, "rank", lambda rank=rank: rank)
        shares.append(epochs.share_of(batch))
    assert sorted(entry.name for share in shares for entry in share) == [entry.name for entry in batch]
    loads = [sum(entry.voxels for entry in share) for share in shares]
    assert max(loads) - min(loads) <= max(entry.voxels for entry in batch)
    assert epochs.share_of(batch[:1]) == [] and shares[0]  # the first process always has one


def test_means_of_parts_are_those_of_the_whole():
    values, parts = torch.tensor([1.0, 2.0, 6.0, 7.0]), (slice(0, 1), slice(1, 4))

    def loss(part):
        return mean_over(part.sum(), len(part)) + 10 * mean_over(part[part > 1].sum(), (part > 1).sum())

    means = Denominators(torch.device("cpu"))
    for part in parts:
        with means.counting():
            loss(values[part])
    means.share(parts=2, calls=2)
    found = []
    for part in parts:
        with means.applied():
            found.append(loss(values[part]))
    assert sum(found) / 2 == loss(values) == 4 + 10 * 5
    assert mean_over(torch.tensor(0.0), 0) == 0


def test_sync_wants_cuda(command_line, small_set, three_steps, tmp_path):
    options = ("--data", small_set, "--protocol", three_steps, "--runs", tmp_path, "--device", "cpu")
    done = command_line("benchmarks/run.py", "--method", "lgkd", *options, "--batch-norm", "sync")
    assert done.returncode == 2
    assert "--batch-norm sync: torch synchronises statistics between CUDA devices only" in done.stderr
    assert list(tmp_path.iterdir()) == []
