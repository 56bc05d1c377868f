"""Methods on sigmoids, and those that freeze the network, against loops over voxels and channels."""

import math
from types import SimpleNamespace

import pytest
import torch

from baselines.dkd import DKD
from baselines.freeze import Freeze
from baselines.lwf_mc import LwFMC
from baselines.ssul import SSUL
from scannet_css.methods.method import find_method, method_names
from tests.baselines.toy import (
    STEP_LABELS,
    C,
    K,
    at_step_1,
    descend,
    fake_step,
    forward,
    outputs,
    toy_batch,
    toy_network,
    toy_step,
)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def binary(logit, target):
    """-target log s - (1 - target) log(1 - s)"""
    return -target * math.log(sigmoid(logit)) - (1 - target) * math.log(sigmoid(-logit))


def mean(values):
    return sum(values) / len(values) if values else 0.0


def slow_cross_entropy(logits, labels, channels=None, takes=lambda label: label != 255):
    """Sum over the channels, mean over labelled voxels, or those that it `takes`."""
    channels = range(logits.shape[1]) if channels is None else channels
    rows = [row for row, label in enumerate(labels.tolist()) if takes(label)]
    return mean(
        [sum(binary(logits[row, c].item(), float(labels[row] == c)) for c in channels) for row in rows]
    )


def slow_distillation(mine, theirs):
    return mean(
        [
            sum(binary(m, sigmoid(t)) for m, t in zip(mine_row, their_row, strict=True))
            for mine_row, their_row in zip(mine.tolist(), theirs.tolist(), strict=True)
        ]
    )


def test_lwf_mc():
    batch, new, old = outputs()
    terms = LwFMC().loss(fake_step(), batch, new, old)
    labelled = slow_cross_entropy(new.logits, batch.labels)
    share = (batch.labels != 255).double().mean().item()
    assert share < 0.9  # voxels without a label add 0 to a mean over all
    assert terms["ce"].item() == pytest.approx(labelled * share, rel=1e-9)
    expected = 10 * slow_distillation(new.logits[:, :K], old.logits)
    assert terms["lwf-mc"].item() == pytest.approx(expected, rel=1e-9)
    base = LwFMC().base_loss(fake_step(), batch, new)
    assert set(base) == {"ce"} and base["ce"].item() == pytest.approx(labelled, rel=1e-9)


def test_methods_on_sigmoids_share_their_step_0():
    assert {find_method(name).base for name in ("lwf-mc", "ssul")} == {"binary"}
    assert find_method("dkd").base == "dkd"  # whose background channel learns another thing


def classifier(channels, seed):
    generator = torch.Generator().manual_seed(seed)
    kernel, bias = (torch.randn(n, channels, generator=generator, dtype=torch.float64) for n in (6, 1))
    return SimpleNamespace(kernel=kernel.requires_grad_(), bias=bias.requires_grad_())


@pytest.fixture
def decomposed():
    """Outputs whose logits come from classifiers, as DKD takes them apart."""
    batch, new, old = outputs()
    mine, theirs = classifier(C, 1), classifier(K, 2)
    new.logits = new.features @ mine.kernel + mine.bias
    old.logits = (old.features @ theirs.kernel + theirs.bias).detach()
    step = fake_step(network=SimpleNamespace(final=mine), teacher=SimpleNamespace(final=theirs))
    return step, batch, new, old


def reasoning(features, kernel, channel, sign):
    """Sum over the features whose weights have the sign."""
    return [
        sum(f * w for f, w in zip(row, kernel[:, channel].tolist(), strict=True) if w * sign > 0)
        for row in features.tolist()
    ]


def everything(label):
    """For DKD a voxel without a label is a negative of every class."""
    return True


def test_dkds_terms(decomposed):
    step, batch, new, old = decomposed
    terms = DKD().loss(step, batch, new, old)
    expected = slow_cross_entropy(new.logits, batch.labels, range(K, C), everything)
    assert terms["ce"].item() == pytest.approx(expected, rel=1e-9)
    expected = mean([binary(logit, 0.0) for logit in new.logits[:, 0].tolist()])
    assert terms["background"].item() == pytest.approx(expected, rel=1e-9)
    expected = 5 * slow_distillation(new.logits[:, 1:K], old.logits[:, 1:])
    assert terms["old"].item() == pytest.approx(expected, rel=1e-9)
    for name, sign in (("positive", 1), ("negative", -1)):
        mine, theirs = (
            torch.tensor([reasoning(output.features, final.kernel, c, sign) for c in range(1, K)]).T
            for output, final in ((new, step.network.final), (old, step.teacher.final))
        )
        assert terms[name].item() == pytest.approx(5 * slow_distillation(mine, theirs), rel=1e-6)
    assert set(terms) == {"ce", "background", "old", "positive", "negative"}


def test_dkd_answers_background_where_no_class_is_more_likely_than_not():
    logits = torch.tensor([[9.0, -0.1, -0.2], [-9.0, -3.0, 0.1], [9.0, 2.0, 1.0], [5.0, -1.0, -2.0]])
    for predict in (DKD().predict, DKD().base_predict):
        assert predict(SimpleNamespace(logits=logits)).argmax(1).tolist() == [0, 2, 1, 0]


def test_dkds_reasoning_adds_up_to_the_logits(decomposed):
    step, _, new, _ = decomposed
    kernel, bias = step.network.final.kernel, step.network.final.bias
    for c in range(C):
        parts = [reasoning(new.features, kernel, c, sign) for sign in (1, -1)]
        assert min(parts[0]) >= 0 >= max(parts[1])
        total = torch.tensor(parts, dtype=torch.float64).sum(0) + bias[0, c]
        torch.testing.assert_close(total, new.logits[:, c])


def test_dkds_background_classifier_leaves_the_features_alone(decomposed):
    step, batch, new, old = decomposed
    terms = DKD().loss(step, batch, new, old)
    final = step.network.final
    found = torch.autograd.grad(terms["background"], (new.features, final.kernel), allow_unused=True)
    assert found[0] is None
    assert (found[1][:, 0] != 0).any() and (found[1][:, 1:] == 0).all()
    assert DKD.freezes_norms


def test_ssuls_pseudo_labels():
    batch, new, old = outputs()
    method = SSUL(confidence=0.7)
    labels = []
    for row, label in enumerate(batch.labels.tolist()):
        scores = [sigmoid(value) for value in old.logits[row].tolist()]
        best = max(range(K), key=lambda c: scores[c])
        labels.append(best if label == 0 and best > 0 and scores[best] >= 0.7 else label)
    shown = batch.labels.tolist()
    beaten = sum(max(row[1:]) > 0.85 and row[0] == max(row) for row in old.logits[batch.labels == 0].tolist())
    assert beaten > 5  # a class that is sure, and background surer still
    changed = [(before, after) for before, after in zip(shown, labels, strict=True) if before != after]
    assert len(changed) > 20 and all(before == 0 < after < K for before, after in changed)
    assert labels.count(0) > 5
    value = method.loss(fake_step(), batch, new, old)["ce"]
    assert value.item() == pytest.approx(slow_cross_entropy(new.logits, torch.tensor(labels)), rel=1e-9)


@pytest.mark.parametrize(("kind", "moving"), [(Freeze, [*range(K, C)]), (SSUL, [0, *range(K, C)])])
def test_only_these_outputs_move(kind, moving):
    method = kind()
    step = at_step_1(method, move=0.0)
    before = {name: value.clone() for name, value in step.network.state_dict().items()}
    frozen = [name for name, parameter in step.network.named_parameters() if not parameter.requires_grad]
    assert frozen == [
        name for name in before if "final" not in name and "running" not in name and "num_" not in name
    ]
    # Decay and momentum would move old outputs that get no gradient too.
    optimizer = torch.optim.SGD(step.network.parameters(), 0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
    for seed in range(3):
        batch = toy_batch(STEP_LABELS, seed)
        optimizer.zero_grad()
        sum(method.loss(step, batch, *forward(step, batch)).values()).backward()
        optimizer.step()
        method.updated(step)
    after = step.network.state_dict()
    for name, value in before.items():
        if not name.startswith("final."):
            assert torch.equal(after[name], value), name
    still = [c for c in range(C) if c not in moving]
    for name in ("final.kernel", "final.bias"):
        assert torch.equal(after[name][:, still], before[name][:, still])
        assert (after[name][:, moving] != before[name][:, moving]).any(0).all()
    assert kind.freezes_norms


def test_ssul_trains_all_outputs_in_step_0():
    first = toy_step(0, toy_network(), batches=[])
    before = first.network.final.kernel.clone()
    descend(SSUL(), first, 1)
    assert (first.network.final.kernel != before).any(0).all()


def test_a_finished_step_0_of_dkd_is_read_by_its_rule():
    """And that of all others by the logits, whichever method trained it."""
    for name in method_names():
        method = find_method(name)
        assert method().reads_step(1) and method().reads_step(0) == (name == "dkd"), name
