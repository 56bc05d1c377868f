"""A view of a room: photo, label and depth, as a hand-held camera would take them."""

from dataclasses import dataclass

import numpy as np

from scannet_css.synthetic.paint import light, phases, textured
from scannet_css.synthetic.rooms import Room
from scannet_css.synthetic.scanning import categories
from scannet_css.synthetic.surfaces import Patch
from scannet_css.synthetic.zbuffer import Camera, Surfaces, cast

FINER = 2  # rays along each side of a pixel, for the photo
NOISE = (3.0, 1.5)  # standard deviation of a pixel: of all its channels together, of each


@dataclass(frozen=True)
class View:
    """One view of H x W pixels."""

    photo: np.ndarray  # (H, W, 3) uint8
    nyu40: np.ndarray  # (H, W) uint8, 0 where nothing was seen
    depth: np.ndarray  # (H, W) float64, metres along the camera's axis, 0 where nothing was seen
    camera: Camera


class Painter:
    """Gives surfaces of a room their colours; the light of a room is the same in all its views."""

    def __init__(self, patches: list[Patch], seed: list[int]) -> None:
        self.patches, self.seed = patches, seed
        self.phases = phases(patches, np.random.default_rng([*seed, 0]))

    def paint(self, points, normals, position, patch, rng: np.random.Generator) -> np.ndarray:
        """Colours (P, 3) float64 at points (P, 3) of the room; `rng` gives the grain of the materials."""
        colour = textured(points, position, patch, self.patches, self.phases, rng)
        return colour * light(points, normals, np.random.default_rng([*self.seed, 1]))[:, None]


def render(
    room: Room, surfaces: Surfaces, camera: Camera, painter: Painter, rng: np.random.Generator
) -> View:
    """What a camera sees. Labels and depth are those of the rays through the middles of the pixels."""
    triangle, depth = cast(surfaces, camera)
    ids = np.array([categories().get(piece.category, {"nyu40": 0})["nyu40"] for piece in room.pieces])
    labels = np.append(ids[surfaces.owner[surfaces.patch]], 0)[triangle]
    fine = _photo(surfaces, camera.resized(FINER), painter, rng)
    photo = fine.reshape(camera.height, FINER, camera.width, FINER, 3).mean(axis=(1, 3))
    photo *= rng.normal(1.0, 0.02, 3) * rng.uniform(0.9, 1.1)
    photo += rng.normal(0, NOISE[0], (*labels.shape, 1)) + rng.normal(0, NOISE[1], photo.shape)
    return View(
        photo=np.clip(np.rint(photo), 0, 255).astype(np.uint8),
        nyu40=labels.astype(np.uint8),
        depth=np.where(triangle >= 0, depth, 0.0),
        camera=camera,
    )


def _photo(surfaces: Surfaces, camera: Camera, painter: Painter, rng: np.random.Generator) -> np.ndarray:
    """Colours (H, W, 3) float64, black where nothing is seen."""
    triangle, depth = cast(surfaces, camera)
    row, column = np.nonzero(triangle >= 0)
    face, z = triangle[row, column], depth[row, column]
    x, y = camera.rays()
    ray = np.stack([x[column] * z, y[row] * z, z], axis=1)
    points = camera.pose[:3, 3] + sum(ray[:, a, None] * camera.pose[:3, a] for a in range(3))
    corners, positions = surfaces.corners[face], surfaces.positions[face]
    normals, shares = _flat(corners, points)
    position = (shares[..., None] * positions).sum(axis=1)
    facing = (normals * ray_to_room(ray, camera)).sum(axis=1)
    normals = np.where((facing > 0)[:, None], -normals, normals)
    photo = np.zeros((camera.height, camera.width, 3))
    photo[row, column] = painter.paint(points, normals, position, surfaces.patch[face], rng)
    return photo


def ray_to_room(ray: np.ndarray, camera: Camera) -> np.ndarray:
    """Directions (P, 3) in the camera's frame as ones in the room's."""
    return sum(ray[:, a, None] * camera.pose[:3, a] for a in range(3))


def _flat(corners: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (P, 3) of triangles (P, 3, 3), and the share (P, 3) of each corner in a point on it."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    squared = np.maximum((normal * normal).sum(axis=1, keepdims=True), 1e-24)
    second = (np.cross(points - a, c - a) * normal).sum(axis=1, keepdims=True) / squared
    third = (np.cross(b - a, points - a) * normal).sum(axis=1, keepdims=True) / squared
    return normal / np.sqrt(squared), np.concatenate([1 - second - third, second, third], axis=1)
