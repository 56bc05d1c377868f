"""Where a person would stand in a room and what they would hold the camera at."""

import numpy as np

from scannet_css.synthetic.rooms import Room
from scannet_css.synthetic.zbuffer import Camera, Surfaces, cast

FIELD_OF_VIEW = np.deg2rad(62.0)  # across; ScanNet's colour camera has about 58
HEIGHTS = (1.3, 1.7)  # metres above the floor
PITCH = (np.deg2rad(-38.0), np.deg2rad(8.0))  # down, up
ROLL = np.deg2rad(2.0)  # standard deviation
FROM_WALLS, FROM_THINGS = 0.4, 0.25  # metres
CANDIDATES = 8  # looked at small, of which the best is taken
SMALL = 24  # columns of such a look
COARSE = 0.004  # square metres: triangles that such a look does without
SHELL = ("wall", "floor", "ceiling")  # what nobody holds a camera at


def choose_cameras(
    room: Room, surfaces: Surfaces, count: int, width: int, height: int, rng: np.random.Generator
) -> list[Camera]:
    """`count` cameras in a room, none alike: each the best of some random ones, see `_merit`."""
    focal = width / 2 / np.tan(FIELD_OF_VIEW / 2)
    stands, aims, coarse = _stands(room, rng), _aims(room), surfaces.larger_than(COARSE)
    chosen: list[Camera] = []
    for _ in range(count):
        candidates = []
        for _ in range(CANDIDATES):
            eye = np.array([*stands[rng.integers(len(stands))], rng.uniform(*HEIGHTS)])
            camera = Camera(width, height, focal, _pose(eye, aims[rng.integers(len(aims))], rng))
            merit = _merit(coarse, camera, room) - sum(_likeness(camera, other) for other in chosen)
            candidates.append((merit, len(candidates), camera))
        chosen.append(max(candidates)[2])
    return chosen


def _stands(room: Room, rng: np.random.Generator) -> np.ndarray:
    """Places (N, 2) on the floor that are free up to a person's height; where there are none, less free."""
    width, depth, _ = room.size
    inset = min(FROM_WALLS, 0.4 * min(width, depth))
    places = rng.uniform(inset, [width - inset, depth - inset], (400, 2))
    for distance in (FROM_THINGS, 0.1, 0.0):
        free = np.ones(len(places), bool)
        for box in room.taken:
            if box[2] < HEIGHTS[1]:
                free &= ((places < box[:2] - distance) | (places > box[3:5] + distance)).any(axis=1)
        if free.any():
            return places[free]
    return places


def _aims(room: Room) -> np.ndarray:
    """What to look at (N, 3): the middle of every thing, and of the room as often as of a few of them."""
    pieces = [piece for piece in room.pieces if piece.category not in SHELL]
    middles = [np.mean(piece.bounds(), axis=0) for piece in pieces]
    middle = np.array([room.size[0] / 2, room.size[1] / 2, 1.0])
    return np.array([*middles, *[middle] * (1 + len(middles) // 4)])


def _pose(eye: np.ndarray, aim: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(4, 4): from the camera's frame to the room's, looking nearly at `aim`, held nearly level."""
    away = aim - eye
    yaw = np.arctan2(away[1], away[0]) + rng.normal(0, np.deg2rad(9))
    pitch = np.arctan2(away[2], np.hypot(away[0], away[1])) + rng.normal(0, np.deg2rad(4))
    pitch, roll = np.clip(pitch, *PITCH), rng.normal(0, ROLL)
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    level = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    lower = np.cross(forward, level)
    right, down = np.cos(roll) * level + np.sin(roll) * lower, np.cos(roll) * lower - np.sin(roll) * level
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, down, forward], axis=1)
    pose[:3, 3] = eye
    return pose


def _merit(surfaces: Surfaces, camera: Camera, room: Room) -> float:
    """How much of the room a camera shows: its things, from far enough, and not one of them alone."""
    triangle, depth = cast(surfaces, camera.resized(SMALL / camera.width))
    seen = triangle[triangle >= 0]
    if len(seen) == 0:
        return -10.0
    pieces = np.bincount(surfaces.owner[surfaces.patch[seen]], minlength=len(room.pieces)) / triangle.size
    shell = np.array([piece.category in SHELL for piece in room.pieces])
    distance = np.quantile(depth[triangle >= 0], [0.02, 0.5])
    wanted = min(2.0, 0.4 * max(room.size[:2]))
    return (
        min((pieces[~shell] > 0.01).sum(), 6) / 6
        + min(pieces[~shell].sum(), 0.45)
        + min(distance[1] / wanted, 1.0)
        - 4 * max(0.0, 0.45 - distance[0])
        - 2 * max(0.0, pieces.max() - 0.5)
        - 2 * (triangle < 0).mean()
    )


def _likeness(camera: Camera, other: Camera) -> float:
    """Near 0.6 for two cameras that see the same from the same place."""
    apart = np.linalg.norm(camera.pose[:3, 3] - other.pose[:3, 3])
    same_way = float(sum(camera.pose[k, 2] * other.pose[k, 2] for k in range(3)))
    return 0.6 * np.exp(-apart / 0.7) * max(0.0, same_way) ** 4
