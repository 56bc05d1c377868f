"""Tables and desks, alone and with the chairs around them.

Every function gives the pieces of one object or set in its own frame: back at y = 0 against the wall,
looking towards +y, centred on x = 0, standing on z = 0; metres. What is let into a wall has negative y.
"""

import numpy as np

from scannet_css.synthetic.paint import finish, shaded
from scannet_css.synthetic.shapes.seating import legs, office_chair, plain_chair, sofa
from scannet_css.synthetic.shapes.small import lamp, on_top
from scannet_css.synthetic.shapes.storage import drawers
from scannet_css.synthetic.surfaces import Piece, Pieces, box, lathe, moved, post


def table(rng, width: float | None = None, depth: float | None = None) -> Pieces:
    """Dining or work table: four legs or a column, square or round."""
    height, thick = rng.uniform(0.7, 0.76), rng.uniform(0.03, 0.06)
    wood = finish(rng, "wood", "white", "wood", "grey")
    foot = finish(rng, "metal", "dark") if rng.random() < 0.5 else wood
    if width is None and rng.random() < 0.3:
        radius = rng.uniform(0.4, 0.65)
        profile = [(0, 0, -thick), (radius, radius, -thick), (radius, radius, 0), (0, 0, 0)]
        patches = [lathe((0, radius, height), profile, wood, sides=32)]
        patches.append(post((0, radius, 0.03), (0, radius, height - thick), 0.05, foot, 8))
        patches.append(
            lathe((0, radius, 0), [(0.28, 0.28, 0), (0.28, 0.28, 0.03), (0.05, 0.05, 0.05)], foot, sides=16)
        )
        return [Piece("table", patches)]
    width = width or rng.uniform(0.8, 1.7)
    depth = depth or min(width, rng.uniform(0.65, 0.95))
    patches = box((-width / 2, 0, height - thick), (width / 2, depth, height), wood, skip=())
    patches += legs(width, depth, height - thick, 0.03, foot)
    return [Piece("table", patches)]


def coffee_table(rng) -> Pieces:
    """Low table before a sofa, with a shelf below."""
    width, depth, height = rng.uniform(0.7, 1.15), rng.uniform(0.45, 0.65), rng.uniform(0.38, 0.48)
    wood = finish(rng, "wood", "dark", "white")
    patches = box((-width / 2, 0, height - 0.05), (width / 2, depth, height), wood, skip=())
    patches += legs(width, depth, height - 0.05, 0.03, wood)
    patches += box((-width / 2 + 0.05, 0.05, 0.12), (width / 2 - 0.05, depth - 0.05, 0.14), wood)
    return [Piece("coffee table", patches), *on_top(rng, 0, depth / 2, height, width, depth, 1)]


def end_table(rng) -> Pieces:
    """Small table for a corner, often with a lamp."""
    side, height = rng.uniform(0.42, 0.58), rng.uniform(0.5, 0.62)
    wood = finish(rng, "wood", "dark", "white")
    patches = box((-side / 2, 0, height - 0.04), (side / 2, side, height), wood, skip=()) + legs(
        side, side, height - 0.04, 0.025, wood
    )
    pieces = [Piece("end table", patches)]
    return pieces + ([lamp(rng, 0, side / 2, height)] if rng.random() < 0.6 else [])


def desk(rng, width: float | None = None) -> Pieces:
    """Top on a drawer pedestal and a side panel with a modesty panel behind; monitor, keyboard, papers."""
    width, depth, height = width or rng.uniform(1.15, 1.7), rng.uniform(0.62, 0.8), rng.uniform(0.71, 0.77)
    wood = finish(rng, "wood", "white", "grey", "wood")
    side = rng.choice([-1, 1])
    patches = box((-width / 2, 0, height - 0.04), (width / 2, depth, height), wood, skip=())
    patches += box((-width / 2 + 0.02, 0.03, 0.2), (width / 2 - 0.02, 0.06, height - 0.04), shaded(wood, 0.9))
    panel = -side * (width / 2 - 0.03)
    patches += box((panel - 0.02, 0.03, 0), (panel + 0.02, depth - 0.04, height - 0.04), wood)
    middle = side * (width / 2 - 0.24)
    patches += box(
        (middle - 0.21, 0.05, 0.03), (middle + 0.21, depth - 0.05, height - 0.04), shaded(wood, 0.95)
    )
    patches += drawers(
        middle, 0.4, depth - 0.05, 0.06, height - 0.07, 3, shaded(wood, 1.04), finish(rng, "metal", "dark")
    )
    pieces = [Piece("desk", patches)]
    if rng.random() < 0.75:
        pieces += computer(rng, rng.uniform(-0.2, 0.2), depth, height)
    return pieces + on_top(
        rng, -side * width * 0.25, depth * 0.55, height, width * 0.4, depth * 0.7, int(rng.integers(1, 4))
    )


def computer(rng, x: float, depth: float, height: float) -> Pieces:
    """Monitor with its foot, and a keyboard before it."""
    black, width = finish(rng, "dark"), rng.uniform(0.45, 0.62)
    screen = box(
        (x - width / 2, 0.2, height + 0.12),
        (x + width / 2, 0.25, height + 0.12 + width * 0.6),
        black,
        skip=(),
    )
    screen += [post((x, 0.2, height), (x, 0.2, height + 0.2), 0.025, black)]
    screen += box((x - 0.12, 0.12, height), (x + 0.12, 0.28, height + 0.02), black)
    keys = box(
        (x - 0.22, depth - 0.25, height),
        (x + 0.22, depth - 0.1, height + 0.025),
        finish(rng, "dark", "white"),
    )
    return [Piece("monitor", screen), Piece("keyboard", keys)]


def desk_place(rng) -> Pieces:
    """Desk with a chair before it."""
    pieces = desk(rng)
    depth = pieces[0].bounds()[1][1]
    return pieces + moved(
        office_chair(rng) if rng.random() < 0.75 else plain_chair(rng),
        np.pi + rng.normal(0, 0.4),
        (rng.uniform(-0.15, 0.15), depth + rng.uniform(0.42, 0.7), 0),
    )


def sofa_place(rng) -> Pieces:
    """Sofa with a coffee table before it."""
    pieces = sofa(rng)
    depth = pieces[0].bounds()[1][1]
    return pieces + (
        moved(coffee_table(rng), 0, (0, depth + rng.uniform(0.3, 0.45), 0)) if rng.random() < 0.7 else []
    )


def dining_set(rng, seats: int | None = None) -> Pieces:
    """Table with two to six chairs drawn up around it."""
    seats = seats or int(rng.integers(2, 7))
    per_side = max(1, (seats + 1) // 2)
    pieces = table(rng, max(0.85, 0.62 * per_side) + rng.uniform(0, 0.25), rng.uniform(0.75, 1.0))
    return _seated(rng, pieces, per_side, seats - per_side) + on_top(
        rng, 0, 0.4, pieces[0].bounds()[1][2], 0.8, 0.7, 2
    )


def meeting_set(rng) -> Pieces:
    """Long table with chairs on both sides and at its ends."""
    per_side = int(rng.integers(3, 6))
    pieces = table(rng, per_side * rng.uniform(0.62, 0.75), rng.uniform(1.0, 1.35))
    return _seated(rng, pieces, per_side, per_side, ends=True) + on_top(
        rng, 0, 0.5, pieces[0].bounds()[1][2], 2.0, 0.7, 3
    )


def _seated(rng, pieces: Pieces, front: int, back: int, ends: bool = False) -> Pieces:
    """Adds chairs of one kind around the table in `pieces`."""
    (x0, y0, _), (x1, y1, _) = pieces[0].bounds()
    kind = (plain_chair, office_chair)[rng.integers(2)]
    state = rng.integers(1 << 32)

    def seat(x, y, yaw):
        # one seed for the whole set: chairs round a table are alike
        pose = (x + rng.normal(0, 0.03), y + rng.normal(0, 0.06), 0)
        one = moved(kind(np.random.default_rng(state)), 0, (0, -0.25, 0))
        pieces.extend(moved(one, yaw + rng.normal(0, 0.2), pose))

    for k in range(front):
        seat(x0 + (x1 - x0) * (k + 0.5) / front, y1 + 0.22, np.pi)
    for k in range(back):
        seat(x0 + (x1 - x0) * (k + 0.5) / back, y0 - 0.22, 0)
    if ends:
        for x, yaw in ((x0 - 0.24, -np.pi / 2), (x1 + 0.24, np.pi / 2)):
            if rng.random() < 0.7:
                seat(x, (y0 + y1) / 2, yaw)
    return pieces


def class_row(rng) -> Pieces:
    """Narrow table with a row of chairs behind it, as in a class room."""
    pieces = table(rng, rng.uniform(1.3, 1.9), rng.uniform(0.5, 0.62))
    return _seated(rng, pieces, 0, int(rng.integers(2, 4)))
