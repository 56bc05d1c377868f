"""BARM: logits and terms are the original's; a branch starts as what the network gives, and is kept."""

import torch
import torch.nn.functional as F

import baselines  # noqa: F401  registers the methods
from baselines import barm
from baselines.ssul import confident_labels
from scannet_css.methods.losses import binary_cross_entropy, binary_distillation
from scannet_css.methods.method import find_method
from scannet_css.network import frozen_copy, grow
from scannet_css.network.branched_head import joined, with_branches_of
from scannet_css.sparse import SparseTensor
from tests.baselines.original_values import assert_close, assert_gradients, original, rows
from tests.baselines.toy import BASE_LABELS, at_next_step, at_step_1, descend, toy_batch, toy_network

CASE = "barm"


def heads(values, inputs, prefix=""):
    return [
        features @ values[f"{prefix}head{i}_weight"].T + values[f"{prefix}head{i}_bias"]
        for i, features in enumerate(inputs)
    ]


def test_logits_and_terms_are_the_originals():
    values = original(CASE)
    tensors = {
        "X": values["features"],
        "W": values["head2_weight"],
        "B": values["head2_bias"],
        "E": values["branch1_weight"],
    }
    for tensor in tensors.values():
        tensor.requires_grad_()
    x, old_x, labels = rows(values["features"]), rows(values["old_features"]), rows(values["labels"])
    branches = [x.relu(), *((x @ values[f"branch{i}_weight"].T).relu() for i in range(2))]
    old_branches = [old_x.relu(), (old_x @ values["old_branch0_weight"].T).relu()]
    raw, old_raw = heads(values, branches), heads(values, old_branches, "old_")
    assert_close(joined(raw), rows(values["logits_evaluation"]))
    assert_close(joined(old_raw), rows(values["old_logits"]))
    logits = joined(raw, training=True)
    assert_close(logits, rows(values["logits_training"]))
    pseudo = confident_labels(labels, joined(old_raw), 0.7)
    found = {
        "ce": binary_cross_entropy(barm.without_old_classes(logits, 7), pseudo),
        "background_ce": barm.residual_at_new(raw[-1][:, 0], labels),
        "background_triplet": barm.triplet(raw[-1][:, 0], labels),
        "feature_distillation": barm.kept_background(branches[:2], old_branches, labels),
        "group_distillation": sum(binary_distillation(*each) for each in zip(raw[:2], old_raw, strict=True)),
    }
    found["total"] = (
        found["ce"]
        + 5 * found["background_triplet"]
        + 4 * found["feature_distillation"]
        + found["group_distillation"]
        + found["background_ce"]
    )
    inputs = {name: (tensor, lambda gradient: gradient) for name, tensor in tensors.items()}
    for name, value in found.items():
        assert_close(value, values[name])
        assert_gradients(value, CASE, name, **inputs)


def test_a_branch_starts_as_what_gives_the_networks_features():
    network, batch = toy_network(), toy_batch(BASE_LABELS)
    voxels = SparseTensor(batch.features, batch.coordinates)
    before = network(voxels)
    grow(network, 2, "branch")
    after = network.eval()(voxels)
    raw, (branch,) = network.final.parts(after.extra)
    torch.testing.assert_close(branch, before.features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.logits[:, 1:4], before.logits[:, 1:])
    torch.testing.assert_close(after.logits[:, 0], before.logits[:, 0] + raw[1][:, 0].clamp(max=0))
    assert after.logits.shape[1] == network.classes == 6


def test_earlier_branches_are_kept_near_the_teachers_and_rows_keep_their_order():
    method = find_method("barm")()
    step = at_step_1(method)
    descend(method, step, 2)
    method.end(step)
    last = at_next_step(method, step.network, 2, [toy_batch((0, 6, 255))])
    assert len(last.network.final.branches) == 2 and len(last.teacher.final.branches) == 1
    batch = toy_batch((0, 6, 255))
    new = last.network(SparseTensor(batch.features, batch.coordinates))
    raw, branches = last.network.final.parts(new.extra)
    expected = branches[1] @ last.network.final.heads[2].kernel + last.network.final.heads[2].bias
    torch.testing.assert_close(raw[2], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joined(raw), new.logits)
    old = last.old_output(SparseTensor(batch.features, batch.coordinates))
    terms = method.loss(last, batch, new, old)
    old_branch = last.teacher.final.parts(old.extra)[1][0]
    is_background = (batch.labels == 0)[:, None]
    distance = F.mse_loss(new.features * is_background, old.features * is_background)
    distance = distance + F.mse_loss(branches[0] * is_background, old_branch * is_background)
    torch.testing.assert_close(terms["features"], 4 * distance, rtol=1e-4, atol=1e-7)


def test_weights_with_branches_go_into_a_fresh_network():
    network = toy_network()
    grow(network, 2, "branch")
    grow(network, 1, "branch")
    fresh = toy_network(classes=7, seed=4)
    with_branches_of(fresh, network.state_dict())
    fresh.load_state_dict(network.state_dict())
    batch = toy_batch(BASE_LABELS)
    voxels = SparseTensor(batch.features, batch.coordinates)
    assert torch.equal(fresh.eval()(voxels).logits, network.eval()(voxels).logits)
    copied = frozen_copy(network)
    torch.testing.assert_close(copied(voxels).logits, network(voxels).logits, rtol=1e-4, atol=1e-4)
