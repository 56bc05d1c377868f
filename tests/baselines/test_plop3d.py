"""PLOP-3D's parts against slow references that loop over points, in float64."""

import math
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from baselines.plop3d import PLOP3D
from scannet_css.methods.pooling import SCALES, local_pod, new_on_background
from scannet_css.methods.pseudo_labels import (
    adaptive_factor,
    thresholds_of_histograms,
    uncertainty_and_prediction,
)


def random_level(stride, seed=0, axes=3):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.unique(torch.randint(-7, 9, (260, axes), generator=generator), dim=0)
    scene = torch.randint(0, 3, (len(cells), 1), generator=generator)
    coordinates = torch.cat([scene, cells * stride], 1).int()
    new, old = (torch.randn(len(cells), 5, generator=generator) for _ in range(2))
    return new, old, coordinates


def slow_local_pod(new, old, coordinates, stride):
    """Profiles of both networks apart, as dictionaries of cells, one voxel at a time."""
    distances = []
    for scene in sorted(set(coordinates[:, 0].tolist())):
        rows = (coordinates[:, 0] == scene).nonzero().squeeze(1)
        position = np.floor_divide(coordinates[rows, 1:].numpy(), stride)
        position = position - position.min(0)
        extent = position.max(0) + 1
        total = 0.0
        for scale in SCALES:
            for axis in range(len(extent)):
                cells = defaultdict(list)
                for row, place in zip(rows.tolist(), position, strict=True):
                    window = tuple(int(place[a] * scale // extent[a]) for a in range(len(extent)))
                    cells[(*window, int(place[axis]))].append(row)
                for members in cells.values():
                    profile_new = new[members].double().square().mean(0)
                    profile_old = old[members].double().square().mean(0)
                    total += (profile_new - profile_old).square().sum().item()
        distances.append(math.sqrt(total))
    return sum(distances) / len(distances)


@pytest.mark.parametrize("axes", [3, 2])
@pytest.mark.parametrize("stride", [1, 4])
def test_local_pod_is_the_slow_reference(stride, axes):
    new, old, coordinates = random_level(stride, axes=axes)
    expected = slow_local_pod(new, old, coordinates, stride)
    assert local_pod(new, old, coordinates, stride).item() == pytest.approx(expected, rel=1e-5)


def test_local_pod_does_not_depend_on_the_order_of_voxels():
    new, old, coordinates = random_level(2)
    order = torch.randperm(len(new), generator=torch.Generator().manual_seed(1))
    shuffled = local_pod(new[order], old[order], coordinates[order], 2)
    assert shuffled.item() == pytest.approx(local_pod(new, old, coordinates, 2).item(), rel=1e-6)


def test_local_pod_of_equal_features_is_zero_with_zero_gradient():
    new, _, coordinates = random_level(1)
    student = new.clone().requires_grad_()
    value = local_pod(student, new, coordinates, 1)
    value.backward()
    assert value.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(new))


def test_uncertainty_is_the_entropy_over_k_log_k_log_c():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0], [0.0, 0.0, 50.0, 50.0]])
    uncertainty, predicted = uncertainty_and_prediction(logits, channels=7)
    largest = 1 / (4 * math.log(7))
    assert torch.allclose(uncertainty, torch.tensor([largest, 0.0, largest / 2]), atol=1e-6)
    assert predicted.tolist()[1:] == [0, 2]


def test_median_of_a_histogram_is_the_median_of_the_values():
    values = np.random.default_rng(0).random(501) ** 3
    bins, largest = 4096, 0.25
    counts = torch.zeros(2, bins, dtype=torch.int64)
    counts[1] = torch.bincount(torch.from_numpy((values * bins).astype(int)), minlength=bins)
    medians = thresholds_of_histograms(counts, "true", largest)
    assert medians[0] == 0  # no voxel: the smallest threshold
    assert 0 <= medians[1].item() - largest * np.median(values) <= largest / bins + 1e-7
    # the case that the published code gets wrong: most of the mass outside of the first bin
    skewed = torch.tensor([[10, 0, 0, 30, 30]])
    assert thresholds_of_histograms(skewed, "true", 1.0).item() == pytest.approx(4 / 5)
    assert thresholds_of_histograms(skewed, "published", 1.0).item() != pytest.approx(4 / 5)


def test_pseudo_labels_replace_confident_background_and_ignore_the_rest():
    method, step = PLOP3D(), SimpleNamespace(channels=5)
    uncertain = 1 / (3 * math.log(5))  # as uncertain as can be
    method.state["thresholds"] = torch.tensor([uncertain / 2, uncertain / 2, 0.0], dtype=torch.float64)
    sure_of_1 = [0.0, 20.0, 0.0]
    sure_of_2 = [0.0, 0.0, 3.0]  # its threshold is 0
    unsure = [0.1, 0.0, 0.0]
    old = torch.tensor([sure_of_1, sure_of_2, unsure, sure_of_1, sure_of_1])
    labels = torch.tensor([0, 0, 0, 4, 255])
    assert method.pseudo_labels(step, labels, old).tolist() == [1, 255, 255, 4, 255]
    for threshold, kept in ((math.inf, 1), (math.nan, 255), (-math.inf, 255)):
        method.state["thresholds"][:] = threshold
        assert method.pseudo_labels(step, labels[:1], old[:1]).tolist() == [kept]


def test_adaptive_factor_is_the_share_of_kept_background_per_scene():
    shown = torch.tensor([0, 0, 0, 0, 3, 0, 3, 255])
    labels = torch.tensor([1, 0, 255, 255, 3, 255, 3, 255])
    scene = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2])
    assert adaptive_factor(shown, labels, scene, 3).tolist() == [2 / (4 + 1e-6), 0.0, 0.0]


def test_new_channels_are_added_to_background():
    logits = torch.arange(10.0).reshape(2, 5)
    assert new_on_background(logits, 3).tolist() == [[0 + 3 + 4, 1, 2], [5 + 8 + 9, 6, 7]]
