"""GUA and CFSSeg against the values of their code, exact to 1e-9: on their points, neighbours and weights."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from baselines.cfsseg import CFSSeg
from baselines.ewc import EWC
from baselines.finetune import Finetune
from baselines.freeze import Freeze
from baselines.gua import REAL_SHARE, corrected, corrected_as_published
from baselines.lwf import LwF
from scannet_css.methods.losses import cross_entropy_of_answers
from scannet_css.methods.neighbours import relations, uncertainty
from scannet_css.network import grow
from tests.baselines.originals import assert_original, golden, leaf, step_of

IGNORE = 255
CLOUDS = ("two_step_s3dis", "two_step_scannet", "middle_step", "last_of_many")
MIDDLE = "middle_step"


def cosine_weights(xyz, neighbours):
    """The authors': cosines of the positions, from the smallest to the largest as 0.5 to 1, divided by their
    sum."""
    points = xyz.reshape(-1, 3)
    cosine = torch.nn.functional.cosine_similarity(points[:, None], points[neighbours], dim=2)
    low, high = cosine.amin(1, keepdim=True), cosine.amax(1, keepdim=True)
    weights = 0.5 + 0.5 * (cosine - low) / (high - low)
    return weights / weights.sum(1, keepdim=True)


def cloud(case):
    key = f"gua/{case}"
    xyz, near = golden(f"{key}/xyz"), golden(f"{key}/neighbours")
    assert torch.equal(near[:, 0], torch.arange(len(near)))  # a point is its own first neighbour
    probability = golden(f"{key}/old_probs").flatten(0, 1)
    found = uncertainty(probability, near[:, 1:], cosine_weights(xyz, near))
    return key, near[:, 1:], probability, found


@pytest.mark.parametrize("case", CLOUDS)
def test_uncertainty_is_the_authors(case):
    key, near, probability, found = cloud(case)
    np.testing.assert_allclose(found, golden(f"{key}/uncertainty").flatten(), rtol=0, atol=1e-9)
    assert torch.equal(found <= golden(f"{key}/threshold"), golden(f"{key}/kept").flatten())
    # where all count alike, 12 K u is the mutual information in nats
    alike = torch.full((len(near), 12), 1 / 12, dtype=found.dtype)
    np.testing.assert_allclose(
        uncertainty(probability, near, alike), uncertainty(probability, near), atol=1e-12
    )


def test_their_threshold_in_nats():
    """0.0045 on ScanNet 15-5, where they have 17 channels, is 0.90 nats, since their weights differ by
    0.02."""
    assert pytest.approx(0.90, abs=0.005) == 12 * 17 * 0.0045 - 0.02
    certain = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0]]  # 5 points that see 4 classes
    near = torch.tensor([[1, 2, 3, 4], *[[-1] * 4] * 4])
    expected = -(2 / 5 * math.log(2 / 5) + 3 * 1 / 5 * math.log(1 / 5)) / (12 * 4)
    assert uncertainty(certain, near)[0].item() == pytest.approx(expected, abs=1e-12)
    assert (uncertainty(certain, near)[1:] == 0).all()


def channels_of(case, name):
    """Their targets as our channels: -1 is ignored; but for middle steps theirs lack background."""
    target = golden(f"gua/{case}/{name}").flatten()
    return torch.where(target == -1, IGNORE, target if case == MIDDLE else target + 1)


def shown(case):
    """Their labels as our channels."""
    labels, old_channels = golden(f"gua/{case}/labels").flatten(), golden(f"gua/{case}/old_probs").shape[2]
    return torch.where(labels == 0, 0, labels + old_channels - 1)


def without_unannotated(case, labels):
    """Their ScanNet has a class `unannotated`, which is left out at the end; ours is ignored from the
    start."""
    has_it = case in ("two_step_scannet", "last_of_many")
    return torch.where(labels == 1, IGNORE, labels) if has_it else labels


@pytest.mark.parametrize("case", CLOUDS)
def test_labels_as_published(case):
    key, near, probability, _ = cloud(case)
    is_sure = golden(f"{key}/kept").flatten()
    found = corrected_as_published(shown(case), probability.argmax(1), is_sure, near, case == MIDDLE)
    assert torch.equal(without_unannotated(case, found), channels_of(case, "targets"))
    if case == MIDDLE:
        assert (found == 0).any()  # background keeps the background label


@pytest.mark.parametrize("case", [case for case in CLOUDS if case != MIDDLE])
def test_labels_as_the_paper_says(case):
    key, near, probability, _ = cloud(case)
    is_sure = golden(f"{key}/kept").flatten()
    found = corrected(shown(case), probability.argmax(1), is_sure, near, has_background=False)
    assert torch.equal(without_unannotated(case, found), channels_of(case, "targets_words"))
    assert not torch.equal(
        found, corrected_as_published(shown(case), probability.argmax(1), is_sure, near, False)
    )


def test_labels_of_a_middle_step():
    """Background is a channel like any other: a certain one stays, an uncertain one asks its neighbours."""
    near = torch.tensor([[1], [0], [3], [2], [-1]])
    predicted, labels = torch.tensor([0, 2, 0, 1, 1]), torch.zeros(5, dtype=torch.int64)
    is_sure = torch.tensor([True, False, False, True, False])
    assert corrected(labels, predicted, is_sure, near, True).tolist() == [0, 0, 1, 1, IGNORE]
    assert corrected(labels, predicted, is_sure, near, False).tolist() == [IGNORE, IGNORE, 1, 1, IGNORE]


@pytest.mark.parametrize("case", CLOUDS)
def test_guas_cross_entropy(case):
    """Without the background row at a last step."""
    logits = leaf(golden(f"gua/{case}/new_logits"))
    labels = channels_of(case, "targets")
    with_background = torch.cat([torch.full_like(logits[:, :1], 50.0), logits], 1)
    ours = logits if case == MIDDLE else with_background
    value = cross_entropy_of_answers(ours, labels, case == MIDDLE)
    assert_original(value, f"gua/{case}/ce", {"grad": logits})


def test_guas_relations():
    xyz, anchors = golden("gua/relation/xyz"), golden("gua/relation/anchors")
    new, old = leaf(golden("gua/relation/new_features")), golden("gua/relation/old_features").flatten(0, 1)
    near, rows = [], []
    for cloud_number, points in enumerate(xyz):
        order = torch.cdist(points, points).argsort(1)[:, 1:12] + cloud_number * len(points)
        near.append(order)
        rows.append(anchors[cloud_number] + cloud_number * len(points))
    near, rows = torch.cat(near), torch.cat(rows)
    with_places = torch.cat([xyz.flatten(0, 1), old], 1)
    found = relations(with_places, near)[rows].view(golden("gua/relation/old_relations").shape)
    np.testing.assert_allclose(found, golden("gua/relation/old_relations"), rtol=0, atol=1e-12)
    difference = (relations(new, near) - relations(old, near))[rows]
    # the places' part, 3 of 9 entries, is 0: their mean over all entries is 6/9 of ours
    value = difference.square().mean() * 6 / 9
    assert_original(value, "gua/relation/loss", {"grad": new})
    assert pytest.approx((64 + 64 + 64) / (3 + 64 + 64 + 64 + 256)) == REAL_SHARE


# CFSSeg


@pytest.mark.parametrize("gamma", ["1", "0.1"])
def test_ridge_regression(gamma):
    key = f"cfsseg/ridge_gamma{gamma}"
    method = CFSSeg(width=30, ridge=float(gamma))
    method.state["expansion"] = golden("cfsseg/ridge/random_weight").T.contiguous()
    for step, channels in enumerate((5, 7)):
        features, labels = (golden(f"{key}/{name}{step}").flatten(0, 1) for name in ("features", "labels"))
        labels = (
            torch.where(labels == 0, IGNORE, labels) if step else labels
        )  # left out after pseudo-labelling
        old = {name: method.state[name] for name in ("gram", "cross")} if step else {}
        method._solve(method._sums(features, labels, channels), old)
        for name in ("solution", "recursive_solution"):
            np.testing.assert_allclose(
                method.state["classifier"], golden(f"{key}/{name}{step}"), rtol=0, atol=1e-9
            )
        scores = method.predict(SimpleNamespace(features=golden(f"{key}/test_features{step}")))
        np.testing.assert_allclose(scores, golden(f"{key}/test_logits{step}"), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", ["two_step", "many_steps"])
def test_cfssegs_uncertainty(case):
    """Of the probabilities as the copy of their code reads them, which do not sum to one: GUA's chain of
    means."""
    key = f"cfsseg/{case}"
    logits = golden(f"{key}/old_logits")
    batch, points, classes = logits.shape
    as_read = (
        logits.softmax(2).reshape(batch, classes, points).transpose(1, 2).reshape(batch, points, classes)
    )
    np.testing.assert_allclose(as_read, golden(f"{key}/probs_as_read"), rtol=0, atol=1e-12)
    xyz, near = golden(f"{key}/xyz"), golden(f"{key}/neighbours")
    weights = cosine_weights(xyz, near)
    terms = weights[:, :, None] * as_read.flatten(0, 1)[near]
    mean = terms.mean(1)
    chain = -(mean * mean.log()).mean(1) + (terms * terms.log()).sum(1).mean(1) / 12
    np.testing.assert_allclose(chain, golden(f"{key}/uncertainty").flatten(), rtol=0, atol=1e-9)
    # of what does sum to one, the chain is our closed form
    terms = weights[:, :, None] * logits.softmax(2).flatten(0, 1)[near]
    mean = terms.mean(1)
    chain = -(mean * mean.log()).mean(1) + (terms * terms.log()).sum(1).mean(1) / 12
    found = uncertainty(logits.softmax(2).flatten(0, 1), near[:, 1:], weights)
    np.testing.assert_allclose(found, chain, rtol=0, atol=1e-12)


# 3DPC-CISS's baselines


def test_a_separate_heads_cross_entropy():
    """[background', new] in our channels: theirs is the last, and old ones have no part."""
    head = leaf(golden("gua/enrol/head_logits"))
    old_channels, new_classes = len(golden("gua/enrol/old_rows")), head.shape[1] - 1
    logits = torch.cat([torch.full((len(head), old_channels), 9.0), head[:, 1:], head[:, :1]], 1)
    labels = golden("gua/enrol/labels").flatten()
    batch = SimpleNamespace(labels=torch.where(labels == 0, 0, labels + old_channels - 1))
    step = step_of(old_channels + new_classes, old_channels)
    output = SimpleNamespace(logits=logits)
    for method in (Finetune(head="separate"), Freeze(head="separate"), EWC(head="separate")):
        value = method.classification(step, batch, output, None)
        assert_original(value, "gua/enrol/ce", {"grad": head})


def test_the_rows_of_two_heads_are_joined():
    """As theirs, but that our channel 0 stays, which is no answer at their last step."""
    old, new = golden("gua/enrol/old_rows").T, golden("gua/enrol/new_head_rows").T
    final = SimpleNamespace(kernel=torch.nn.Parameter(old.clone()), out_channels=old.shape[1])
    final.bias = torch.nn.Parameter(torch.zeros(1, old.shape[1], dtype=old.dtype))
    network, method = SimpleNamespace(final=final), Finetune(head="separate")
    grow(network, new.shape[1] - 1, method.head_start)
    step = step_of(old.shape[1] + new.shape[1] - 1, old.shape[1], network=network)
    method.adapt(step)
    method.begin(step)
    with torch.no_grad():
        network.final.kernel[:, old.shape[1] :] = torch.cat([new[:, 1:], new[:, :1]], 1)
        network.final.kernel[:, : old.shape[1]] *= 0.9  # weight decay
    method.updated(step)
    method.end(step)
    assert torch.equal(network.final.kernel[:, 1:].T, golden("gua/enrol/joined_rows"))
    assert torch.equal(network.final.kernel[:, 1 : old.shape[1]].T, golden("gua/enrol/lwf_rows_kept"))
    assert network.final.bias.shape == (1, step.channels) and method.state == {}


def test_lwf_of_3dpc_ciss():
    logits, old = leaf(golden("gua/lwf/new_logits")), golden("gua/lwf/old_logits").flatten(0, 1)
    labels, base_classes = golden("gua/lwf/labels").flatten(), int(golden("gua/lwf/base_classes"))
    assert old.shape[1] == base_classes + 1
    ours = torch.cat([torch.full_like(logits[:, :1], 9.0), logits], 1)  # theirs lack background's row
    batch = SimpleNamespace(labels=torch.where(labels == 0, 0, labels + base_classes))
    step = step_of(ours.shape[1], old.shape[1], has_background=False)
    make = partial(LwF, weight=1.0, temperature=2.0)
    outputs = SimpleNamespace(logits=ours), SimpleNamespace(logits=old)
    terms = make(variant="3dpc-ciss-published").loss(step, batch, *outputs)
    assert_original(terms["ce"], "gua/lwf/ce", {"grad": logits})
    assert_original(terms["lwf"], "gua/lwf/kd", {"grad": logits})
    words = make(variant="3dpc-ciss").loss(step, batch, *outputs)
    assert words["lwf"].item() == terms["lwf"].item()
    known = labels > 0
    expected = torch.nn.functional.cross_entropy(logits[known], (labels + base_classes - 1)[known])
    assert words["ce"].item() == pytest.approx(expected.item(), rel=1e-12)
