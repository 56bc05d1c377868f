"""GUA's neighbours, relations, uncertainty and pseudo-labels against dictionaries of coordinates."""

import math
from types import SimpleNamespace

import pytest
import torch

from baselines.gua import GUA, uncertainty_labels
from scannet_css.methods.neighbours import labels_nearby, mutual_information, neighbours, relations
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
        expected = sum(differences) / len(around) if around else torch.zeros(F, dtype=torch.float64)
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


def test_mutual_information_is_entropy_of_the_mean_less_mean_entropy(coordinates):
    probability = torch.randn(len(coordinates), K, dtype=torch.float64).mul(3).softmax(1)
    found = mutual_information(probability, neighbours(coordinates))
    expected = slow_information(probability, slow_neighbours(coordinates))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=0, atol=1e-9)
    assert (found >= 0).all()
    same = mutual_information(probability[:1].expand(len(coordinates), K), neighbours(coordinates))
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
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    batch, new, old = outputs()
    generator = torch.Generator().manual_seed(5)
    kernel, bias = (torch.randn(n, K, generator=generator, dtype=torch.float64) for n in (F, 1))
    return (
        batch,
        new,
        old,
        fake_step(teacher=SimpleNamespace(final=SimpleNamespace(kernel=kernel, bias=bias))),
    )


def test_guas_pseudo_labels_and_transfer(shown):
    batch, new, old, step = shown
    threshold = 0.12
    around = slow_neighbours(batch.coordinates)
    final = step.teacher.final
    probability = (old.features @ final.kernel + final.bias).softmax(1)
    predicted = [row.index(max(row)) for row in probability.tolist()]
    information = slow_information(probability, around)
    is_sure = [p > 0 and u <= threshold for p, u in zip(predicted, information, strict=True)]
    nearest = nearest_labels(predicted, is_sure, around)
    labels = uncertainty_labels(step, batch.labels, old, neighbours(batch.coordinates), threshold, 0.0)
    kinds = set()
    for row, label in enumerate(batch.labels.tolist()):
        if label != 0:
            assert labels[row] == label
        elif is_sure[row]:
            assert labels[row] == predicted[row]
            kinds.add("sure")
        else:
            assert labels[row].item() in nearest[row]
            kinds.add("ignored" if labels[row] == 255 else "nearby")
    assert kinds == {"sure", "nearby", "ignored"}

    terms = GUA(weight=2.0, threshold=threshold, dropout=0.0).loss(step, batch, new, old)
    known = [row for row, label in enumerate(labels.tolist()) if label != 255]
    losses = [-new.logits[row].log_softmax(0)[labels[row]].item() for row in known]
    assert terms["ce"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    total = 0.0
    for row, near in enumerate(around):
        if near:
            rows = [other for _, other in near]
            mine, theirs = (x.features[rows].mean(0) - x.features[row] for x in (new, old))
            total += (mine - theirs).square().sum().item()
    assert terms["gft"].item() == pytest.approx(2 * total / (len(around) * F), rel=1e-9)


def test_guas_dropout_makes_the_teacher_unsure(shown):
    batch, _, old, step = shown
    near = neighbours(batch.coordinates)
    torch.manual_seed(0)
    certain, dropped = (uncertainty_labels(step, batch.labels, old, near, 1e9, each) for each in (0.0, 0.5))
    assert not torch.equal(certain, dropped)
    torch.manual_seed(7)
    again = [uncertainty_labels(step, batch.labels, old, near, 0.1, 0.5)]
    torch.manual_seed(7)
    assert torch.equal(again[0], uncertainty_labels(step, batch.labels, old, near, 0.1, 0.5))
