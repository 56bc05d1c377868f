"""Distances between pooled features of two networks at the same sparse voxels."""

import torch
from torch import Tensor

from scannet_css.methods.means import mean_over

SCALES = (1, 2, 4)  # each twice the one before, so that its windows are halves of that one's
FINEST = SCALES[-1]
CUBES = (4, 8, 12, 16, 20, 24)  # voxels


def new_on_background(logits: Tensor, old_channels: int) -> Tensor:
    """(N, C) -> (N, K): the logits of the new channels are added to background's."""
    logits = logits.float()
    background = logits[:, :1] + logits[:, old_channels:].sum(1, keepdim=True)
    return torch.cat([background, logits[:, 1:old_channels]], 1)


def local_pod(new: Tensor, old: Tensor, coordinates: Tensor, stride: int) -> Tensor:
    """L2 distance of the pooled profiles of squared features, mean over scenes.

    new, old (M, F): features of the same voxels; coordinates (M, 4) integer: scene and position in finest
    voxels.
    """
    scene = coordinates[:, 0].long()
    position = torch.div(coordinates[:, 1:].long(), stride, rounding_mode="floor")
    scenes = int(scene.max()) + 1
    every_scene = scene[:, None].expand(-1, 3)
    low = torch.zeros(scenes, 3, dtype=torch.long, device=scene.device)
    high = low.scatter_reduce(0, every_scene, position, "amax", include_self=False)
    low = low.scatter_reduce(0, every_scene, position, "amin", include_self=False)
    position, extent = position - low[scene], (high - low)[scene] + 1
    part = (position * FINEST).div(extent, rounding_mode="floor")

    # Pooling is linear, so the difference of the squares is pooled once instead of both.
    difference = new.float().square() - old.float().square()
    ones = difference.new_ones(len(difference))
    squared_distance = difference.new_zeros(scenes)
    for axis, length in enumerate((high - low + 1).amax(0).tolist()):
        # A position along the axis lies in one window only, so the cells are few enough to number them all.
        first, second = (part[:, other] for other in range(3) if other != axis)
        cell = ((scene * FINEST + first) * FINEST + second) * length + position[:, axis]
        shape = (scenes, FINEST, FINEST, length, -1)
        nothing = difference.new_zeros(scenes * FINEST**2 * length, difference.shape[1])
        sums = nothing.index_add(0, cell, difference).view(shape)
        counts = nothing[:, 0].index_add(0, cell, ones).view(shape)
        for scale in reversed(SCALES):
            if scale < FINEST:
                sums, counts = merge_windows(sums), merge_windows(counts)
            means = sums / counts.clamp(min=1)
            squared_distance = squared_distance + means.square().sum((1, 2, 3, 4))
    return mean_over(root(squared_distance).sum(), scenes)


def merge_windows(cells: Tensor) -> Tensor:
    """(B, 2s, 2s, L, F) -> (B, s, s, L, F): the sums of windows that are one at the next scale."""
    scenes, windows, _, length, width = cells.shape
    return cells.view(scenes, windows // 2, 2, windows // 2, 2, length, width).sum((2, 4))


def root(values: Tensor) -> Tensor:
    """Square root with gradient 0, not infinity, at 0: student and teacher are equal there."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


def pooled_cubes(new: Tensor, old: Tensor, coordinates: Tensor, stride: int) -> Tensor:
    """L2 distance of squared features averaged over cubes of CUBES voxels' side and over 3 channels in a row,
    mean over scenes (Zhang et al., RCIL, CVPR 2022, section 3.3). Arguments as local_pod."""
    scene = coordinates[:, 0].long()
    scenes = int(scene.max()) + 1
    difference = new.float().square() - old.float().square()
    squared_distance = difference.new_zeros(scenes)
    for side in CUBES:
        cubes = torch.cat(
            [scene[:, None], coordinates[:, 1:].long().div(side * stride, rounding_mode="floor")], 1
        )
        cubes, cube = torch.unique(cubes, dim=0, return_inverse=True)
        sums = difference.new_zeros(len(cubes), difference.shape[1]).index_add(0, cube, difference)
        means = sums / torch.bincount(cube, minlength=len(cubes))[:, None]
        squared_distance = squared_distance.index_add(0, cubes[:, 0], means.square().sum(1))
    over_channels = torch.nn.functional.avg_pool1d(difference[:, None], 3, stride=1)[:, 0]
    squared_distance = squared_distance.index_add(0, scene, over_channels.square().sum(1))
    return mean_over(root(squared_distance).sum(), scenes)
