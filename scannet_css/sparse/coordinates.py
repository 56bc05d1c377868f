"""A voxel's coordinates (scene, x, y, z) as one int64 key, in Morton order within each scene.

The bits of x, y and z take turns, x lowest, so that the three lowest bits are the voxel's octant in its
parent (the number of its 2^3 kernel offset), the bits above them the parent's key, and sorted voxels have
sorted parents: a coarser level is a linear scan.
"""

import torch
from torch import Tensor

from scannet_css.errors import InputError

AXIS_BITS = 18  # a key is scene (9 bits) | 18 x (z y x): the sign bit stays free
AXIS_LIMIT = 1 << (AXIS_BITS - 2)  # half of an axis' range is margin, so that no neighbour can spill over
AXIS_BIAS = 1 << (AXIS_BITS - 1)
SCENE_SHIFT = 3 * AXIS_BITS
SCENE_LIMIT = 1 << (63 - SCENE_SHIFT)
# Spreading an integer's bits to every third place: shift, and the bits that stay.
_SPREAD = (
    (32, 0x001F00000000FFFF),
    (16, 0x001F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)
_ALL_AXES = (1 << SCENE_SHIFT) - 1


def pack(coordinates: Tensor) -> Tensor:
    """Coordinates (N, 4) of any integer type -> keys (N,) int64; InputError names what does not fit."""
    coordinates = coordinates.to(torch.int64)
    _check_range(coordinates)
    return pack_unchecked(coordinates)


def pack_unchecked(coordinates: Tensor) -> Tensor:
    """As pack, for coordinates (..., 4) int64 that are known to fit."""
    axes = coordinates[..., 1:] + AXIS_BIAS
    for shift, mask in _SPREAD:
        axes = (axes | (axes << shift)) & mask
    x, y, z = axes.unbind(-1)
    return (coordinates[..., 0] << SCENE_SHIFT) | (z << 2) | (y << 1) | x


def unpack(keys: Tensor) -> Tensor:
    """The coordinates (N, 4) int32 of keys (N,)."""
    axes = torch.stack([(keys & _ALL_AXES) >> axis for axis in range(3)], dim=1)
    axes &= _SPREAD[-1][1]
    for (shift, _), mask in zip(reversed(_SPREAD), _MASKS_BACK, strict=True):
        axes = (axes | (axes >> shift)) & mask
    return torch.cat([scene_of(keys)[:, None], axes - AXIS_BIAS], dim=1).to(torch.int32)


_MASKS_BACK = (*(mask for _, mask in reversed(_SPREAD[:-1])), (1 << 21) - 1)


def scene_of(keys: Tensor) -> Tensor:
    """The scene (N,) int64 of each key."""
    return keys >> SCENE_SHIFT


def octant_of(keys: Tensor, stride: int) -> Tensor:
    """The place (N,) int64, 0 to 7, of each voxel of the level `stride` among its parent's children."""
    return (keys >> 3 * _level(stride)) & 7


def parents_of(keys: Tensor, stride: int) -> Tensor:
    """For each key of the level `stride` the key (N,) of its parent."""
    shift = 3 * (_level(stride) + 1)
    return keys >> shift << shift


def kernel_offsets(kernel_size: int, step: int) -> list[tuple[int, int, int]]:
    """The kernel's taps (x, y, z) in units of the finest voxel, x fastest, as MinkowskiEngine numbers them.

    Odd kernels are centred, even ones start at 0.
    """
    first = -(kernel_size // 2) if kernel_size % 2 else 0
    taps = [step * tap for tap in range(first, first + kernel_size)]
    return [(x, y, z) for z in taps for y in taps for x in taps]


def _level(stride: int) -> int:
    return stride.bit_length() - 1


def _check_range(coordinates: Tensor) -> None:
    """Refuses what a key cannot hold, with the first wrong value."""
    smallest, largest = (values.tolist() for values in torch.aminmax(coordinates, dim=0))
    limits = {"scene": (0, SCENE_LIMIT), **dict.fromkeys("xyz", (-AXIS_LIMIT, AXIS_LIMIT))}
    for (name, (lowest, limit)), low, high in zip(limits.items(), smallest, largest, strict=True):
        if low < lowest or high >= limit:
            wrong = low if low < lowest else high
            raise InputError(f"coordinates: {name} = {wrong} is outside of [{lowest}, {limit - 1}]")
