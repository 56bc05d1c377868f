"""Augmentations of one scene, each a function on tensors, on any device.

points (P, 3) float in metres, z up; colours (P, 3) float in 0..255. Every random number comes from the
generator that is handed in, so a scene looks the same whoever computes it. The set and its strengths are
those of the public MinkowskiNet recipe for ScanNet (SpatioTemporalSegmentation).
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scannet_css.errors import InputError

_MOST_CELLS = 1 << 26  # of an elastic grid; a room has 10^5


def _uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device)


def _happens(generator: Generator, probability: float) -> bool:
    return torch.rand((), generator=generator, device=generator.device).item() < probability


def rotate(points: Tensor, generator: Generator, tilt: float = math.pi / 64) -> Tensor:
    """Any angle about z, then at most `tilt` radians about x and y."""
    shares = _uniform(generator, -1, 1, 3).tolist()
    rotation = torch.eye(3, dtype=torch.float64)
    for axis, largest in ((2, math.pi), (0, tilt), (1, tilt)):
        sine, cosine = math.sin(shares[axis] * largest), math.cos(shares[axis] * largest)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3, dtype=torch.float64)
        turn[first, first] = turn[second, second] = cosine
        turn[first, second], turn[second, first] = -sine, sine
        rotation = turn @ rotation
    # No matrix product of the points: on a GPU it may round to TF32, which is millimetres.
    x, y, z = points.unbind(1)
    return torch.stack([(a * x).add_(y, alpha=b).add_(z, alpha=c) for a, b, c in rotation.tolist()]).T


def flip(points: Tensor, generator: Generator) -> Tensor:
    """Mirrors x and y, each with probability one half."""
    signs = [-1.0 if _happens(generator, 0.5) else 1.0 for _ in range(2)]
    return points * torch.tensor([*signs, 1.0]).to(points)


def scale(points: Tensor, generator: Generator, low: float = 0.9, high: float = 1.1) -> Tensor:
    """One factor for all axes, uniform between `low` and `high`."""
    return points * _uniform(generator, low, high, 1).to(points)


def translate(points: Tensor, generator: Generator, distance: float = 1.0) -> Tensor:
    """Shifts by up to `distance` metres along each axis, which moves the voxel grid against the scene."""
    return points + _uniform(generator, -distance, distance, 3).to(points)


def elastic(points: Tensor, generator: Generator, granularity: float, magnitude: float) -> Tensor:
    """Smooth random displacement: blurred noise on a grid of `granularity` metres, `magnitude` in metres.

    Raises InputError for points that are so far apart that the grid would not fit into memory.
    """
    axes = points.T.contiguous()
    low, high = axes.amin(1, keepdim=True), axes.amax(1, keepdim=True)
    cells = [math.ceil(length / granularity) + 3 for length in (high - low).flatten().tolist()]
    if math.prod(cells) > _MOST_CELLS:
        raise InputError(
            f"points spread over {cells} cells of {granularity} m; expected at most {_MOST_CELLS} cells for "
            "elastic distortion"
        )
    # grid_sample wants the first axis of a position to be the last one of the volume
    noise = torch.randn(3, *reversed(cells), generator=generator, device=generator.device).to(points)
    for _ in range(2):
        noise = F.avg_pool3d(noise, 3, stride=1, padding=1, count_include_pad=False)
    steps = torch.tensor([[2 / (count - 1) / granularity] for count in cells]).to(points)
    grid = ((axes - low) * steps - 1).T[None, :, None, None]
    shift = F.grid_sample(noise[None], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return (axes + shift.view(3, -1) * magnitude).T


def auto_contrast(colours: Tensor, generator: Generator, probability: float = 0.2) -> Tensor:
    """With `probability`, blends the colours with themselves stretched to 0..255, by a random share."""
    if not _happens(generator, probability):
        return colours
    low, high = colours.aminmax(dim=0)
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
    return noise.mul_(deviation * 255).add_(colours).clamp_(0, 255)


def augment(
    points: Tensor, normals: Tensor, colours: Tensor, generator: Generator, with_elastic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The whole training augmentation: elastic (by option), rotation, flip, scale, translation, colours.

    normals (P, 3) turn with the points; elastic distortion leaves them as they are.
    """
    if with_elastic and len(points) and _happens(generator, 0.95):
        points = elastic(points, generator, granularity=0.2, magnitude=0.4)
        points = elastic(points, generator, granularity=0.8, magnitude=1.6)
    # Kept by columns in memory, by which what is done per axis is several times as fast.
    directions = torch.cat([points.T, normals.T], 1).T
    directions = flip(rotate(directions, generator), generator)
    points, normals = directions[: len(points)], directions[len(points) :]
    points = translate(scale(points, generator), generator)
    colours = auto_contrast(colours, generator)
    colours = jitter_colours(translate_colours(colours, generator), generator)
    return points, normals, colours
