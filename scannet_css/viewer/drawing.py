"""Pictures of scans: a z-buffer renderer in numpy, seen in perspective from above."""

from itertools import pairwise

import numpy as np

SUPERSAMPLING = 2
FIELD_OF_VIEW = np.deg2rad(40)
BUCKETS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 30, 45, 1e9)  # triangles by their size in pixels
CUT_HEIGHT = 2.0  # metres above the lowest point; without faces everything higher is left out
PAPER = 255


def render(
    points: np.ndarray,
    colours: np.ndarray,
    size: tuple[int, int] = (640, 480),
    azimuth: float = 35.0,
    elevation: float = 50.0,
    faces: np.ndarray | None = None,
) -> np.ndarray:
    """A picture (h, w, 3) uint8 of points (P, 3) in metres with colours (P, 3) uint8; `size` is (w, h).

    `azimuth` and `elevation` (degrees) say where the camera stands, seen from the middle of the scan. With
    `faces` (F, 3) triangles are drawn, and those seen from behind are not: ceiling and near walls vanish and
    the view into the room is free. Without, points are drawn as small squares and those under the ceiling are
    cut away.
    """
    width, height = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
    points, colours = np.asarray(points, dtype=np.float32), np.asarray(colours, dtype=np.float32)
    if len(points) == 0:
        return np.full((size[1], size[0], 3), PAPER, dtype=np.uint8)
    if faces is None:
        kept = points[:, 2] < points[:, 2].min() + CUT_HEIGHT
        points, colours = points[kept], colours[kept]
    pixels, depth = _project(points, width, height, azimuth, elevation)
    if faces is None:
        spots, depth, colours = _squares(pixels, depth, colours, width, height)
    else:
        spots, depth, colours = _triangles(points, pixels, depth, colours, np.asarray(faces, dtype=np.int64))
    picture = _nearest(spots, depth, colours, width, height)
    picture = picture.reshape(size[1], SUPERSAMPLING, size[0], SUPERSAMPLING, 3).mean(axis=(1, 3))
    return np.rint(picture).astype(np.uint8)


def _project(points, width, height, azimuth, elevation) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (P, 2) and depth (P,) with the whole scan fitted into the picture."""
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    towards = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    up = np.cross(towards, right)
    low, high = points.min(0), points.max(0)
    local = points - (low + high) / 2
    distance = 1.1 * np.linalg.norm(high - low) / (2 * np.tan(FIELD_OF_VIEW / 2))
    depth = distance - local @ towards
    flat = np.stack([local @ right, -(local @ up)], axis=1) / depth[:, None]
    low, high = flat.min(0), flat.max(0)
    scale = 0.96 * np.min(np.array([width, height]) / np.maximum(high - low, 1e-9))
    return (flat - (low + high) / 2) * scale + np.array([width, height]) / 2, depth


def _squares(pixels, depth, colours, width, height):
    """Every point as a square large enough to close the gaps to its neighbours."""
    # the points cover about half of the picture, unevenly: 0.8 of their mean distance leaves few holes
    reach = int(np.clip(np.ceil(0.8 * np.sqrt(width * height / max(len(pixels), 1))), 1, 14))
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), axis=-1).reshape(-1, 2)
    spots = (pixels[:, None] + steps).reshape(-1, 2)
    return spots, np.repeat(depth, len(steps)), np.repeat(colours, len(steps), axis=0)


def _triangles(points, pixels, depth, colours, faces):
    """Samples of the triangles that look at the camera, dense enough to leave no pixel out, softly lit."""
    a, b, c = (pixels[faces[:, k]] for k in range(3))
    first, second = b - a, c - a
    # the picture's y axis points down, so triangles that look at the camera run clockwise on it
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    faces = faces[area < 0]
    corners = points[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    light = 0.78 + 0.16 * normal[:, 2] + 0.08 * normal[:, 0] - 0.05 * normal[:, 1]
    flat = pixels[faces]
    longest = np.maximum(np.ptp(flat[..., 0], axis=1), np.ptp(flat[..., 1], axis=1))
    spots, depths, painted = [], [], []
    for low, high in pairwise(BUCKETS):
        rows = np.flatnonzero((longest >= low) & (longest < high))
        if not rows.size:
            continue
        weights = _barycentric(int(np.ceil(1.1 * min(high, longest[rows].max()))))
        spots.append((weights @ flat[rows]).reshape(-1, 2))
        depths.append((depth[faces[rows]] @ weights.T).ravel())
        painted.append(((weights @ colours[faces[rows]]) * light[rows, None, None]).reshape(-1, 3))
    return np.concatenate(spots), np.concatenate(depths), np.concatenate(painted)


def _barycentric(steps: int) -> np.ndarray:
    """Weights (S, 3) of an even grid over a triangle, corners included."""
    i, j = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")
    inside = i + j <= steps
    weights = np.stack([steps - i[inside] - j[inside], i[inside], j[inside]], axis=1)
    return weights.astype(np.float32) / steps


def _nearest(spots, depth, colours, width, height) -> np.ndarray:
    column, row = np.floor(spots).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = (row * width + column)[inside]
    depth, colours = depth[inside], colours[inside]
    nearest = np.full(width * height, np.inf)
    np.minimum.at(nearest, pixel, depth)
    winner = np.flatnonzero(depth <= nearest[pixel])
    picture = np.full((height * width, 3), float(PAPER))
    picture[pixel[winner]] = np.clip(colours[winner], 0, 255)
    return picture.reshape(height, width, 3)
