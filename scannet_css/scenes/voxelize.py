"""Points to voxels: cells, the inverse map, the label and the mean of a voxel. On any device, in any order.

A voxel is the integer cell floor(point / voxel_size). Voxels come in lexicographic order of (x, y, z), so the
same points in another order give the same voxels, and labels and counts do not change by a bit.
"""

import math

import torch

from scannet_css.classes import IGNORE
from scannet_css.errors import InputError

_BITS = 21  # per axis: three axes fill one int64 key
_HALF = 1 << (_BITS - 1)


def voxelize(points: torch.Tensor, voxel_size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cuts points (P, 3), floating, into cells of `voxel_size` (the unit of the points, metres).

    Gives coordinates (N, 3) int32 in lexicographic order and the inverse map (P,) int64: the voxel of each
    point. The division is done in float64. Raises InputError for a voxel size that is not positive, for
    points that are not finite and for points further than 2^20 voxels from the origin.
    """
    if not (voxel_size > 0 and math.isfinite(voxel_size)):
        raise InputError(f"voxel size {voxel_size}: expected a positive length in metres")
    cells = torch.floor(points.double() / voxel_size)
    # written so that NaN fails the comparison too
    if not bool(((cells >= -_HALF) & (cells < _HALF)).all()):
        raise InputError(
            f"points are not finite or lie beyond {_HALF} voxels of {voxel_size} m from the origin"
        )
    cells = cells.to(torch.int64) + _HALF
    keys = (cells[:, 0] << 2 * _BITS) | (cells[:, 1] << _BITS) | cells[:, 2]
    keys, inverse = torch.unique(keys, return_inverse=True)
    mask = (1 << _BITS) - 1
    axes = (keys >> 2 * _BITS, (keys >> _BITS) & mask, keys & mask)
    return torch.stack([axis - _HALF for axis in axes], dim=1).to(torch.int32), inverse


def majority_labels(labels: torch.Tensor, inverse: torch.Tensor, voxels: int) -> torch.Tensor:
    """The most frequent label of each voxel: (P,) uint8 labels, (P,) inverse map -> (voxels,) uint8.

    Points with label 255 do not vote; a tie goes to the smallest label; a voxel without a vote gets 255.
    """
    # one key for each pair of voxel and label, so that memory does not grow with the number of classes
    pairs, counts = torch.unique(inverse.long() << 8 | labels.long(), return_counts=True)
    # the larger count wins, then the smaller label; ignored points score 0, which reads as 255 below
    rank = IGNORE - (pairs & 255)
    score = torch.where(rank == 0, 0, counts << 8 | rank)
    best = torch.zeros(voxels, dtype=torch.int64, device=labels.device)
    best.scatter_reduce_(0, pairs >> 8, score, "amax")
    return (IGNORE - (best & 255)).to(torch.uint8)


def voxel_mean(values: torch.Tensor, inverse: torch.Tensor, voxels: int) -> torch.Tensor:
    """The mean of `values` (P, C), floating, over the points of each voxel: (voxels, C), zero if it has none.

    Sums are taken in float64, in the order of the points.
    """
    sums = torch.zeros(voxels, values.shape[1], dtype=torch.float64, device=values.device)
    sums.index_add_(0, inverse.long(), values.double())
    counts = torch.bincount(inverse, minlength=voxels).clamp(min=1)
    return (sums / counts[:, None]).to(values.dtype)
