"""Coordinates and kernel maps against a dictionary."""

import itertools

import pytest
import torch

from scannet_css.sparse import Conv3d, ConvTranspose3d, SparseTensor, maps
from scannet_css.sparse.coordinates import AXIS_LIMIT, SCENE_LIMIT, pack, unpack


def random_coordinates(count=300, scenes=3, low=-7, high=6, seed=0):
    cells = list(itertools.product(range(scenes), *[range(low, high + 1)] * 3))
    chosen = torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))[:count]
    return torch.tensor(cells)[chosen]


def tensor_of(coordinates):
    return SparseTensor(torch.zeros(len(coordinates), 1), coordinates)


def offsets_by_hand(kernel_size, step):
    first = -(kernel_size // 2) if kernel_size % 2 else 0
    taps = range(first, first + kernel_size)
    return [(x * step, y * step, z * step) for z in taps for y in taps for x in taps]  # x runs fastest


def table_by_hand(inputs, outputs, offsets):
    row_of = {tuple(row): number for number, row in enumerate(inputs)}
    return [
        [row_of.get((scene, x + dx, y + dy, z + dz), -1) for scene, x, y, z in outputs]
        for dx, dy, dz in offsets
    ]


@pytest.mark.parametrize(
    ("stride", "kernel_size", "kernel_stride", "dilation"),
    [
        (1, 3, 1, 1),
        (1, 5, 1, 1),
        (1, 3, 1, 2),
        (1, 5, 1, 3),
        (2, 3, 1, 1),
        (2, 5, 1, 1),
        (4, 3, 1, 2),
        (1, 2, 2, 1),
        (2, 2, 2, 1),
    ]
    + [(1, 3, 2, 1), (2, 3, 2, 1)],
)
@pytest.mark.parametrize("way", ["searched", "descended"])
def test_maps_are_those_of_a_dictionary(way, stride, kernel_size, kernel_stride, dilation, monkeypatch):
    monkeypatch.setattr(maps, "SEARCHED_ROWS", 1000 if way == "searched" else 10)
    manager = tensor_of(random_coordinates()).manager
    inputs = manager.coordinates(stride).tolist()
    kernel_map = manager.map(stride, kernel_size, kernel_stride, dilation)
    outputs = manager.coordinates(stride * kernel_stride).tolist()
    expected = table_by_hand(inputs, outputs, offsets_by_hand(kernel_size, stride * dilation))
    assert kernel_map.table.tolist() == expected

    reverse = kernel_map.reverse_offsets(kernel_map.reverse.table)
    meetings = {(k, i, o) for k, row in enumerate(expected) for o, i in enumerate(row) if i >= 0}
    assert {(k, i, int(reverse[k, i])) for k, i in (reverse >= 0).nonzero().tolist()} == meetings


def morton_key(row):
    """Bit by bit: z, y and x take turns, x lowest."""
    scene, *axes = row
    bits = [
        ((value + 2**17) >> place & 1) << (3 * place + axis)
        for axis, value in enumerate(axes)
        for place in range(18)
    ]
    return scene << 54 | sum(bits)


def test_coarser_levels_are_the_occupied_corners_in_morton_order():
    coordinates = random_coordinates()
    manager = tensor_of(coordinates).manager
    for stride in (1, 2, 4, 8, 16):
        corners = {(s, *(c // stride * stride for c in xyz)) for s, *xyz in coordinates.tolist()}
        assert manager.coordinates(stride).tolist() == [
            list(corner) for corner in sorted(corners, key=morton_key)
        ]


def test_keys_interleave_the_bits_and_hold_the_extremes():
    ends = (-AXIS_LIMIT, -1, 0, AXIS_LIMIT - 1)
    rows = [(scene, x, y, z) for scene in (0, SCENE_LIMIT - 1) for x in ends for y in ends for z in ends]
    keys = pack(torch.tensor(rows))
    assert keys.tolist() == [morton_key(row) for row in rows]
    assert unpack(keys).tolist() == [list(row) for row in rows]


def test_neighbours_at_the_extremes_do_not_wrap_into_other_rows_or_scenes():
    low, high = -AXIS_LIMIT, AXIS_LIMIT - 1
    rows = [(s, x, y, z) for s in (0, 1) for x in (low, high) for y in (low, high) for z in (low, high)]
    table = tensor_of(torch.tensor(rows)).manager.map(1, 5, 1).table
    assert (table >= 0).sum(1).nonzero().flatten().tolist() == [62]  # only the centre of 125


def test_every_map_is_built_once_whoever_asks():
    x = tensor_of(random_coordinates())
    for _ in range(2):
        down = Conv3d(1, 2, kernel_size=2, stride=2)(Conv3d(1, 1, kernel_size=3)(x.with_features(x.features)))
        ConvTranspose3d(2, 3)(Conv3d(2, 2, kernel_size=3)(down))
    assert set(x.manager.built.values()) == {1}
    assert {
        name for kind, *name in map(list, x.manager.built) if kind == "map" for name in [tuple(name)]
    } == {
        (1, 3, 1, 1),
        (1, 2, 2, 1),
        (2, 3, 1, 1),
    }


def test_stride_one_keeps_rows_and_coarse_coordinates_are_multiples_of_the_stride():
    coordinates = random_coordinates()
    x = tensor_of(coordinates)
    assert Conv3d(1, 2, kernel_size=3)(x).coordinates is coordinates
    down = Conv3d(1, 2, kernel_size=2, stride=2)(x)
    assert down.stride == 2
    assert (down.coordinates[:, 1:] % 2 == 0).all()
    up = ConvTranspose3d(2, 4)(down)
    assert (up.stride, up.features.shape) == (1, (300, 4))
    assert up.coordinates is coordinates
