"""Losses against the values and gradients of the original implementations, and their properties."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scannet_css.methods.losses import (
    cross_entropy,
    distillation,
    label_guided_distillation,
    unbiased_cross_entropy,
    unbiased_distillation,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "css_losses.npz", allow_pickle=False)
CASES = [f"case{index}" for index in range(4)]


def case(name):
    new, old, labels = (
        torch.from_numpy(GOLDEN[f"{name}/{key}"]) for key in ("new_logits", "old_logits", "labels")
    )
    return new.requires_grad_(), old, labels


LOSSES = {
    "ce": lambda new, old, labels: cross_entropy(new, labels),
    "mib_ce": lambda new, old, labels: unbiased_cross_entropy(new, labels, old.shape[1]),
    "lwf_kd": lambda new, old, labels: distillation(new, old),
    "mib_kd": lambda new, old, labels: unbiased_distillation(new, old),
    "lgkd_prev1_novel0": lambda new, old, labels: label_guided_distillation(new, old, labels, 1, 0),
    "lgkd_prev1_novel1": lambda new, old, labels: label_guided_distillation(new, old, labels, 1, 1),
    "lgkd_prev10_novel1": lambda new, old, labels: label_guided_distillation(new, old, labels, 10, 1),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradient_are_the_originals(name, loss):
    new, old, labels = case(name)
    value = LOSSES[loss](new, old, labels)
    value.backward()
    assert abs(value.item() - float(GOLDEN[f"{name}/{loss}"])) < 1e-9
    np.testing.assert_allclose(new.grad.numpy(), GOLDEN[f"{name}/{loss}_grad"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_order_of_points_does_not_matter(loss):
    new, old, labels = case("case0")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    shuffled = LOSSES[loss](new[order], old[order], labels[order])
    assert shuffled.item() == pytest.approx(LOSSES[loss](new, old, labels).item(), abs=1e-12)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name not in ("lwf_kd", "mib_kd")])
def test_all_ignored_gives_zero_loss_and_zero_gradient(loss):
    new, old, labels = case("case0")
    value = LOSSES[loss](new, old, torch.full_like(labels, 255))
    value.backward()
    assert value.item() == 0
    assert torch.equal(new.grad, torch.zeros_like(new))


def test_without_new_classes_all_distillations_agree():
    _, old, labels = case("case0")
    new = old + torch.randn(old.shape, generator=torch.Generator().manual_seed(1), dtype=old.dtype)
    labels = torch.zeros_like(labels)
    plain = distillation(new, old)
    assert unbiased_distillation(new, old).item() == pytest.approx(plain.item(), abs=1e-12)
    guided = label_guided_distillation(new, old, labels, 1, 1) / old.shape[1]
    assert guided.item() == pytest.approx(plain.item(), abs=1e-12)


def test_label_guided_target_sums_to_one_and_moves_background_to_the_label():
    # With uniform student logits every log-probability is -log C, so the loss is log C times the target's
    # mass.
    _, old, labels = case("case0")
    labels = labels.clone()
    labels[labels == 255] = 0
    uniform = torch.zeros(len(labels), GOLDEN["case0/new_logits"].shape[1], dtype=torch.float64)
    value = label_guided_distillation(uniform, old, labels, 1, 1)
    assert value.item() == pytest.approx(np.log(uniform.shape[1]), abs=1e-12)

    certain = torch.full((2, 3), -50.0, dtype=torch.float64)
    certain[:, 0] = 50.0  # the teacher sees background everywhere
    student = torch.randn(2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    value = label_guided_distillation(student, certain, torch.tensor([0, 4]), 2, 3)
    log_probability = student.log_softmax(1)
    expected = -(2 * log_probability[0, 0] + 3 * log_probability[1, 4]) / 2
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)


def test_temperature_scales_logits_and_keeps_gradient_size():
    new, old, _ = case("case2")
    value = distillation(new, old, temperature=3.0)
    target = (old / 3).softmax(1)
    expected = -9 * (target * (new[:, : old.shape[1]] / 3).log_softmax(1)).mean()
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)


def test_half_precision_logits_are_computed_in_float32():
    new, old, labels = case("case0")
    half = new.detach().to(torch.bfloat16)
    for loss in LOSSES.values():
        value = loss(half, old.float(), labels)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(loss(half.float(), old.float(), labels).item(), abs=1e-6)
