"""Distances between pooled features of two networks at the same sparse voxels, or the same cells of
images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.methods.losses import wide
from scannet_css.methods.means import mean_over

SCALES = (1, 2, 4)  # each twice the one before, so that its windows are halves of that one's
FINEST = SCALES[-1]
CUBES = (4, 8, 12, 16, 20, 24)  # voxels, or cells


def new_on_background(logits: Tensor, old_channels: int) -> Tensor:
    """(N, C) -> (N, K): the logits of the new channels are added to background's."""
    logits = wide(logits)
    background = logits[:, :1] + logits[:, old_channels:].sum(1, keepdim=True)
    return torch.cat([background, logits[:, 1:old_channels]], 1)


def local_pod(new: Tensor, old: Tensor, coordinates: Tensor, stride: int) -> Tensor:
    """L2 distance of the pooled profiles of squared features, mean over scenes.

    new, old (M, F): features of the same rows; coordinates (M, 1 + D) integer: scene and position in finest
    voxels. For each scale s and axis a scene is cut into s windows along every axis, and in each window the
    rows are averaged over all axes but that one. In an image: along its width and along its height.
    """
    scene = coordinates[:, 0].long()
    position = torch.div(coordinates[:, 1:].long(), stride, rounding_mode="floor")
    scenes, axes = int(scene.max()) + 1, position.shape[1]
    every_scene = scene[:, None].expand(-1, axes)
    low = torch.zeros(scenes, axes, dtype=torch.long, device=scene.device)
    high = low.scatter_reduce(0, every_scene, position, "amax", include_self=False)
    low = low.scatter_reduce(0, every_scene, position, "amin", include_self=False)
    position, extent = position - low[scene], (high - low)[scene] + 1
    part = (position * FINEST).div(extent, rounding_mode="floor")

    # Pooling is linear, so the difference of the squares is pooled once instead of both.
    difference = wide(new).square() - wide(old).square()
    ones = difference.new_ones(len(difference))
    squared_distance = difference.new_zeros(scenes)
    for axis, length in enumerate((high - low + 1).amax(0).tolist()):
        # A position along the axis lies in one window only, so the cells are few enough to number them all.
        cell, windows = scene, FINEST ** (axes - 1)
        for other in range(axes):
            cell = cell * FINEST + part[:, other] if other != axis else cell
        cell = cell * length + position[:, axis]
        shape = (scenes, *(FINEST,) * (axes - 1), length, -1)
        nothing = difference.new_zeros(scenes * windows * length, difference.shape[1])
        sums = nothing.index_add(0, cell, difference).view(shape)
        counts = nothing[:, 0].index_add(0, cell, ones).view(shape)
        for scale in reversed(SCALES):
            if scale < FINEST:
                sums, counts = merge_windows(sums), merge_windows(counts)
            means = sums / counts.clamp(min=1)
            squared_distance = squared_distance + means.square().flatten(1).sum(1)
    return mean_over(root(squared_distance).sum(), scenes)


def merge_windows(cells: Tensor) -> Tensor:
    """(B, 2s, ..., 2s, L, F) -> (B, s, ..., s, L, F): the sums of windows that are one at the next scale."""
    scenes, *windows, length, width = cells.shape
    halved = [size for number in windows for size in (number // 2, 2)]
    return cells.view(scenes, *halved, length, width).sum(tuple(range(2, 2 + len(halved), 2)))


def root(values: Tensor) -> Tensor:
    """Square root with gradient 0, not infinity, at 0: student and teacher are equal there."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


def pooled_cubes(new: Tensor, old: Tensor, coordinates: Tensor, stride: int) -> Tensor:
    """L2 distance of squared features averaged over windows, mean over the sides CUBES of the windows and
    over scenes (Zhang et al., RCIL, CVPR 2022, section 3.3). Arguments as local_pod.

    In images windows slide cell by cell beyond the border, where zeros count, as published; in scenes they
    are cubes side by side, and those without voxels are left out."""
    difference = wide(new).square() - wide(old).square()
    scene = coordinates[:, 0].long()
    position = torch.div(coordinates[:, 1:].long(), stride, rounding_mode="floor")
    squares = _sliding_windows if position.shape[1] == 2 else _cubes_side_by_side
    distances = [root(squares(difference, scene, position, side)).sum() for side in CUBES]
    return mean_over(sum(distances) / len(CUBES), int(scene.max()) + 1)


def _cubes_side_by_side(difference: Tensor, scene: Tensor, position: Tensor, side: int) -> Tensor:
    """(B,) sums of the squares of the means over the cubes of each scene."""
    places = torch.cat([scene[:, None], position.div(side, rounding_mode="floor")], 1)
    cubes, cube = torch.unique(places, dim=0, return_inverse=True)
    sums = difference.new_zeros(len(cubes), difference.shape[1]).index_add(0, cube, difference)
    means = sums / torch.bincount(cube, minlength=len(cubes))[:, None]
    scenes = int(scene.max()) + 1
    return difference.new_zeros(scenes).index_add(0, cubes[:, 0], means.square().sum(1))


def _sliding_windows(difference: Tensor, scene: Tensor, position: Tensor, side: int) -> Tensor:
    """The same of all windows of each image."""
    position = position - position.amin(0)
    height, width = (position.amax(0) + 1).tolist()
    place = (scene * height + position[:, 0]) * width + position[:, 1]
    scenes = int(scene.max()) + 1
    images = difference.new_zeros(scenes * height * width, difference.shape[1]).index_add(
        0, place, difference
    )
    images = images.view(scenes, height, width, -1).permute(0, 3, 1, 2)
    return F.avg_pool2d(images, side, stride=1, padding=side // 2).square().flatten(1).sum(1)


def pooled_channels(new: Tensor, old: Tensor, coordinates: Tensor) -> Tensor:
    """L2 distance of squared features averaged over 3 channels in a row (zeros count beyond the first and the
    last), mean over scenes; the second part of RCIL's distillation. Arguments as local_pod."""
    difference = wide(new).square() - wide(old).square()
    scene = coordinates[:, 0].long()
    means = F.avg_pool1d(difference[:, None], 3, stride=1, padding=1)[:, 0]
    scenes = int(scene.max()) + 1
    squared_distance = difference.new_zeros(scenes).index_add(0, scene, means.square().sum(1))
    return mean_over(root(squared_distance).sum(), scenes)
