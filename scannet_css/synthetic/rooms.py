"""Rooms: which archetype a scan gets, which objects stand in it, and where.

Archetypes, their shares and the chances of their objects are data (data/archetypes.json), fitted to ScanNet's
co-occurrence table. Choices are spread evenly over the scan index instead of drawn independently, so that
small sets contain every class as well.
"""

import json
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from scannet_css.synthetic.paint import DATA, finish
from scannet_css.synthetic.shapes import MAKERS
from scannet_css.synthetic.surfaces import Piece, box, moved, quad

# walls vanish behind these: they are let into the wall or lie flat on it
FLUSH = {"door", "window", "picture", "whiteboard", "mirror"}
# nothing of floor and wall is ever seen inside or behind these
SOLID = {
    "kitchen cabinet",
    "bathroom vanity",
    "cabinet",
    "file cabinet",
    "wardrobe",
    "refrigerator",
    "bathtub",
    "bed",
}


@cache
def archetypes() -> dict:
    """data/archetypes.json: `placing` per maker and `archetypes` with share, area, finishes and items."""
    return json.loads((DATA / "archetypes.json").read_text(encoding="utf-8"))


@dataclass
class Room:
    """A furnished room in its own frame: corner at the origin, walls along x and y; metres."""

    archetype: str
    size: tuple[float, float, float]
    pieces: list[Piece] = field(default_factory=list)
    taken: list[np.ndarray] = field(default_factory=list)  # boxes (6,): lower corner, upper corner
    blocks: list[np.ndarray] = field(default_factory=list)  # boxes (6,) that belong to the next room

    def flush_boxes(self) -> list[np.ndarray]:
        """Boxes (6,) inside which the wall's own surface is not there: the outlines of doors, windows,
        pictures.

        They end a little inside the outline, so that the raw edge of the hole hides behind the frame.
        """
        boxes = []
        for piece in self.pieces:
            if piece.category in FLUSH:
                low, high = piece.bounds()
                through = 0 if low[0] < 0.02 or high[0] > self.size[0] - 0.02 else 1
                inset = np.full(3, 0.05)
                inset[through] = -0.05
                low, high = low + inset, high - inset
                boxes.append(np.array([*low[:2], low[2] if low[2] > 0.1 else -1.0, *high]))
        return boxes

    def solid_boxes(self) -> list[np.ndarray]:
        """Boxes (6,) of closed furniture, a little smaller than it is."""
        boxes = [piece.bounds() for piece in self.pieces if piece.category in SOLID]
        return [
            np.array([*(low[:2] + 0.03), low[2] - 0.2, *(high - 0.03)]) for low, high in boxes
        ] + self.blocks


def choose_archetype(seed: int, stream: int, index: int) -> tuple[str, int]:
    """The archetype of scan `index` of a stream, and how many rooms of it came before.

    The archetype furthest behind its share goes next, so that every prefix of the stream has its due mix.
    """
    names = list(archetypes()["archetypes"])
    shares = np.array([archetypes()["archetypes"][name]["share"] for name in names])
    phase = np.random.default_rng([seed, stream, 1]).uniform(0, 0.5, len(names))
    counts = np.zeros(len(names), dtype=int)
    for k in range(index + 1):
        # rooms with a share below one in twenty wait for their turn; the others come early
        due = shares * (k + 1) + phase * np.minimum(shares * 10, 1) - counts
        chosen = int(np.argmax(due))
        counts[chosen] += 1
    return names[chosen], int(counts[chosen]) - 1


def choose_items(
    archetype: str, occurrence: int, seed: int, stream: int, rng: np.random.Generator
) -> list[str]:
    """Makers of the objects of the `occurrence`-th room of an archetype, in the order of placing.

    Each item with chance c comes in every 1/c-th room, with a random phase; items marked `first` come in
    the first, and an item is left out where the one named by `unless` stands already.
    """
    items = archetypes()["archetypes"][archetype]["items"]
    order = list(archetypes()["archetypes"]).index(archetype)
    phases = np.random.default_rng([seed, stream, 2, order]).random(len(items))
    makers = []
    for item, phase in zip(items, phases, strict=True):
        if item.get("unless") in makers:
            continue
        chance = item["chance"]
        start = 1 - chance * (1 - phase) if item.get("first") else phase
        if np.floor(chance * (occurrence + 1) + start) > np.floor(chance * occurrence + start):
            low, high = item.get("count", (1, 1))
            makers += [item["make"]] * int(rng.integers(low, high + 1))
    return makers


def required(archetype: str) -> set[str]:
    """Makers that the archetype is about, or that a whole class depends on."""
    items = archetypes()["archetypes"][archetype]["items"]
    return {item["make"] for item in items if item["chance"] >= 0.7 or item.get("first")}


def make_room(seed: int, stream: int, index: int, rng: np.random.Generator) -> Room:
    """A furnished room; it is made again, larger, when a required object found no place."""
    archetype, occurrence = choose_archetype(seed, stream, index)
    makers = choose_items(archetype, occurrence, seed, stream, rng)
    needed, grown = required(archetype), 1.0
    while True:
        room = _empty_room(archetype, grown, rng)
        missing = [make for make in makers if not _furnish(room, make, rng)]
        if not needed & set(missing) or grown > 2.5:
            return room
        grown *= 1.12


def _empty_room(archetype: str, grown: float, rng: np.random.Generator) -> Room:
    plan = archetypes()["archetypes"][archetype]
    area = plan["area"][0] * np.exp(rng.normal(0, plan["area"][1])) * grown
    aspect = rng.uniform(1.0, 1.7) if archetype != "hall" else rng.uniform(1.5, 2.8)
    width, depth = np.sqrt(area * aspect), np.sqrt(area / aspect)
    if rng.random() < 0.5:
        width, depth = depth, width
    room = Room(archetype, (width, depth, rng.uniform(2.45, 2.9)))
    height, paint = room.size[2], finish(rng, *plan["wall"])
    for k in range(4):
        corner, along, _, length = _wall(room, k)
        start = corner + along * length
        accent = finish(rng, *plan["wall"]) if rng.random() < 0.15 else paint
        room.pieces.append(
            Piece("wall", [quad((*start, 0), (*(-along * length), 0), (0, 0, height), accent)])
        )
    room.pieces.append(
        Piece("floor", [quad((0, 0, 0), (width, 0, 0), (0, depth, 0), finish(rng, *plan["floor"]))])
    )
    room.pieces.append(
        Piece("ceiling", [quad((0, depth, height), (width, 0, 0), (0, -depth, 0), finish(rng, "ceiling"))])
    )
    if rng.random() < 0.3 and area > 9:
        _add_notch(room, paint, rng)
    return room


def _add_notch(room: Room, paint, rng: np.random.Generator) -> None:
    """A corner of the rectangle that belongs to the next room."""
    width, depth, height = room.size
    w, d = width * rng.uniform(0.15, 0.32), depth * rng.uniform(0.15, 0.32)
    x = 0.0 if rng.random() < 0.5 else width - w
    y = 0.0 if rng.random() < 0.5 else depth - d
    skip = ("left" if x == 0 else "right", "back" if y == 0 else "front", "top", "bottom")
    room.pieces += [
        Piece("wall", [side]) for side in box((x, y, 0), (x + w, y + d, height), paint, skip=skip)
    ]
    room.taken.append(np.array([x, y, 0, x + w, y + d, height]))
    # reaches past the outer walls, which vanish there, and ends just behind the walls made here
    low = (x - 0.3 if x == 0 else x + 0.1, y - 0.3 if y == 0 else y + 0.1, -0.2)
    high = (x + w - 0.1 if x == 0 else x + w + 0.3, y + d - 0.1 if y == 0 else y + d + 0.3, height + 0.2)
    room.blocks.append(np.array([*low, *high]))


def _wall(room: Room, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Corner, unit vector along, unit vector into the room, length of wall k (anticlockwise from y = 0)."""
    width, depth, _ = room.size
    corner = np.array([(0, 0), (width, 0), (width, depth), (0, depth)][k], dtype=float)
    along = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)][k], dtype=float)
    return corner, along, np.array([-along[1], along[0]]), (width, depth)[k % 2]


def _furnish(room: Room, make: str, rng: np.random.Generator) -> bool:
    """Makes an object and finds a place for it; False if there is none."""
    placing = archetypes()["placing"].get(make, {"where": "wall"})
    pieces = MAKERS[make](rng)
    if "bottom" in placing:
        pieces = moved(pieces, 0, (0, 0, rng.uniform(*placing["bottom"])))
    boxes = np.array([np.concatenate(piece.bounds()) for piece in pieces])
    kept_free = boxes.copy()
    if "clear" in placing:
        front = boxes[0].copy()
        front[1], front[4] = 0.05, boxes[0, 4] + placing["clear"]
        kept_free = np.concatenate([boxes, front[None]])
    if placing["where"] == "wall":
        found = _along_walls(room, kept_free, rng)
    else:
        found = _on_floor(room, kept_free, placing["where"], rng)
    if found is None:
        return False
    yaw, offset, turned_boxes = found
    room.pieces += moved(pieces, yaw, offset)
    room.taken += list(turned_boxes)
    return True


def _turned_boxes(boxes: np.ndarray, quarter: int) -> np.ndarray:
    """Boxes (N, 6) turned by `quarter` right angles."""
    x0, y0, z0, x1, y1, z1 = boxes.T
    for _ in range(quarter):
        x0, y0, x1, y1 = -y1, x0, -y0, x1
    return np.stack([x0, y0, z0, x1, y1, z1], axis=1)


def _is_free(room: Room, boxes: np.ndarray, slack: float) -> np.ndarray:
    """Which of the candidates (C, N, 6) touch nothing (boxes may overlap by `slack` metres)."""
    if not room.taken:
        return np.ones(len(boxes), dtype=bool)
    taken = np.array(room.taken)
    apart = np.zeros((*boxes.shape[:2], len(taken)), dtype=bool)
    for axis in range(3):
        apart |= boxes[:, :, axis, None] + slack >= taken[:, axis + 3]
        apart |= taken[:, axis] + slack >= boxes[:, :, axis + 3, None]
    return apart.all(axis=(1, 2))


def _inside(room: Room, boxes: np.ndarray, margin: float) -> np.ndarray:
    """Which of the candidates (C, N, 6) keep `margin` metres from the walls."""
    low, high = boxes[..., :2].min(1), boxes[..., 3:5].max(1)
    return (low > margin).all(1) & (high < np.array(room.size[:2]) - margin).all(1)


def _along_walls(room: Room, boxes: np.ndarray, rng: np.random.Generator):
    gap = rng.uniform(0.0, 0.05) if boxes[:, 2].min() < 0.05 and boxes[:, 1].min() >= 0 else 0.0
    options = []
    for k in range(4):
        corner, along, inward, length = _wall(room, k)
        low, high = boxes[:, 0].min(), boxes[:, 3].max()
        places = np.arange(0.03 - low, length - 0.03 - high, 0.08)
        if not places.size or boxes[:, 4].max() + gap > room.size[(k + 1) % 2]:
            continue
        shift = corner + inward * gap + places[:, None] * along
        local = _turned_boxes(boxes, k)
        candidates = np.repeat(local[None], len(places), axis=0)
        candidates[..., [0, 1]] += shift[:, None]
        candidates[..., [3, 4]] += shift[:, None]
        good = _is_free(room, candidates, 0.02)
        options += [(k, shift[i], candidates[i]) for i in np.flatnonzero(good)]
    if not options:
        return None
    k, shift, placed = options[rng.integers(len(options))]
    return k * np.pi / 2, (*shift, 0.0), placed


def _on_floor(room: Room, boxes: np.ndarray, where: str, rng: np.random.Generator):
    """A free place away from walls; sets of furniture prefer the middle and leave room to walk."""
    width, depth, _ = room.size
    quarter = int(rng.integers(4)) if where == "free" else int(depth > width) + 2 * int(rng.integers(2))
    local = _turned_boxes(boxes, quarter)
    centre = (local[:, :2].min(0) + local[:, 3:5].max(0)) / 2
    spread = 0.5 if where == "free" else 0.3
    places = np.array([width, depth]) * (0.5 + rng.uniform(-spread, spread, (300, 2))) - centre
    candidates = np.repeat(local[None], len(places), axis=0)
    candidates[..., [0, 1]] += places[:, None]
    candidates[..., [3, 4]] += places[:, None]
    margin = 0.06
    good = np.flatnonzero(_is_free(room, candidates, -margin) & _inside(room, candidates, margin))
    if not good.size:
        return None
    chosen = good[0]
    tilt = rng.normal(0, 0.06 if where == "free" else 0.015)
    return quarter * np.pi / 2 + tilt, (*places[chosen], 0.0), candidates[chosen]
