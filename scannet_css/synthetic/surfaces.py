"""Surface patches: what every synthetic object is made of, and how patches become an irregular triangle mesh.

A patch is a small grid of control points, read bilinearly: two by two for a rectangle, more for anything
curved.
Frames: x to the right along a wall, y into the room, z up; metres. Seen from outside a patch's first axis
runs to the right and its second upwards, so that its normal (first x second) points outwards.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np


class Finish(NamedTuple):
    """Colour (three numbers 0..255) and the name of a texture of `paint.py`."""

    colour: tuple[float, float, float]
    texture: str = "plain"


@dataclass(frozen=True)
class Patch:
    """A surface: `grid` (A, B, 3) control points, its finish, and whether it is seen from behind as well."""

    grid: np.ndarray
    finish: Finish
    two_sided: bool = False

    def moved(self, yaw: float, offset: tuple[float, float, float]) -> "Patch":
        """The patch turned about z by `yaw` (radians), then shifted."""
        return replace(self, grid=turned(self.grid, yaw) + np.asarray(offset, dtype=float))

    def lengths(self) -> tuple[float, float]:
        """Mean arc length along the first and the second axis, metres."""
        along = np.linalg.norm(np.diff(self.grid, axis=0), axis=-1).sum(0).mean()
        across = np.linalg.norm(np.diff(self.grid, axis=1), axis=-1).sum(1).mean()
        return float(along), float(across)


def turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """Points (..., 3) turned about z by `yaw` radians."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=-1)


@dataclass
class Piece:
    """One annotated object: its raw category (a row of the label map) and its surfaces."""

    category: str
    patches: list[Patch] = field(default_factory=list)

    def moved(self, yaw: float, offset: tuple[float, float, float]) -> "Piece":
        return Piece(self.category, [patch.moved(yaw, offset) for patch in self.patches])

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner (3,) of the axis-aligned box."""
        points = np.concatenate([patch.grid.reshape(-1, 3) for patch in self.patches])
        return points.min(0), points.max(0)


Pieces = list[Piece]


def bounds(pieces: Pieces) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner (3,) of the box around all pieces."""
    corners = [piece.bounds() for piece in pieces]
    return np.min([low for low, _ in corners], axis=0), np.max([high for _, high in corners], axis=0)


def moved(pieces: Pieces, yaw: float = 0.0, offset: tuple[float, float, float] = (0, 0, 0)) -> Pieces:
    """All pieces turned about z by `yaw`, then shifted."""
    return [piece.moved(yaw, offset) for piece in pieces]


def quad(origin, right, up, finish: Finish, two_sided: bool = False) -> Patch:
    """The parallelogram spanned by `right` and `up` at `origin`."""
    origin, right, up = (np.asarray(value, dtype=float) for value in (origin, right, up))
    grid = np.array([[origin, origin + up], [origin + right, origin + right + up]])
    return Patch(grid, finish, two_sided)


def box(
    low, high, finish: Finish, skip: tuple[str, ...] = ("bottom",), front: Finish | None = None
) -> list[Patch]:
    """The sides of an axis-aligned box; `skip` names those left out (back, front, left, right, top, bottom).

    Front is the side towards +y; it may have a finish of its own.
    """
    (x0, y0, z0), (x1, y1, z1) = low, high
    w, d, h = x1 - x0, y1 - y0, z1 - z0
    sides = {
        "back": ((x0, y0, z0), (w, 0, 0), (0, 0, h)),
        "front": ((x1, y1, z0), (-w, 0, 0), (0, 0, h)),
        "left": ((x0, y1, z0), (0, -d, 0), (0, 0, h)),
        "right": ((x1, y0, z0), (0, d, 0), (0, 0, h)),
        "top": ((x0, y0, z1), (w, 0, 0), (0, d, 0)),
        "bottom": ((x0, y1, z0), (w, 0, 0), (0, -d, 0)),
    }
    return [
        quad(*corner, front if name == "front" and front else finish)
        for name, corner in sides.items()
        if name not in skip
    ]


def lathe(centre, profile, finish: Finish, power: float = 2.0, sides: int = 24) -> Patch:
    """Superellipse rings stacked along z: `profile` rows are (half width x, half depth y, z) above `centre`.

    `power` 2 gives ellipses, 4 and more rounded rectangles. Going up the profile the outside is outside; a
    profile that goes down again gives the inside of a bowl.
    """
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    cos, sin = np.cos(angle), np.sin(angle)
    ring_x = np.sign(cos) * np.abs(cos) ** (2 / power)
    ring_y = np.sign(sin) * np.abs(sin) ** (2 / power)
    rows = np.asarray(profile, dtype=float)
    grid = np.empty((sides + 1, len(rows), 3))
    grid[..., 0] = centre[0] + ring_x[:, None] * rows[:, 0]
    grid[..., 1] = centre[1] + ring_y[:, None] * rows[:, 1]
    grid[..., 2] = centre[2] + rows[:, 2]
    return Patch(grid, finish)


def post(start, end, radius: float, finish: Finish, sides: int = 6) -> Patch:
    """A thin bar from `start` to `end`: table legs, handles, rods."""
    start, end = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    axis = (end - start) / np.linalg.norm(end - start)
    helper = np.array([0.0, 1.0, 0.0]) if abs(axis[2]) > 0.7 else np.array([0.0, 0.0, 1.0])
    first = np.cross(helper, axis)
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    angle = np.linspace(0, 2 * np.pi, sides + 1)[:, None]
    ring = radius * (np.cos(angle) * first + np.sin(angle) * second)
    return Patch(np.stack([start + ring, end + ring], axis=1), finish)


def sheet(
    x0: float,
    x1: float,
    z0: float,
    z1: float,
    y: float,
    wave: float,
    folds: float,
    finish: Finish,
    phase: float = 0.0,
    two_sided: bool = True,
) -> Patch:
    """Hanging cloth that looks towards +y: `folds` waves of amplitude `wave`, deeper at the lower hem."""
    across = np.linspace(0, 1, int(8 * folds) + 2)[:, None]
    down = np.linspace(0, 1, 4)[None, :]
    ripple = np.sin(2 * np.pi * (folds * across + 0.06 * np.sin(5 * across)) + phase)
    grid = np.empty((across.size, down.size, 3))
    grid[..., 0] = x1 + (x0 - x1) * across
    grid[..., 1] = y + wave * (1.15 - 0.4 * down) * ripple
    grid[..., 2] = z0 + (z1 - z0) * down
    return Patch(grid, finish, two_sided)


@dataclass
class Mesh:
    """Vertices with all that later stages need to know about each of them; P vertices, F faces."""

    points: np.ndarray  # (P, 3) float64, metres
    faces: np.ndarray  # (F, 3) int64
    patch: np.ndarray  # (P,) int64, index of the patch
    position: np.ndarray  # (P, 2) float64, metres along the patch's two axes


def cell_counts(patches: list[Patch], spacing: np.ndarray) -> np.ndarray:
    """Cells along both axes (len(patches), 2), at least one, for a vertex distance per patch (metres)."""
    lengths = np.array([patch.lengths() for patch in patches])
    return np.maximum(np.rint(lengths / spacing[:, None]), 1).astype(np.int64)


def triangulate(patches: list[Patch], cells: np.ndarray, rng: np.random.Generator) -> Mesh:
    """Samples every patch on a warped, jittered grid with random diagonals: an irregular mesh like a
    decimated scan.
    """
    points, faces, owner, position = [], [], [], []
    first = 0
    for index, (patch, (along, across)) in enumerate(zip(patches, cells.tolist(), strict=True)):
        u = _warped(along, rng)[:, None] + _jitter(along, across, rng)
        v = _warped(across, rng)[None, :] + _jitter(across, along, rng).T
        points.append(_interpolate(patch.grid, u.ravel(), v.ravel()))
        faces.append(_grid_faces(along, across, rng) + first)
        owner.append(np.full(u.size, index))
        length_u, length_v = patch.lengths()
        position.append(np.stack([u.ravel() * length_u, v.ravel() * length_v], axis=1))
        first += u.size
    return Mesh(
        np.concatenate(points), np.concatenate(faces), np.concatenate(owner), np.concatenate(position)
    )


def _warped(cells: int, rng: np.random.Generator) -> np.ndarray:
    """Monotone positions 0..1 whose density varies smoothly: decimation is never uniform."""
    even = np.linspace(0, 1, cells + 1)
    waves = 2 * np.pi * rng.integers(1, 4)
    return even + 0.2 * (np.sin(waves * even + rng.uniform(0, 2 * np.pi)) * even * (1 - even)) / waves * 4


def _jitter(cells: int, other: int, rng: np.random.Generator) -> np.ndarray:
    shift = rng.uniform(-0.24, 0.24, (cells + 1, other + 1)) / cells
    shift[0] = shift[-1] = 0
    return shift


def _interpolate(grid: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear, with both axes measured by arc length so that vertices spread evenly."""
    row, s = _locate(grid, u, 0)
    column, t = _locate(grid, v, 1)
    low = grid[row, column] * (1 - t) + grid[row, column + 1] * t
    high = grid[row + 1, column] * (1 - t) + grid[row + 1, column + 1] * t
    return low * (1 - s) + high * s


def _locate(grid: np.ndarray, value: np.ndarray, axis: int) -> tuple[np.ndarray | int, np.ndarray]:
    if grid.shape[axis] == 2:
        return 0, value[:, None]
    steps = np.linalg.norm(np.diff(grid, axis=axis), axis=-1).mean(axis=1 - axis)
    knots = np.concatenate([[0.0], np.cumsum(steps)])
    knots = knots / knots[-1]
    index = np.clip(np.searchsorted(knots, value, side="right") - 1, 0, len(knots) - 2)
    width = np.maximum(knots[index + 1] - knots[index], 1e-12)
    return index, ((value - knots[index]) / width)[:, None]


def _grid_faces(along: int, across: int, rng: np.random.Generator) -> np.ndarray:
    corner = (np.arange(along)[:, None] * (across + 1) + np.arange(across)).ravel()
    a, b, c, d = corner, corner + across + 1, corner + across + 2, corner + 1
    falling = rng.random(corner.size) < 0.5
    first = np.where(falling[:, None], np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(falling[:, None], np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return np.concatenate([first, second])


def vertex_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (P, 3); zero where a vertex has no face."""
    a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
    face_normals = np.cross(b - a, c - a)
    normals = np.stack(
        [
            sum(np.bincount(faces[:, corner], face_normals[:, axis], len(points)) for corner in range(3))
            for axis in range(3)
        ],
        axis=1,
    )
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.maximum(length, 1e-12)
