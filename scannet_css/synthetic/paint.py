"""Vertex colours of synthetic scans: materials, textures, light, camera noise."""

import json
from functools import cache
from pathlib import Path

import numpy as np

from scannet_css.synthetic.surfaces import Finish, Mesh, Patch

DATA = Path(__file__).parent / "data"


@cache
def materials() -> dict:
    """The materials of data/materials.json: texture, typical colours (0..255), spread between instances."""
    return json.loads((DATA / "materials.json").read_text(encoding="utf-8"))


def finish(rng: np.random.Generator, *names: str) -> Finish:
    """A finish of one of the named materials; every instance has its own tone."""
    material = materials()[names[rng.integers(len(names))]]
    colour = np.asarray(material["colours"][rng.integers(len(material["colours"]))], dtype=float)
    spread = material["spread"]
    colour = colour + rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    return Finish(tuple(np.clip(colour, 12, 245).tolist()), material["texture"])


def shaded(base: Finish, factor: float) -> Finish:
    """The same finish, lighter or darker."""
    return Finish(tuple(min(value * factor, 250.0) for value in base.colour), base.texture)


def paint(mesh: Mesh, normals: np.ndarray, patches: list[Patch], rng: np.random.Generator) -> np.ndarray:
    """Colours (P, 3) uint8: finish and texture of each patch, soft light, exposure, sensor noise."""
    colour = textured(mesh.points, mesh.position, mesh.patch, patches, phases(patches, rng), rng)
    colour *= light(mesh.points, normals, rng)[:, None]
    colour *= rng.normal(1.0, 0.03, 3) * rng.uniform(0.85, 1.12)
    colour += rng.normal(0, 5.0, (len(colour), 1)) + rng.normal(0, 2.5, colour.shape)
    return np.clip(np.rint(colour), 0, 255).astype(np.uint8)


def phases(patches: list[Patch], rng: np.random.Generator) -> np.ndarray:
    """A phase (patches, 4) of each patch's own, so that two objects of one material never look alike."""
    return rng.uniform(0, 2 * np.pi, (len(patches), 4))


def textured(
    points: np.ndarray,
    position: np.ndarray,
    patch: np.ndarray,
    patches: list[Patch],
    phase: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Colours (P, 3) float64 of finish and texture alone, at points (P, 3) of the patches `patch` (P,), where
    position (P, 2) is in metres along the patch's axes; `rng` gives the grain."""
    base = np.array([patch.finish.colour for patch in patches])[patch]
    names = np.array([patch.finish.texture for patch in patches])
    factor = np.ones((len(base), 1))
    offset = np.zeros_like(base)
    for name, texture in TEXTURES.items():
        rows = np.flatnonzero((names == name)[patch])
        if rows.size:
            scale, shift = texture(points[rows], position[rows], phase[patch[rows]], rng)
            factor[rows] = scale
            offset[rows] = shift
    return base * factor + offset


def light(points: np.ndarray, normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ambient light from above, one lamp or window side, darker towards the floor and in blotches."""
    side = rng.uniform(0, 2 * np.pi)
    facing = normals[:, 2] * 0.12 + (normals[:, 0] * np.cos(side) + normals[:, 1] * np.sin(side)) * 0.13
    blotches = np.zeros(len(points))
    for _ in range(4):
        wave = rng.normal(0, 1.1, 3)
        blotches += 0.035 * np.sin(points @ wave + rng.uniform(0, 2 * np.pi))
    near_floor = 0.1 * np.exp(-np.maximum(points[:, 2], 0) / 0.25) * (np.abs(normals[:, 2]) < 0.5)
    return 0.92 + facing + blotches - near_floor


def _plain(points, position, phase, rng):
    return 1 + 0.03 * np.sin(3 * position[:, :1] + phase[:, :1]), 0.0


def _plaster(points, position, phase, rng):
    return 1 + 0.03 * np.sin(1.3 * position[:, :1] + 0.9 * position[:, 1:] + phase[:, :1]), 0.0


def _fabric(points, position, phase, rng):
    return 1 + rng.normal(0, 0.07, (len(position), 1)), 0.0


def _speckle(points, position, phase, rng):
    return 1 + rng.choice([-0.22, 0.0, 0.18], (len(position), 1)), 0.0


def _wood(points, position, phase, rng):
    """Grain along one horizontal direction of the room, so that it runs on over the edges of a board."""
    along = points[:, :1] * np.cos(phase[:, 2:3]) + points[:, 1:2] * np.sin(phase[:, 2:3])
    grain = np.sin(55 * along + 2 * np.sin(3 * points[:, 2:] + phase[:, :1]) + phase[:, 1:2])
    return 1 + 0.08 * grain, 0.0


def _stripes(points, position, phase, rng):
    period = 18 + 20 * (phase[:, :1] > 3)
    return 1 + 0.1 * np.sign(np.sin(period * position[:, :1] + phase[:, 1:2])), 0.0


def _planks(points, position, phase, rng):
    board = np.floor(position[:, 1:] / 0.14)
    tone = np.sin(12.9898 * board + phase[:, :1]) * 0.1
    grain = np.sin(8 * position[:, :1] + 5 * board) * 0.04
    return 1 + tone + grain, 0.0


def _tiles(points, position, phase, rng):
    size = 0.33
    joint = (np.abs(position / size - np.rint(position / size)) * size < 0.012).any(1, keepdims=True)
    return np.where(joint, 0.72, 1.0) + rng.normal(0, 0.02, (len(position), 1)), 0.0


def _print(points, position, phase, rng):
    """What hangs in frames: broad blotches, different for each channel."""
    u, v = position[:, :1], position[:, 1:]
    channels = [
        np.sin((4 + 9 * np.sin(phase[:, k : k + 1])) * u + (5 + k) * v + phase[:, k + 1 : k + 2])
        for k in range(3)
    ]
    return 1.0, 38 * np.concatenate(channels, axis=1)


def _spines(points, position, phase, rng):
    """Rows of books: a new colour every three or four centimetres."""
    book = np.floor(position[:, :1] / 0.036) + np.floor(7 * phase[:, :1])
    hue = np.concatenate([np.sin(book * (1.7 + 0.9 * k) + phase[:, k : k + 1]) for k in range(3)], axis=1)
    return 1.0, 70 * hue


def _sky(points, position, phase, rng):
    """Window glass: bright towards the top, with the dark shapes of what stands outside."""
    height = position[:, 1:]
    dark = np.sin(2.3 * position[:, :1] + phase[:, :1]) > height * 2 - 0.8
    return 1 + 0.12 * height - 0.25 * dark, 0.0


TEXTURES = {
    "plain": _plain,
    "plaster": _plaster,
    "fabric": _fabric,
    "speckle": _speckle,
    "wood": _wood,
    "stripes": _stripes,
    "planks": _planks,
    "tiles": _tiles,
    "print": _print,
    "spines": _spines,
    "sky": _sky,
}
