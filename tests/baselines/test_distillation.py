"""ILT, LGKD's ablation, REMINDER and RCIL against loops over voxels in float64."""

import math
from collections import defaultdict

import pytest
import torch

from baselines.ilt import ILT
from baselines.lgkd import LGKD
from baselines.rcil import RCIL
from baselines.reminder import Reminder, similarity_distillation
from scannet_css.methods.losses import label_guided_target
from scannet_css.methods.pooling import CUBES, new_on_background, pooled_channels, pooled_cubes
from scannet_css.methods.prototypes import learn_prototypes
from scannet_css.sparse import SparseTensor
from tests.baselines.toy import C, F, K, fake_step, outputs, slow_means, toy_batch, toy_network, toy_step


@pytest.fixture
def in_float64(monkeypatch):
    """Methods widen half precision by `.float()`; here it keeps float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def softmax(values):
    largest = max(values)
    powers = [math.exp(value - largest) for value in values]
    return [power / sum(powers) for power in powers]


def test_ilt(in_float64):
    batch, new, old = outputs()
    term = ILT(feature_weight=7.0).loss(fake_step(), batch, new, old)["ilt"]
    mine, theirs = new.levels[0].features.tolist(), old.levels[0].features.tolist()
    squares = [(m - t) ** 2 for a, b in zip(mine, theirs, strict=True) for m, t in zip(a, b, strict=True)]
    assert term.item() == pytest.approx(7 * sum(squares) / len(squares), rel=1e-9)


# LGKD


def slow_target(row, label, guidance):
    old = softmax(row) + [0.0] * (C - K)
    if label < K or label == 255:
        return old
    if guidance == "one-hot":
        return [float(c == label) for c in range(C)]
    if guidance == "transplant":
        old[label], old[0] = old[0], 0.0
    return old


@pytest.mark.parametrize("guidance", ["transplant", "expand", "one-hot"])
def test_lgkds_ablation(guidance):
    batch, new, old = outputs()
    batch.labels[::7] = 2  # an old class, as a memory shows it
    total, labelled = 0.0, 0
    for row, label in enumerate(batch.labels.tolist()):
        if label == 255:
            continue
        labelled += 1
        target = slow_target(old.logits[row].tolist(), label, guidance)
        log_probability = [math.log(value) for value in softmax(new.logits[row].tolist())]
        weight = 3.0 if label >= K else 2.0
        total -= weight * sum(t * p for t, p in zip(target, log_probability, strict=True))
    method = LGKD(lgkd_weight=0.5, background_weight=2.0, novel_weight=3.0, guidance=guidance)
    terms = method.loss(fake_step(), batch, new, old)
    assert terms["lgkd"].item() == pytest.approx(0.5 * total / labelled, rel=1e-9)


def test_lgkd_without_guidance_has_no_such_term():
    assert set(LGKD(guidance="none").loss(fake_step(), *outputs())) == {"ce"}


@pytest.mark.parametrize("guidance", ["transplant", "expand", "one-hot"])
def test_what_lgkd_leads_to_sums_to_one_at_every_voxel(guidance):
    batch, _, old = outputs()
    target = label_guided_target(old.logits, batch.labels, C, guidance)
    assert target.shape == (len(batch.labels), C) and (target >= 0).all()
    torch.testing.assert_close(target.sum(1), torch.ones(len(target), dtype=target.dtype), rtol=0, atol=1e-12)
    expected = [
        slow_target(row, label, guidance)
        for row, label in zip(old.logits.tolist(), batch.labels.tolist(), strict=True)
    ]
    torch.testing.assert_close(target, torch.tensor(expected, dtype=target.dtype), rtol=0, atol=1e-12)


# REMINDER


def cosine(a, b):
    def norm(v):
        return math.sqrt(sum(x * x for x in v))

    return sum(x * y for x, y in zip(a, b, strict=True)) / (norm(a) * norm(b))


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_reminders_similarity_distillation(in_float64, threshold):
    batch, new, old = outputs()
    prototypes = torch.randn(K, F, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own, total, voxels, left_out, temperature = slow_means(new.features, batch.labels), 0.0, 0, 0, 3.0
    for row, label in enumerate(batch.labels.tolist()):
        if label < K or label == 255:
            continue
        voxels += 1
        similarity = softmax([cosine(own[label], each) for each in prototypes.tolist()])
        left_out += sum(each < threshold / K for each in similarity)
        similarity = [0.0 if each < threshold / K else each for each in similarity]
        theirs = softmax([value / temperature for value in old.logits[row].tolist()])
        mine = softmax([value / temperature for value in new.logits[row, :K].tolist()])
        for r, p, q in zip(similarity, theirs, mine, strict=True):
            total -= (r * p + 1e-7) * math.log(q)
    expected = temperature**2 * total / voxels
    value = similarity_distillation(new, old, batch.labels, prototypes, temperature, threshold)
    assert value.item() == pytest.approx(expected, rel=1e-9)
    assert (left_out > 0) == (threshold > 0)
    method = Reminder(similarity_weight=0.5, threshold=threshold)
    method.state = {"prototypes": prototypes, "thresholds": torch.full((K,), 0.5)}
    assert method.loss(fake_step(), batch, new, old)["similarity"].item() == pytest.approx(0.5 * expected)


def test_prototypes_are_means_of_the_batches_means_and_old_ones_stay():
    network = toy_network(C)
    batches = [toy_batch((0, 2, 4, 4, 255), 5), toy_batch((0, 4, 255), 6, scenes=1)]
    known = torch.arange(float(K * F)).view(K, F)
    found = learn_prototypes(toy_step(1, network, batches=batches), known)
    assert torch.equal(found[:K], known)
    with torch.no_grad():
        features = [network(SparseTensor(batch.features, batch.coordinates)).features for batch in batches]
    means = [slow_means(x.double(), batch.labels) for x, batch in zip(features, batches, strict=True)]

    def mean_of_batches(label):
        parts = [torch.tensor(each[label]) for each in means if label in each]
        return sum(parts) / len(parts)

    torch.testing.assert_close(found[4], mean_of_batches(4), rtol=1e-5, atol=1e-6)
    assert torch.equal(found[5], torch.zeros(F))  # it has no voxel
    first = learn_prototypes(toy_step(1, network, batches=batches), None)
    torch.testing.assert_close(first[0], mean_of_batches(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first[2], mean_of_batches(2), rtol=1e-5, atol=1e-6)


# RCIL


def slow_pooled_cubes(new, old, coordinates, stride):
    """Cubes as dictionaries, one voxel at a time; both networks pooled apart. A norm for each side."""
    distances = []
    for scene in sorted(set(coordinates[:, 0].tolist())):
        rows = [row for row, place in enumerate(coordinates.tolist()) if place[0] == scene]
        for side in CUBES:
            cubes, total = defaultdict(list), 0.0
            for row in rows:
                cubes[tuple(x // (side * stride) for x in coordinates[row, 1:].tolist())].append(row)
            for members in cubes.values():
                mine = new[members].double().square().mean(0)
                theirs = old[members].double().square().mean(0)
                total += (mine - theirs).square().sum().item()
            distances.append(math.sqrt(total))
    return sum(distances) / len(distances)


def slow_pooled_channels(new, old, coordinates):
    distances = []
    for scene in sorted(set(coordinates[:, 0].tolist())):
        total = 0.0
        for row in (coordinates[:, 0] == scene).nonzero()[:, 0].tolist():
            mine, theirs = ([0.0, *(x * x for x in each[row].tolist()), 0.0] for each in (new, old))
            for c in range(len(mine) - 2):
                total += (sum(mine[c : c + 3]) / 3 - sum(theirs[c : c + 3]) / 3) ** 2
        distances.append(math.sqrt(total))
    return sum(distances) / len(distances)


@pytest.mark.parametrize("stride", [1, 4])
def test_pooled_cubes(in_float64, stride):
    generator = torch.Generator().manual_seed(0)
    cells = torch.unique(torch.randint(-30, 30, (150, 3), generator=generator), dim=0)
    scene = torch.randint(0, 3, (len(cells), 1), generator=generator)
    coordinates = torch.cat([scene, cells * stride], 1).int()
    new, old = (torch.randn(len(cells), 5, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = slow_pooled_cubes(new, old, coordinates, stride)
    assert pooled_cubes(new, old, coordinates, stride).item() == pytest.approx(expected, rel=1e-9)
    expected = slow_pooled_channels(new, old, coordinates)
    assert pooled_channels(new, old, coordinates).item() == pytest.approx(expected, rel=1e-9)


def test_pooled_cubes_of_equal_features_are_zero_with_zero_gradient():
    batch, new, _ = outputs()
    value = pooled_cubes(new.features, new.features.detach(), batch.coordinates, 1)
    (gradient,) = torch.autograd.grad(value, new.features)
    assert value.item() == 0 and (gradient == 0).all()


def test_rcils_cubes_of_levels_and_logits(in_float64):
    batch, new, old = outputs()
    terms = RCIL(feature_weight=0.3, logit_weight=0.2).loss(fake_step(), batch, new, old)
    with torch.no_grad():
        levels = [
            slow_pooled_cubes(mine.features, theirs.features, mine.coordinates, mine.stride)
            for mine, theirs in zip(new.levels, old.levels, strict=True)
        ]
        logits = slow_pooled_cubes(new_on_background(new.logits, K), old.logits, batch.coordinates, 1)
        channels = [
            slow_pooled_channels(mine.features, theirs.features, mine.coordinates)
            for mine, theirs in zip(new.levels, old.levels, strict=True)
        ]
    growth = math.sqrt(C / (C - K))
    expected = growth * (0.3 * sum(levels) + 0.2 * logits) / 3
    assert terms["cubes"].item() == pytest.approx(expected, rel=1e-9)
    expected = growth * (0.3 * channels[0] + 0.2 * channels[1]) / 2  # the finest takes the smaller weight
    assert terms["channels"].item() == pytest.approx(expected, rel=1e-9)
