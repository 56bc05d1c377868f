"""Batches of synthetic rooms to measure on: the project's own generator, 150,000 vertices in the median."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.scenes.voxelize import voxelize
from scannet_css.synthetic.scans import make_scan

VERTICES = 150_000  # as many as ScanNet's scans have


def batch_of_scenes(scenes: int, voxel_size: float) -> Tensor:
    """Coordinates (N, 4) int32 of the first `scenes` rooms in voxels of `voxel_size` metres."""
    return torch.cat([_in_scene(_room(index, voxel_size), index) for index in range(scenes)])


def batch_of_voxels(voxels: int, voxel_size: float) -> Tensor:
    """Coordinates (voxels, 4) int32 of as many rooms as it takes; of the last one what lies below some x."""
    parts, missing = [], voxels
    while missing > 0:
        room = _room(len(parts), voxel_size)[:missing]
        parts.append(_in_scene(room, len(parts)))
        missing -= len(room)
    return torch.cat(parts)


def _in_scene(coordinates: Tensor, scene: int) -> Tensor:
    return F.pad(coordinates, (1, 0), value=scene)


@cache
def _room(index: int, voxel_size: float) -> Tensor:
    """Coordinates (N, 3) int32 in lexicographic order."""
    return voxelize(_points(index), voxel_size)[0]


@cache
def _points(index: int) -> Tensor:
    return torch.from_numpy(make_scan(0, "train", index, VERTICES).points)
