"""Which surface of a room a camera sees in each pixel, and how far away: a z-buffer in numpy.

A pixel's ray meets a triangle where its three edge functions have one sign (Olano and Greer, Triangle Scan
Conversion using 2D Homogeneous Coordinates, 1997). They are taken from the corners as the camera sees them,
without projecting these, so that nothing has to be cut at the camera's plane.
"""

from dataclasses import dataclass, replace

import numpy as np

from scannet_css.synthetic.rooms import Room
from scannet_css.synthetic.surfaces import Patch

NEAR = 0.02  # metres in front of the camera; what is nearer is not seen


@dataclass(frozen=True)
class Camera:
    """A pinhole camera of `width` x `height` pixels and a focal length in pixels.

    pose (4, 4) leads from the camera's frame (x right, y down, z forward) to the room's.
    """

    width: int
    height: int
    focal: float
    pose: np.ndarray

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """x (W,) and y (H,) of the rays through the middles of the pixels, where z is 1."""
        columns, rows = np.arange(self.width) + 0.5, np.arange(self.height) + 0.5
        return (columns - self.width / 2) / self.focal, (rows - self.height / 2) / self.focal

    def resized(self, factor: float) -> "Camera":
        """The same view in `factor` times as many columns and rows."""
        size = (round(self.width * factor), round(self.height * factor))
        return Camera(*size, self.focal * factor, self.pose)


@dataclass(frozen=True)
class Surfaces:
    """The surfaces of a room as T triangles."""

    corners: np.ndarray  # (T, 3, 3) float64: corner, axis; metres
    positions: np.ndarray  # (T, 3, 2) float64: metres along the patch's two axes
    patch: np.ndarray  # (T,) int64, index of the patch
    patches: list[Patch]
    owner: np.ndarray  # (patches,) int64, index of the piece

    def larger_than(self, area: float) -> "Surfaces":
        """Only the triangles of more than `area` square metres."""
        a, b, c = (self.corners[:, k] for k in range(3))
        large = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2 > area
        return replace(
            self, corners=self.corners[large], positions=self.positions[large], patch=self.patch[large]
        )


def surfaces_of(room: Room) -> Surfaces:
    """All surfaces of a room; walls have holes where a door, a window or a picture is let into them."""
    patches = [patch for piece in room.pieces for patch in piece.patches]
    owner = np.repeat(np.arange(len(room.pieces)), [len(piece.patches) for piece in room.pieces])
    holes = room.flush_boxes()
    corners, positions, index = [], [], []
    for number, patch in enumerate(patches):
        grid, place = _cells(patch, holes if room.pieces[owner[number]].category == "wall" else [])
        corners.append(grid)
        positions.append(place)
        index.append(np.full(len(grid), number))
    return Surfaces(np.concatenate(corners), np.concatenate(positions), np.concatenate(index), patches, owner)


def _cells(patch: Patch, holes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (T, 3, 3) of a patch between its control points, and their positions on it (T, 3, 2)."""
    grid, lengths = patch.grid, patch.lengths()
    u, v = (np.linspace(0, 1, count) for count in grid.shape[:2])
    if holes and grid.shape[:2] == (2, 2):
        u, v = (_with_edges(grid, axis, holes) for axis in (0, 1))
        first, second = grid[1, 0] - grid[0, 0], grid[0, 1] - grid[0, 0]
        grid = grid[0, 0] + u[:, None, None] * first + v[None, :, None] * second
    place = np.stack(np.meshgrid(u * lengths[0], v * lengths[1], indexing="ij"), axis=-1)
    quads = [(slice(None, -1), slice(None, -1)), (slice(1, None), slice(None, -1))]
    quads += [(slice(1, None), slice(1, None)), (slice(None, -1), slice(1, None))]
    a, b, c, d = (grid[quad].reshape(-1, 3) for quad in quads)
    p, q, r, s = (place[quad].reshape(-1, 2) for quad in quads)
    corners = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    positions = np.concatenate([np.stack([p, q, r], 1), np.stack([p, r, s], 1)])
    middle = np.tile((a + c) / 2, (2, 1))
    kept = np.ones(len(corners), bool)
    for hole in holes:
        kept &= ~((middle > hole[:3]) & (middle < hole[3:])).all(axis=1)
    return corners[kept], positions[kept]


def _with_edges(grid: np.ndarray, axis: int, holes: list[np.ndarray]) -> np.ndarray:
    """Shares 0 to 1 along one side of a rectangle, also where the holes begin and end."""
    start = grid[0, 0]
    side = (grid[1, 0] if axis == 0 else grid[0, 1]) - start
    ends = [(np.array([hole[:3], hole[3:]]) - start) @ side / (side @ side) for hole in holes]
    return np.unique(np.clip(np.concatenate([[0.0, 1.0], *ends]), 0, 1))


def cast(surfaces: Surfaces, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """The triangle (H, W) int64 that each pixel sees, -1 for none, and its depth (H, W) float64: metres along
    the camera's axis, infinite for none. Of two at one depth the first counts; a patch that is not two-sided
    is not seen from behind."""
    seen, edges, there = _before(surfaces, camera)
    x, y = camera.rays()
    bounds = _bounds(seen, camera)
    depth = np.full((camera.height, camera.width), np.inf)
    triangle = np.full(depth.shape, -1)
    for face in there.tolist():
        left, top, right, bottom = bounds[face].tolist()
        if left >= right or top >= bottom:
            continue
        window = np.s_[top:bottom, left:right]
        weights = _weights(edges[face, :9].reshape(3, 3), x[None, left:right], y[top:bottom, None])
        inside = (weights >= 0).all(axis=0)
        if not inside.any():
            continue
        with np.errstate(divide="ignore"):
            distance = edges[face, 9] / (weights[0] + weights[1] + weights[2])
        nearer = inside & (distance < depth[window]) & (distance > NEAR)
        depth[window][nearer] = distance[nearer]
        triangle[window][nearer] = face
    return triangle, depth


def _before(surfaces: Surfaces, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The corners (T, 3, 3) as the camera sees them; of each triangle the edge functions and what depth times
    their sum is (T, 9 + 1); and the numbers of those that may be seen."""
    seen = _seen_by(camera, surfaces.corners)
    edges, volume = _edge_functions(seen)
    two_sided = np.array([patch.two_sided for patch in surfaces.patches])[surfaces.patch]
    facing = (volume < 0) | (two_sided & (volume > 0))
    before = (seen[..., 2] > NEAR).any(axis=1)
    edges = edges * np.sign(volume)[:, None, None]
    functions = np.concatenate([edges.reshape(-1, 9), np.abs(volume)[:, None]], axis=1)
    return seen, functions, np.flatnonzero(facing & before)


def _weights(edges: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The three edge functions at rays (x, y, 1)."""
    return np.stack([edges[k, 0] * x + (edges[k, 1] * y + edges[k, 2]) for k in range(3)])


def _seen_by(camera: Camera, corners: np.ndarray) -> np.ndarray:
    """Corners (T, 3, 3) in the camera's frame."""
    away = corners - camera.pose[:3, 3]
    rotation = camera.pose[:3, :3]
    # no matrix product: its sums may run in another order elsewhere
    return np.stack([sum(away[..., a] * rotation[a, b] for a in range(3)) for b in range(3)], axis=-1)


def _edge_functions(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edge functions (T, 3, 3) and what depth times their sum is (T,): negative where a triangle is seen from
    the side of its normal."""
    a, b, c = seen[:, 0], seen[:, 1], seen[:, 2]
    edges = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=1)
    return edges, (a * edges[:, 0]).sum(axis=1)


def _bounds(seen: np.ndarray, camera: Camera) -> np.ndarray:
    """First column and row and last but one (T, 4) int64 that each triangle can touch, none if it is behind.

    What of a triangle lies before the camera has its corners there, and where its sides come from behind.
    """
    size = np.array([camera.width, camera.height])
    following = np.roll(seen, -1, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (NEAR - seen[..., 2]) / (following[..., 2] - seen[..., 2])
        crossing = seen + share[..., None] * (following - seen)
        points = np.concatenate([seen, crossing], axis=1)
        projected = points[..., :2] / points[..., 2:] * camera.focal + size / 2
    crosses = (seen[..., 2] <= NEAR) != (following[..., 2] <= NEAR)
    there = np.concatenate([seen[..., 2] > NEAR, crosses], axis=1)[..., None]
    low = np.where(there, projected, np.inf).min(axis=1)
    high = np.where(there, projected, -np.inf).max(axis=1)
    # a pixel more on every side: which ones are inside is for the edge functions to say
    low, high = np.floor(low - 1).clip(0, size), np.ceil(high + 1).clip(0, size)
    return np.concatenate([low, high], axis=1).astype(np.int64)
