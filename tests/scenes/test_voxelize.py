"""Voxels, majority labels and means against dictionaries, and in any order of the points."""

import math
from collections import Counter, defaultdict

import pytest
import torch

from scannet_css.errors import InputError
from scannet_css.scenes.voxelize import majority_labels, voxel_mean, voxelize


def cloud(points=3000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(points, 3, generator=generator) - 0.5) * torch.tensor([1.0, 0.6, 0.4])


def cells_of(points, size):
    return [tuple(math.floor(x / size) for x in row) for row in points.double().tolist()]


@pytest.mark.parametrize("size", [0.02, 0.05, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_voxels_are_the_sorted_cells_of_a_dictionary(size, dtype):
    points = cloud().to(dtype)
    coordinates, inverse = voxelize(points, size)
    cells = cells_of(points, size)
    assert coordinates.dtype == torch.int32 and inverse.dtype == torch.int64
    assert [tuple(row) for row in coordinates.tolist()] == sorted(set(cells))
    assert [tuple(row) for row in coordinates[inverse].tolist()] == cells


def test_cells_are_cut_in_float64():
    # 0.06 in float32 lies below 0.06, although the float32 quotient rounds to 3
    points = torch.tensor([[0.06, -0.02, 0.04]], dtype=torch.float32)
    assert voxelize(points, 0.02)[0].tolist() == [[2, -1, 1]]
    assert cells_of(points, 0.02) == [(2, -1, 1)]


def test_order_of_the_points_does_not_matter():
    points = cloud()
    labels = torch.randint(0, 20, (len(points),), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(2))
    coordinates, inverse = voxelize(points, 0.1)
    shuffled_coordinates, shuffled_inverse = voxelize(points[order], 0.1)
    assert torch.equal(coordinates, shuffled_coordinates)
    assert torch.equal(inverse[order], shuffled_inverse)
    majority = majority_labels(labels, inverse, len(coordinates))
    assert torch.equal(majority, majority_labels(labels[order], shuffled_inverse, len(coordinates)))


def test_majority_is_that_of_a_counter_with_ties_to_the_smallest():
    points = cloud()
    labels = torch.randint(0, 5, (len(points),), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    labels[labels == 4] = 255
    coordinates, inverse = voxelize(points, 0.06)
    votes = defaultdict(Counter)
    for voxel, label in zip(inverse.tolist(), labels.tolist(), strict=True):
        if label != 255:
            votes[voxel][label] += 1
    expected = [
        min(votes[v], key=lambda label: (-votes[v][label], label)) if votes[v] else 255
        for v in range(len(coordinates))
    ]
    assert 255 in expected and len(set(expected)) == 5
    assert majority_labels(labels, inverse, len(coordinates)).tolist() == expected


def test_majority_by_hand():
    inverse = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    labels = torch.tensor([7, 2, 2, 9, 3, 255, 254], dtype=torch.uint8)
    assert majority_labels(labels, inverse, 5).tolist() == [2, 3, 255, 254, 255]
    assert majority_labels(torch.full((7,), 255, dtype=torch.uint8), inverse, 4).tolist() == [255] * 4
    assert majority_labels(labels, inverse.int(), 4).dtype == torch.uint8


def test_mean_is_that_of_a_loop():
    points = cloud(500)
    values = torch.rand(500, 4, generator=torch.Generator().manual_seed(4))
    coordinates, inverse = voxelize(points, 0.1)
    means = voxel_mean(values, inverse, len(coordinates) + 1)
    for voxel in range(len(coordinates)):
        rows = [row for row, v in zip(values.tolist(), inverse.tolist(), strict=True) if v == voxel]
        expected = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
        assert means[voxel].tolist() == pytest.approx(expected, rel=1e-7)
    assert means[-1].tolist() == [0, 0, 0, 0]
    assert means.dtype == values.dtype


def test_no_points_give_no_voxels():
    coordinates, inverse = voxelize(torch.empty(0, 3), 0.02)
    assert coordinates.shape == (0, 3) and inverse.shape == (0,)
    assert majority_labels(torch.empty(0, dtype=torch.uint8), inverse, 0).shape == (0,)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e9, -1e9])
def test_impossible_points_are_refused(value):
    points = cloud(10)
    points[4, 1] = value
    with pytest.raises(InputError, match="not finite or lie beyond"):
        voxelize(points, 0.02)


def test_the_whole_range_is_kept():
    edge = (1 << 20) - 0.5
    points = torch.tensor([[edge, -edge - 0.5, 0.0]], dtype=torch.float64)
    assert voxelize(points, 1.0)[0].tolist() == [[(1 << 20) - 1, -(1 << 20), 0]]
    with pytest.raises(InputError):
        voxelize(points - 1, 1.0)


@pytest.mark.parametrize("size", [0.0, -0.02, math.nan, math.inf])
def test_impossible_voxel_sizes_are_refused(size):
    with pytest.raises(InputError, match="voxel size"):
        voxelize(cloud(10), size)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_voxels():
    points, device = cloud(), torch.device("cuda")
    labels = torch.randint(0, 20, (len(points),), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    coordinates, inverse = voxelize(points, 0.05)
    found_coordinates, found_inverse = voxelize(points.to(device), 0.05)
    assert torch.equal(found_coordinates.cpu(), coordinates) and torch.equal(found_inverse.cpu(), inverse)
    majority = majority_labels(labels.to(device), found_inverse, len(coordinates)).cpu()
    assert torch.equal(majority, majority_labels(labels, inverse, len(coordinates)))
