"""Augmentations of one scene, each a function on tensors, on any device.

points (P, 3) float in metres, z up; colours (P, 3) float in 0..255. Every random number comes from the
generator that is handed in, so a scene looks the same whoever computes it. The set and its strengths are
those of the public MinkowskiNet recipe for ScanNet (SpatioTemporalSegmentation).
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def _uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device)


def _happens(generator: Generator, probability: float) -> bool:
    return torch.rand((), generator=generator, device=generator.device).item() < probability


def rotate(points: Tensor, generator: Generator, tilt: float = math.pi / 64) -> Tensor:
    """Any angle about z, then at most `tilt` radians about x and y."""
    angles = _uniform(generator, -1, 1, 3) * torch.tensor([tilt, tilt, math.pi], device=generator.device)
    rotation = torch.eye(3, device=points.device, dtype=points.dtype)
    for axis in (2, 0, 1):
        sine, cosine = math.sin(angles[axis]), math.cos(angles[axis])
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3, device=points.device, dtype=points.dtype)
        turn[first, first] = turn[second, second] = cosine
        turn[first, second], turn[second, first] = -sine, sine
        rotation = turn @ rotation
    return points @ rotation.T


def flip(points: Tensor, generator: Generator) -> Tensor:
    """Mirrors x and y, each with probability one half."""
    signs = torch.ones(3, device=points.device, dtype=points.dtype)
    for axis in (0, 1):
        if _happens(generator, 0.5):
            signs[axis] = -1
    return points * signs


def scale(points: Tensor, generator: Generator, low: float = 0.9, high: float = 1.1) -> Tensor:
    """One factor for all axes, uniform between `low` and `high`."""
    return points * _uniform(generator, low, high, 1).to(points)


def translate(points: Tensor, generator: Generator, distance: float = 1.0) -> Tensor:
    """Shifts by up to `distance` metres along each axis, which moves the voxel grid against the scene."""
    return points + _uniform(generator, -distance, distance, 3).to(points)


def elastic(points: Tensor, generator: Generator, granularity: float, magnitude: float) -> Tensor:
    """Smooth random displacement: blurred noise on a grid of `granularity` metres, `magnitude` in metres."""
    low = points.amin(0)
    cells = ((points.amax(0) - low) / granularity).ceil().long() + 3
    noise = torch.randn(3, *cells.tolist(), generator=generator, device=generator.device).to(points)
    for _ in range(2):
        noise = F.avg_pool3d(noise, 3, stride=1, padding=1, count_include_pad=False)
    position = (points - low) / granularity / (cells - 1) * 2 - 1
    grid = position.flip(1)[None, :, None, None]  # grid_sample wants the last axis of the volume first
    shift = F.grid_sample(noise[None], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return points + shift.flatten(2)[0].T * magnitude


def auto_contrast(colours: Tensor, generator: Generator, probability: float = 0.2) -> Tensor:
    """With `probability`, blends the colours with themselves stretched to 0..255, by a random share."""
    if not _happens(generator, probability):
        return colours
    low, high = colours.amin(0), colours.amax(0)
    stretched = (colours - low) * 255 / (high - low).clamp(min=1)
    share = _uniform(generator, 0, 1, 1).to(colours)
    return (1 - share) * colours + share * stretched


def translate_colours(
    colours: Tensor, generator: Generator, ratio: float = 0.1, probability: float = 0.95
) -> Tensor:
    """With `probability`, adds one offset of up to `ratio` * 255 per channel to all points."""
    if not _happens(generator, probability):
        return colours
    offset = _uniform(generator, -ratio, ratio, 3).to(colours) * 255
    return (colours + offset).clamp(0, 255)


def jitter_colours(
    colours: Tensor, generator: Generator, deviation: float = 0.05, probability: float = 0.95
) -> Tensor:
    """With `probability`, adds Gaussian noise of `deviation` * 255 to every point's channels."""
    if not _happens(generator, probability):
        return colours
    noise = torch.randn(colours.shape, generator=generator, device=generator.device).to(colours)
    return (colours + noise * deviation * 255).clamp(0, 255)


def augment(
    points: Tensor, normals: Tensor, colours: Tensor, generator: Generator, with_elastic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The whole training augmentation: elastic (by option), rotation, flip, scale, translation, colours.

    normals (P, 3) turn with the points; elastic distortion leaves them as they are.
    """
    if with_elastic and len(points) and _happens(generator, 0.95):
        points = elastic(points, generator, granularity=0.2, magnitude=0.4)
        points = elastic(points, generator, granularity=0.8, magnitude=1.6)
    directions = flip(rotate(torch.cat([points, normals]), generator), generator)
    points, normals = directions[: len(points)], directions[len(points) :]
    points = translate(scale(points, generator), generator)
    colours = auto_contrast(colours, generator)
    colours = jitter_colours(translate_colours(colours, generator), generator)
    return points, normals, colours
