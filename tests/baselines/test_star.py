"""STAR and Adapter: statistics, replay and losses are the originals'; what a step leaves."""

import math

import pytest
import torch
import torch.nn.functional as F

import baselines  # noqa: F401  registers the methods
from scannet_css.methods import feature_replay as replay
from scannet_css.methods.means import Denominators
from scannet_css.methods.method import find_method
from scannet_css.network import Output
from tests.baselines.original_values import assert_close, assert_gradients, original, rows
from tests.baselines.toy import STEP_LABELS, at_next_step, at_step_1, descend, forward, toy_batch, toy_method

CASES = ("star/overlap", "star/disjoint")


def test_statistics_of_finished_classes_are_the_originals():
    values = original("star/statistics")
    first = values["first_new_label"]
    sums = {}
    for number in range(3):
        features, labels = rows(values[f"features{number}"]), rows(values[f"labels{number}"])
        for name, value in replay.sums_of_directions(features, labels, first, first + 3).items():
            sums[name] = sums.get(name, 0) + value
    found = replay.statistics_of(sums)
    assert_close(found["prototypes"], values["prototypes"], 1e-7)  # kept in float32
    assert_close(found["lengths"].T, values["length_mean_std"], 1e-6)
    assert_close(found["noise"], values["noise_against_own"], 1e-7)
    as_published = replay.statistics_of(sums, against=values["old_prototypes"])
    assert_close(as_published["noise"], values["noise"], 1e-7)
    assert torch.equal(as_published["prototypes"], found["prototypes"])


@pytest.mark.parametrize("case", CASES)
def test_what_a_step_has_to_add_is_the_originals(case):
    values = original(case)
    replayed, ratio, after = replay.shares(
        values["previous_numbers"],
        values["predicted_numbers"],
        values["batches"],
        3,
        case.endswith("disjoint"),
    )
    assert torch.equal(replayed, values["replayed_per_class"])
    assert ratio == pytest.approx(values["extra_background_ratio"], abs=1e-12)
    assert_close(torch.cat([after, values["current_numbers"][1:]]), values["numbers_after"])


@pytest.mark.parametrize("case", CASES)
def test_drawn_features_are_the_originals(case):
    values = original(case)
    drawn = [
        replay.drawn_features(
            values["prototypes"][c : c + 1],
            values["noise"][c : c + 1],
            values["length_mean_std"][:, c][None],
            values[f"draw_direction{c}"],
            values[f"draw_length{c}"],
        )
        for c in range(4)
    ]
    assert_close(torch.cat(drawn), values["replayed_features"])


def of_originals(case):
    """The batch at the size of the labels, with gradients, and what the original makes of the teacher."""
    values = original(case)
    features, weight, bias = (values[name].requires_grad_() for name in ("features", "weight", "bias"))
    logits = F.conv2d(features, weight[:, :, None, None], bias)
    large = F.interpolate(logits, size=(24, 24), mode="bilinear", align_corners=False)
    inputs = {
        "X": (features, lambda gradient: gradient),
        "W": (weight, lambda gradient: gradient),
        "B": (bias, lambda gradient: gradient),
    }
    return values, logits, large, inputs


@pytest.mark.parametrize("case", CASES)
def test_the_teachers_answers_are_the_originals(case):
    values = original(case)
    logits = rows(values["old_logits"])
    with_zero = torch.cat([logits.new_full((len(logits), 1), 99.0), logits], 1)  # channel 0 takes no part
    found = replay.decisions(with_zero, 0.5)
    assert torch.equal(found, rows(values["old_prediction"]))
    labels = rows(values["labels"])
    assert torch.equal((labels == 0) & (found > 0), rows(values["distilled_region"]))
    background = ((labels == 0) & (found == 0)).view(2, 24, 24)[:, 2::4, 2::4]
    assert torch.equal(background, values["background_region"])


@pytest.mark.parametrize("case", CASES)
def test_losses_are_the_originals(case):
    values, logits, large, inputs = of_originals(case)
    labels, features = values["labels"], values["features"]
    final = values["weight"], values["bias"]
    target = rows(labels)[:, None] == torch.arange(5, 8)
    ori = replay.binary_terms(rows(large)[:, 4:], target, 4.0).sum(1).mean()
    fake = F.softplus(values["replayed_features"] @ final[0][4:].T + final[1][4:]).sum(1).mean()
    background = rows(values["background_region"])
    extra = F.softplus(rows(logits)[background][:, 4:]).sum(1).mean()
    region = F.interpolate(values["distilled_region"][:, None].double(), size=(6, 6), mode="bilinear")
    pkd = replay.kept_features(rows(features), rows(values["old_features"]), rows(region)[:, 0])
    one_hot = torch.stack([(labels == c).double() for c in range(5, 8)], 1)
    of_cells = rows(F.interpolate(one_hot, size=(6, 6), mode="bilinear"))
    cont = replay.nearness(rows(features), of_cells, values["prototypes"])
    a = len(values["replayed_features"]) / 72
    e = values["extra_background_ratio"] * int(background.sum()) / 72
    mbce = (ori + a * fake + e * extra) / (1 + a + e)
    found = {
        "loss_mbce_ori": ori,
        "loss_mbce_fake": fake,
        "loss_mbce_extra_bg": extra,
        "loss_mbce": mbce,
        "loss_pkd": pkd,
        "loss_cont": cont,
        "loss": mbce + 5 * pkd + 0.05 * cont,
    }
    for name, value in found.items():
        assert_close(value, values[name])
        assert_gradients(value, case, name, **inputs)


@pytest.mark.parametrize("reading", ["paper", "published"])
def test_the_methods_terms_are_those_losses(reading):
    """From the method's own outputs and memory, written out row by row."""
    batch = toy_batch(STEP_LABELS)
    method = find_method("star")(reading=reading)
    step = at_step_1(method, batch)
    method.state["replayed"] = torch.tensor([2, 0, 3])
    torch.manual_seed(5)
    new, old = forward(step, batch)
    terms = method.loss(step, batch, new, old)
    least = 0.5 if reading == "published" else 0.0
    seen = [
        max(range(1, 4), key=lambda c: row[c]) if max(row[1:]) > least else 0 for row in old.logits.tolist()
    ]
    counted = [label != 255 or reading == "published" for label in batch.labels.tolist()]
    sums = {"ori": 0.0, "features": 0.0, "extra": 0.0}
    olds = backgrounds = 0
    for i, label in enumerate(batch.labels.tolist()):
        for c in (4, 5):
            z = new.logits[i, c].item()
            sums["ori"] += counted[i] * (
                4 * math.log1p(math.exp(-z)) if label == c else math.log1p(math.exp(z))
            )
        if label == 0 and seen[i]:
            olds += 1
            sums["features"] += (new.features[i] - old.features[i]).square().sum().item()
        if label == 0 and not seen[i]:
            backgrounds += 1
            sums["extra"] += sum(math.log1p(math.exp(z)) for z in new.logits[i, 4:].tolist())
    rows_of_batch = len(batch.labels)
    a, e = 5 / rows_of_batch, method.state["background_ratio"] * backgrounds / rows_of_batch
    drawn = method._replayed_features(step)
    assert drawn.shape == (5, 6)
    fake = (
        F.softplus((drawn @ step.network.final.kernel + step.network.final.bias)[:, 4:]).sum(1).mean().item()
    )
    extra = sums["extra"] / max(backgrounds, 1)
    assert terms["ce"].item() == pytest.approx(sums["ori"] / sum(counted) / (1 + a + e), rel=1e-5)
    assert terms["replay"].item() == pytest.approx((a * fake + e * extra) / (1 + a + e), rel=1e-4)
    assert terms["features"].item() == pytest.approx(5 * sums["features"] / (6 * olds), rel=1e-4)


@pytest.mark.parametrize("name", ["star", "lgkd+star"])
def test_old_outputs_and_background_never_move(name):
    method = toy_method(name)
    step = at_step_1(method)
    final = step.network.final
    descend(method, step, 2)
    assert torch.equal(final.kernel[:, :4], step.teacher.final.kernel)
    assert torch.equal(final.bias[:, :4], step.teacher.final.bias)
    assert (final.kernel[:, 0] == 0).all() and (final.bias[:, 0] == 0).all()
    assert not torch.equal(final.kernel[:, 4:], torch.zeros_like(final.kernel[:, 4:]))


def test_what_is_remembered_grows_by_the_steps_classes():
    method = toy_method("star")
    step = at_step_1(method)
    first = {name: method.state[name].clone() for name in ("prototypes", "noise", "lengths")}
    assert [len(value) for value in first.values()] == [3, 3, 3]
    assert method.state["numbers"].shape == (4,)
    method.end(step)
    for name, value in first.items():
        assert torch.equal(method.state[name][:3], value) and len(method.state[name]) == 5
    assert method.state["numbers"].shape == (6,)
    counts = torch.bincount(toy_batch(STEP_LABELS).labels, minlength=6)
    assert method.state["numbers"][4:].tolist() == counts[4:6].tolist()
    last = at_next_step(method, step.network, 2, [toy_batch((0, 6, 255))])
    assert len(method.state["replayed"]) == 5
    batch = toy_batch((0, 6, 255))
    assert set(method.loss(last, batch, *forward(last, batch))) == {"ce", "replay", "features", "contrast"}


@pytest.mark.parametrize("name", ["star", "lgkd+star", "adapter"])
def test_a_batch_in_parts_has_the_loss_of_the_whole(name):
    """All but the nearness, whose mean directions are of the part at hand."""
    batch = toy_batch(STEP_LABELS)
    method = toy_method(name)
    step = at_step_1(method, batch)
    method.state["replayed"] = torch.tensor([2, 0, 3])
    torch.manual_seed(7)
    whole = method.loss(step, batch, *forward(step, batch))
    parts, means = batch.split(3), Denominators(torch.device("cpu"))
    assert len(parts) == 3
    for part in parts:
        with means.counting():
            method.loss(step, part, *forward(step, part))
    means.share(3, len(means.counts))
    sums = {}
    for part in parts:
        with means.applied():
            for key, value in method.loss(step, part, *forward(step, part)).items():
                sums[key] = sums.get(key, 0) + value.item() / 3
    for key in whole.keys() - {"contrast"}:
        assert sums[key] == pytest.approx(whole[key].item(), rel=1e-5), key


def test_adapters_losses_are_the_originals():
    case = "adapter/step"
    values = original(case)
    logits, features = values["logits"].requires_grad_(), values["features"].requires_grad_()
    labels, region = rows(values["labels"]), rows(values["region"])
    unsure = replay.uncertainty(rows(logits), labels, 0.7)
    assert_close(unsure, values["uncertainty"])
    assert_gradients(unsure, case, "uncertainty", only=(logits, lambda gradient: gradient))
    of_classes = torch.stack([(labels == c).double() for c in (5, 6)], 1)
    near = replay.nearness(rows(features), of_classes, values["prototypes"])
    assert_close(near, values["discriminative"])
    assert_gradients(near, case, "discriminative", only=(features, lambda gradient: gradient))
    kept = replay.kept_features(rows(features), rows(values["old_features"]), region)
    kept = kept * (8 * region.sum()) / (8 * region.sum() + 1e-4)  # what the original adds below
    assert_close(kept, values["feature_distillation"])
    assert_gradients(kept, case, "feature_distillation", only=(features, lambda gradient: gradient))


def test_prototypes_drift_as_the_originals():
    values, sums = original("adapter/drift"), {}
    for number in range(2):
        new, old = (
            Output(
                F.pad(rows(values[f"{part}_logits{number}"]), (1, 0), value=9.0),
                rows(values[f"{part}_features{number}"]),
                [],
            )
            for part in ("new", "old")
        )
        for name, value in replay.sums_of_drift(new, old, rows(values[f"labels{number}"]), 0.7).items():
            sums[name] = sums.get(name, 0) + value
    prototypes, noise = replay.drifted(sums, *(values[name] for name in ("prototypes", "noise", "numbers")))
    assert_close(prototypes, values["prototypes_after"])
    assert_close(noise, values["noise_after"])


@pytest.mark.parametrize("reading", ["paper", "published"])
def test_adapters_prototypes_move_unless_the_code_is_followed(reading):
    """Background features far along a class that both networks are sure of."""
    method = find_method("adapter")(reading=reading)
    step = at_step_1(method)
    for network in (step.network, step.teacher):
        with torch.no_grad():
            network.final.bias[:, 1:] = -9
            network.final.bias[:, 2] = 9
    before = method.state["prototypes"].clone()
    method.end(step)
    moved = (method.state["prototypes"][:3] - before).abs().amax(1)
    assert moved[0] == moved[2] == 0
    assert (moved[1] > 0) == (reading == "paper")
