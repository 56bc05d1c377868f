"""GUA's neighbours, relations, uncertainty and pseudo-labels against dictionaries of coordinates."""

import math
from types import SimpleNamespace

import pytest
import torch

from baselines.gua import GUA, REAL_SHARE, corrected
from scannet_css.methods.neighbours import labels_nearby, neighbours, relations, uncertainty
from tests.baselines.toy import F, K, fake_step, outputs, toy_batch

OFFSETS = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) != (0, 0, 0)]


def slow_neighbours(coordinates):
    """Per voxel a list of (distance, row) of the occupied of the 26 around."""
    places = {tuple(place): row for row, place in enumerate(coordinates.tolist())}
    found = []
    for scene, *place in coordinates.tolist():
        around = []
        for offset in OFFSETS:
            row = places.get((scene, *(p + o for p, o in zip(place, offset, strict=True))))
            if row is not None:
                around.append((sum(map(abs, offset)), row))
        found.append(sorted(around))
    return found


@pytest.fixture(params=["as loaded", "shuffled"])
def coordinates(request):
    places = toy_batch((0,), side=6).coordinates
    places = torch.cat([places, torch.tensor([[1, 90, 90, 90]], dtype=places.dtype)])  # it has no neighbour
    if request.param == "shuffled":
        places = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(0))]
    return places


def test_neighbours_are_the_occupied_voxels_around_nearest_first(coordinates):
    near = neighbours(coordinates)
    assert near.shape == (len(coordinates), 26) and near.dtype == torch.int64
    for row, expected in enumerate(slow_neighbours(coordinates)):
        found = [each for each in near[row].tolist() if each >= 0]
        assert sorted(found) == sorted(other for _, other in expected)
        gaps = (coordinates[found] - coordinates[row]).abs().sum(1).tolist()
        assert gaps == sorted(gaps) == [distance for distance, _ in expected]


def test_relations_are_mean_differences(coordinates):
    features = torch.randn(len(coordinates), F, dtype=torch.float64)
    found = relations(features, neighbours(coordinates))
    for row, around in enumerate(slow_neighbours(coordinates)):
        differences = [features[other] - features[row] for _, other in around]
        expected = sum(differences) / (len(around) + 1) if around else torch.zeros(F, dtype=torch.float64)
        torch.testing.assert_close(found[row], expected)


def entropy(values):
    return -sum(value * math.log(value) for value in values if value > 0)


def slow_information(probability, around):
    found = []
    for row, near in enumerate(around):
        group = [probability[each].tolist() for each in (row, *(other for _, other in near))]
        mean = [sum(column) / len(group) for column in zip(*group, strict=True)]
        found.append(entropy(mean) - sum(map(entropy, group)) / len(group))
    return found


def test_uncertainty_is_entropy_of_the_mean_less_mean_entropy(coordinates):
    probability = torch.randn(len(coordinates), K, dtype=torch.float64).mul(3).softmax(1)
    found = 12 * K * uncertainty(probability, neighbours(coordinates))
    expected = slow_information(probability, slow_neighbours(coordinates))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=0, atol=1e-9)
    assert (found >= 0).all()
    same = uncertainty(probability[:1].expand(len(coordinates), K), neighbours(coordinates))
    assert same.max() < 1e-12


def nearest_labels(labels, wanted, around):
    """Per voxel the labels of those `wanted` neighbours that are nearest."""
    found = []
    for near in around:
        good = [(distance, labels[other]) for distance, other in near if wanted[other]]
        least = min((distance for distance, _ in good), default=None)
        found.append({label for distance, label in good if distance == least} or {255})
    return found


def test_labels_nearby_are_those_of_the_nearest_wanted_neighbour(coordinates):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, K, (len(coordinates),), generator=generator)
    wanted = torch.rand(len(coordinates), generator=generator) < 0.2
    found = labels_nearby(labels, wanted, neighbours(coordinates)).tolist()
    allowed = nearest_labels(labels.tolist(), wanted.tolist(), slow_neighbours(coordinates))
    assert all(label in choice for label, choice in zip(found, allowed, strict=True))
    assert 255 in found and len(set(found)) == K
    assert (labels_nearby(labels, torch.zeros_like(wanted), neighbours(coordinates)) == 255).all()


@pytest.fixture
def shown(monkeypatch):
    batch, new, old = outputs()
    generator = torch.Generator().manual_seed(5)
    kernel, bias = (torch.randn(n, K, generator=generator, dtype=torch.float64) for n in (F, 1))
    teacher = SimpleNamespace(final=SimpleNamespace(kernel=kernel, bias=bias))
    return batch, new, old, fake_step(teacher=teacher)


@pytest.mark.parametrize("has_background", [True, False])
def test_guas_pseudo_labels_and_transfer(shown, has_background):
    batch, new, old, step = shown
    step.has_background = has_background
    threshold = 0.12 / (12 * K)  # 0.12 nats in the authors' unit
    around = slow_neighbours(batch.coordinates)
    final = step.teacher.final
    probability = (old.features @ final.kernel + final.bias).softmax(1)
    predicted = [row.index(max(row)) for row in probability.tolist()]
    information = slow_information(probability, around)
    is_sure = [u <= 0.12 and (has_background or p > 0) for p, u in zip(predicted, information, strict=True)]
    nearest = nearest_labels(predicted, is_sure, around)

    method = GUA(weight=2.0, threshold=threshold, dropout=0.0)
    near = neighbours(batch.coordinates)
    labels = corrected(batch.labels, *method._teacher(step, old, near), near, has_background)
    kinds = set()
    for row, label in enumerate(batch.labels.tolist()):
        if label != 0:
            assert labels[row] == label
        elif is_sure[row]:
            assert labels[row] == predicted[row]
            kinds.add("background" if predicted[row] == 0 else "sure")
        else:
            assert labels[row].item() in nearest[row]
            kinds.add("ignored" if labels[row] == 255 else "nearby")
    assert kinds - {"background"} == {"sure", "nearby", "ignored"}
    assert ("background" in kinds) == has_background

    terms = method.loss(step, batch, new, old)
    first = 0 if has_background else 1  # at a last step background's row is not trained
    losses = [
        -new.logits[row, first:].log_softmax(0)[label - first].item()
        for row, label in enumerate(labels.tolist())
        if label != 255
    ]
    assert terms["ce"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    (gradient,) = torch.autograd.grad(terms["ce"], new.logits, retain_graph=True)
    assert (gradient[:, 0] != 0).any() == has_background
    total = 0.0
    for row, near in enumerate(around):
        if near:
            rows = [row, *(other for _, other in near)]
            mine, theirs = (x.features[rows].mean(0) - x.features[row] for x in (new, old))
            total += (mine - theirs).square().sum().item()
    assert terms["gft"].item() == pytest.approx(2 * REAL_SHARE * total / (len(around) * F), rel=1e-9)


def test_guas_dropout_makes_the_teacher_unsure(shown):
    batch, _, old, step = shown
    near = neighbours(batch.coordinates)

    def teacher(dropout):
        return GUA(dropout=dropout, threshold=0.001)._teacher(step, old, near)

    torch.manual_seed(7)
    certain, dropped = teacher(0.0), teacher(0.5)
    assert not torch.equal(certain[0], dropped[0]) and not torch.equal(certain[1], dropped[1])
    torch.manual_seed(7)
    again = teacher(0.5)
    torch.manual_seed(7)
    assert all(torch.equal(one, other) for one, other in zip(again, teacher(0.5), strict=True))
