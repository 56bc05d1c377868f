"""Cupboards, chests, shelves and other boxes that stand against walls.

Every function gives the pieces of one object or set in its own frame: back at y = 0 against the wall,
looking towards +y, centred on x = 0, standing on z = 0; metres. What is let into a wall has negative y.
"""

import numpy as np

from scannet_css.synthetic.paint import finish, shaded
from scannet_css.synthetic.shapes.seating import bed
from scannet_css.synthetic.shapes.small import lamp, on_top
from scannet_css.synthetic.surfaces import Finish, Patch, Piece, Pieces, box, moved, post, quad


def drawers(
    x: float, width: float, front: float, low: float, high: float, count: int, face: Finish, metal: Finish
) -> list[Patch]:
    """Protruding drawer fronts with a bar handle each, looking towards +y at y = `front`."""
    patches = []
    step = (high - low) / count
    for k in range(count):
        z = low + k * step
        patches += box(
            (x - width / 2, front, z + 0.01),
            (x + width / 2, front + 0.02, z + step - 0.01),
            face,
            skip=("back", "bottom"),
        )
        patches.append(
            post(
                (x - width * 0.2, front + 0.045, z + step * 0.65),
                (x + width * 0.2, front + 0.045, z + step * 0.65),
                0.012,
                metal,
            )
        )
    return patches


def door_fronts(x0, x1, front, z0, z1, face: Finish, metal: Finish, width: float = 0.45) -> list[Patch]:
    """Protruding cupboard doors with upright handles, looking towards +y at y = `front`."""
    count = max(1, int(round((x1 - x0) / width)))
    step, patches = (x1 - x0) / count, []
    for k in range(count):
        left, right = x0 + k * step + 0.012, x0 + (k + 1) * step - 0.012
        patches += box(
            (left, front, z0 + 0.012), (right, front + 0.022, z1 - 0.012), face, skip=("back", "bottom")
        )
        x = right - 0.05 if k % 2 == 0 else left + 0.05
        middle = z1 - 0.18 if z0 < 0.6 and z1 < 1.2 else (z0 + z1) / 2
        patches.append(
            post((x, front + 0.045, middle - 0.09), (x, front + 0.045, middle + 0.09), 0.012, metal)
        )
    return patches


def cabinet(rng) -> Pieces:
    """Closed low cupboard with doors or drawers."""
    w, d, h = rng.uniform(0.6, 1.3), rng.uniform(0.38, 0.55), rng.uniform(0.7, 1.1)
    wood, metal = finish(rng, "wood", "white", "grey"), finish(rng, "metal", "dark")
    patches = box((-w / 2, 0, 0), (w / 2, d, h), shaded(wood, 0.92))
    patches += door_fronts(-w / 2, w / 2, d, 0.06, h, wood, metal)
    return [Piece("cabinet", patches), *on_top(rng, 0, d / 2, h, w, d, int(rng.integers(0, 3)))]


def file_cabinet(rng) -> Pieces:
    w, d, h = rng.uniform(0.4, 0.9), rng.uniform(0.45, 0.6), rng.choice([0.7, 1.05, 1.35])
    metal = finish(rng, "grey", "white", "metal")
    patches = box((-w / 2, 0, 0), (w / 2, d, h), metal)
    patches += drawers(
        0, w - 0.02, d, 0.04, h - 0.01, int(h / 0.33), shaded(metal, 1.05), finish(rng, "dark", "metal")
    )
    return [Piece("file cabinet", patches)]


def wardrobe(rng) -> Pieces:
    w, d, h = rng.uniform(0.9, 1.8), rng.uniform(0.52, 0.62), rng.uniform(1.75, 2.15)
    wood, metal = finish(rng, "wood", "white"), finish(rng, "metal", "dark")
    patches = box((-w / 2, 0, 0), (w / 2, d, h), shaded(wood, 0.92))
    return [Piece("wardrobe", patches + door_fronts(-w / 2, w / 2, d, 0.08, h, wood, metal, 0.5))]


def bookshelf(rng) -> Pieces:
    """Open shelves with rows of books."""
    w, d, h = rng.uniform(0.8, 1.25), rng.uniform(0.28, 0.38), rng.uniform(1.5, 2.15)
    wood, t = finish(rng, "wood", "white", "wood", "dark"), 0.03
    patches = [quad((w / 2, 0.01, 0), (-w, 0, 0), (0, 0, h), shaded(wood, 0.8))]
    for x in (-w / 2, w / 2 - t):
        patches += box((x, 0, 0), (x + t, d, h), wood)
    patches += box((-w / 2, 0, h - t), (w / 2, d, h), wood, skip=())
    pieces, levels = [Piece("bookshelf", patches)], np.linspace(0.06, h - t, int(h / 0.33) + 1)
    loose = rng.random() < 0.25
    for low, high in zip(levels[:-1], levels[1:], strict=True):
        patches += box((-w / 2 + t, 0, low - t), (w / 2 - t, d, low), wood, skip=("left", "right"))
        if rng.random() < 0.12:
            continue
        row = _book_row(rng, -w / 2 + t, rng.uniform(0.45, 1.0) * (w - 2 * t), d, low, high - low - t)
        if loose:
            pieces.append(Piece("books", row))
        else:
            patches += row
    return pieces


def _book_row(rng, x0: float, width: float, depth: float, z: float, room: float) -> list[Patch]:
    """Books side by side: a box with uneven top whose front edge runs in and out."""
    count = max(3, int(width / 0.09))
    x = np.linspace(x0 + width, x0, count + 1)
    top = z + room * rng.uniform(0.62, 0.95, count + 1)
    front = depth - rng.uniform(0.02, 0.1, count + 1)
    face = np.stack([np.stack([x, front, np.full_like(x, z)], 1), np.stack([x, front, top], 1)], axis=1)
    lid = np.stack([np.stack([x, front, top], 1), np.stack([x, np.full_like(x, 0.02), top], 1)], axis=1)
    spines = finish(rng, "spines")
    ends = box(
        (x0, 0.02, z),
        (x0 + width, depth - 0.08, z + room * 0.7),
        spines,
        skip=("bottom", "front", "back", "top"),
    )
    return [Patch(face, spines), Patch(lid, spines), *ends]


def shelf_wall(rng) -> Pieces:
    """Two or three open shelves running along a wall, as in libraries."""
    pieces: Pieces = []
    state, count = rng.integers(1 << 32), int(rng.integers(2, 4))
    x = 0.0
    for _ in range(count):
        one = bookshelf(np.random.default_rng(state))
        half = one[0].bounds()[1][0]
        pieces += [piece.moved(0, (x + half, 0, 0)) for piece in one]
        x += 2 * half
    return [piece.moved(0, (-x / 2, 0, 0)) for piece in pieces]


def storage_shelf(rng) -> Pieces:
    """Open metal rack with boxes: `shelf` (NYU40 shelves), not a bookshelf."""
    w, d, h = rng.uniform(0.8, 1.3), rng.uniform(0.4, 0.5), rng.uniform(1.4, 1.9)
    metal = finish(rng, "metal", "dark")
    patches = [
        post((sx * (w / 2), y, 0), (sx * (w / 2), y, h), 0.02, metal) for sx in (-1, 1) for y in (0.03, d)
    ]
    pieces = [Piece("shelf", patches)]
    for z in np.linspace(0.15, h - 0.02, 4):
        patches += box((-w / 2, 0.02, z - 0.02), (w / 2, d, z), metal, skip=())
        if z < h - 0.3 and rng.random() < 0.8:
            half, tall = rng.uniform(0.12, 0.22), rng.uniform(0.15, 0.3)
            x = rng.uniform(-w / 2 + half, w / 2 - half)
            pieces.append(
                Piece(
                    "box",
                    box(
                        (x - half, 0.05, z),
                        (x + half, d - 0.03, z + tall),
                        finish(rng, "cardboard", "plastic"),
                    ),
                )
            )
    return pieces


def wall_shelf(rng) -> Pieces:
    w, wood = rng.uniform(0.6, 1.1), finish(rng, "wood", "white")
    return [
        Piece("shelf", box((-w / 2, 0, 0), (w / 2, 0.24, 0.03), wood, skip=("back",))),
        *on_top(rng, 0, 0.12, 0.03, w, 0.1, 3),
    ]


def shoe_rack(rng) -> Pieces:
    """Low open rack of slanted boards."""
    width, wood, h = rng.uniform(0.6, 0.95), finish(rng, "wood", "metal"), rng.uniform(0.5, 0.75)
    patches = []
    for x in (-width / 2, width / 2 - 0.03):
        patches += box((x, 0, 0), (x + 0.03, 0.32, h), wood)
    for z in np.linspace(0.1, h - 0.05, 3):
        patches.append(quad((-width / 2, 0.02, z), (width, 0, 0), (0, 0.29, 0.05), wood, two_sided=True))
    return [Piece("shoe rack", patches)]


def night_stand(rng) -> Pieces:
    """Small chest beside a bed, often with a lamp."""
    w, d, h = rng.uniform(0.4, 0.55), rng.uniform(0.36, 0.45), rng.uniform(0.45, 0.62)
    wood = finish(rng, "wood", "white", "dark")
    patches = box((-w / 2, 0, 0.04), (w / 2, d, h), wood)
    patches += drawers(0, w - 0.04, d, 0.08, h - 0.03, 2, shaded(wood, 1.05), finish(rng, "metal", "dark"))
    pieces = [Piece("nightstand", patches)]
    return pieces + ([lamp(rng, 0, d / 2, h)] if rng.random() < 0.6 else [])


def dresser(rng) -> Pieces:
    """Wide chest of drawers."""
    w, d, h = rng.uniform(0.9, 1.5), rng.uniform(0.42, 0.52), rng.uniform(0.75, 1.1)
    wood, metal = finish(rng, "wood", "white", "dark"), finish(rng, "metal", "dark")
    patches = box((-w / 2, 0, 0.05), (w / 2, d, h), wood)
    for x in (-w / 4, w / 4):
        patches += drawers(x, w / 2 - 0.04, d, 0.08, h - 0.03, 4, shaded(wood, 1.05), metal)
    return [Piece("dresser", patches), *on_top(rng, 0, d / 2, h, w, d, 2)]


def tv_stand(rng) -> Pieces:
    """Low board with open compartments and a television on top."""
    w, d, h = rng.uniform(1.1, 1.7), rng.uniform(0.38, 0.48), rng.uniform(0.45, 0.6)
    wood, black = finish(rng, "wood", "dark"), finish(rng, "dark")
    patches = box((-w / 2, 0, h - 0.04), (w / 2, d, h), wood, skip=()) + box(
        (-w / 2, 0, 0), (w / 2, d, 0.06), wood
    )
    for x in (-w / 2, -0.02, w / 2 - 0.04):
        patches += box((x, 0, 0.06), (x + 0.04, d, h - 0.04), wood)
    patches.append(quad((w / 2, 0.02, 0.06), (-w, 0, 0), (0, 0, h - 0.1), shaded(wood, 0.7)))
    half = rng.uniform(0.42, 0.62)
    screen = box((-half, 0.15, h + 0.07), (half, 0.21, h + 0.07 + 1.12 * half), black, skip=())
    screen += box((-0.2, 0.08, h), (0.2, 0.3, h + 0.02), black) + [
        post((0, 0.16, h), (0, 0.16, h + 0.15), 0.03, black)
    ]
    return [Piece("tv stand", patches), Piece("tv", screen)]


def bed_place(rng) -> Pieces:
    """Bed with its night stands."""
    pieces = bed(rng)
    half = pieces[0].bounds()[1][0]
    for side in (-1, 1):
        if rng.random() < 0.55:
            pieces += moved(night_stand(rng), 0, (side * (half + 0.36), 0.02, 0))
    return pieces


def copier(rng) -> Pieces:
    body = finish(rng, "white", "grey")
    patches = box((-0.32, 0, 0), (0.32, 0.6, 0.95), body) + box(
        (-0.3, 0.03, 0.98), (0.3, 0.5, 1.12), finish(rng, "dark", "grey"), skip=()
    )
    patches += box((0.32, 0.1, 0.5), (0.55, 0.5, 0.54), body, skip=())
    return [Piece("copier", patches)]
