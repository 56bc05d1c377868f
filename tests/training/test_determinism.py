"""The same run gives the same bits, whoever loads the data; other threads change the rounding and no more."""

import pytest
import torch

from tests.training.real_run import rows

SMALL_STEPS = ("--optimizer", "sgd", "--base-learning-rate", 0.0003, "--learning-rate", 0.0003)


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_the_same_run_gives_the_same_bits_with_any_number_of_workers(command, whole, workers):
    one = command("plop3d")
    code, errors = one.finish(options=("--workers", workers))
    assert code == 0, errors
    assert one.state() == whole("plop3d")[0]


def test_another_number_of_threads_gives_the_same_losses(command):
    """With larger steps the rounding grows from iteration to iteration (docs/training.md)."""
    one, two = command("lgkd"), command("lgkd")
    for run, threads in ((one, 1), (two, 2)):
        code, errors = run.finish(options=(*SMALL_STEPS, "--threads", threads))
        assert code == 0, errors
    assert len(rows(one)) == len(rows(two)) > 10
    for a, b in zip(rows(one), rows(two), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_deterministic_on_a_gpu_is_to_the_bit(command):
    states = []
    for workers in (0, 2):
        one = command("lgkd+plop3d")
        code, errors = one.finish(options=("--device", "cuda", "--deterministic", "--workers", workers))
        assert code == 0, errors
        states.append(one.state())
    assert states[0] == states[1]
