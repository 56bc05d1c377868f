"""Batches cut into parts."""

import pytest
import torch

from scannet_css.scenes.batch import Batch


def a_batch(sizes, vertices=0):
    """Scenes of so many voxels; every feature is its own row number."""
    rows = sum(sizes)
    scenes = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.long))
    coordinates = torch.cat([scenes[:, None], torch.arange(rows * 3).view(rows, 3)], 1).int()
    features = torch.arange(rows, dtype=torch.float32)[:, None]
    inverse = [torch.arange(vertices) % size for size in sizes] if vertices else []
    names = [f"scene{number}" for number in range(len(sizes))]
    return Batch(names, features, coordinates, torch.arange(rows), inverse, [i + 1 for i in inverse])


@pytest.mark.parametrize(
    ("sizes", "parts", "expected"),
    [
        ([10, 1, 1, 1], 2, [[10], [1, 1, 1]]),
        ([1, 1, 1, 10], 2, [[1, 1, 1], [10]]),
        ([5, 5, 5, 5], 2, [[5, 5], [5, 5]]),
        ([3, 4, 3], 3, [[3], [4], [3]]),
        ([3, 4, 3], 8, [[3], [4], [3]]),
        ([7, 2], 1, [[7, 2]]),
        ([9], 4, [[9]]),
        ([], 3, []),
    ],
)
def test_parts_are_balanced_and_none_is_empty(sizes, parts, expected):
    assert [part_sizes(part) for part in a_batch(sizes).split(parts)] == expected


def part_sizes(part):
    return torch.bincount(part.coordinates[:, 0], minlength=len(part.names)).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_the_parts_joined_are_the_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 40, (1 + seed % 7,), generator=generator).tolist()
    batch, parts = a_batch(sizes, vertices=50), 1 + seed % 5
    cut = batch.split(parts)
    assert 1 <= len(cut) <= parts and all(part.voxels > 0 for part in cut)
    assert max(part.voxels for part in cut) <= sum(sizes) / parts + max(sizes)
    assert [name for part in cut for name in part.names] == batch.names
    for name in ("features", "labels"):
        assert torch.equal(torch.cat([getattr(part, name) for part in cut]), getattr(batch, name))
    first = 0
    for part in cut:
        assert part.coordinates[0, 0] == 0 and part.coordinates[-1, 0] == len(part.names) - 1
        rows = batch.coordinates[part.features[:, 0].long()]
        assert torch.equal(part.coordinates, rows - torch.tensor([first, 0, 0, 0], dtype=torch.int32))
        for number in range(len(part.names)):
            assert part.inverse[number] is batch.inverse[first + number]
            assert part.vertex_labels[number] is batch.vertex_labels[first + number]
        first += len(part.names)


def test_a_batch_is_cut_into_at_least_one_part():
    with pytest.raises(ValueError, match="parts 0: expected at least 1"):
        a_batch([3]).split(0)
    assert a_batch([3, 4]).voxels == 7
