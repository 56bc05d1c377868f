"""Chairs, sofas, beds.

Every function gives the pieces of one object or set in its own frame: back at y = 0 against the wall,
looking towards +y, centred on x = 0, standing on z = 0; metres. What is let into a wall has negative y.
"""

import numpy as np

from scannet_css.synthetic.paint import finish, shaded
from scannet_css.synthetic.surfaces import Finish, Patch, Piece, Pieces, box, lathe, moved, post


def legs(
    width: float, depth: float, height: float, radius: float, paint: Finish, inset: float = 0.04
) -> list[Patch]:
    """Four legs under a top of the given size whose back edge is at y = 0."""
    x = width / 2 - inset
    return [
        post((sx * x, y, 0), (sx * x, y, height), radius, paint)
        for sx in (-1, 1)
        for y in (inset, depth - inset)
    ]


def chair(rng) -> Pieces:
    """One of three kinds: on castors, on four legs, or upholstered."""
    return (office_chair, plain_chair, armchair)[rng.choice(3, p=[0.4, 0.45, 0.15])](rng)


def office_chair(rng) -> Pieces:
    """Seat and tilted back on a column with a five-armed foot."""
    seat, width, back = rng.uniform(0.43, 0.52), rng.uniform(0.44, 0.52), rng.uniform(0.42, 0.6)
    cloth, metal = finish(rng, "dark", "fabric", "dark"), finish(rng, "dark", "metal")
    patches = [
        lathe(
            (0, 0.3, seat - 0.07),
            [(width / 2, 0.23, 0), (width / 2, 0.24, 0.06), (0.15, 0.16, 0.09), (0, 0, 0.09)],
            cloth,
            power=4,
        ),
        post((0, 0.3, 0.1), (0, 0.3, seat - 0.07), 0.03, metal),
    ]
    rest = box((-width * 0.46, -0.03, seat + 0.08), (width * 0.46, 0.05, seat + 0.08 + back), cloth)
    lean = np.array([0, -0.18, 0])
    patches += [Patch(p.grid + lean * (p.grid[..., 2:] - seat) + (0, 0.06, 0), p.finish) for p in rest]
    patches.append(post((0, 0.12, seat - 0.04), (0, 0.05, seat + 0.2), 0.025, metal))
    for angle in np.arange(5) * 2 * np.pi / 5 + rng.uniform(0, 1):
        foot = (0.3 * np.cos(angle), 0.3 + 0.3 * np.sin(angle), 0.05)
        patches.append(post((0, 0.3, 0.12), foot, 0.025, metal))
    if rng.random() < 0.6:
        for side in (-1, 1):
            x = side * (width / 2 + 0.02)
            patches.append(post((x, 0.28, seat - 0.02), (x, 0.28, seat + 0.2), 0.02, metal))
            patches += box((x - 0.03, 0.15, seat + 0.2), (x + 0.03, 0.42, seat + 0.23), metal)
    return [Piece("office chair", patches)]


def plain_chair(rng) -> Pieces:
    """Four legs, a seat and a back with a gap below."""
    seat, width, depth = rng.uniform(0.42, 0.47), rng.uniform(0.4, 0.48), rng.uniform(0.42, 0.48)
    top = rng.uniform(0.78, 0.98)
    wood = finish(rng, "wood", "dark", "metal", "wood")
    cover = finish(rng, "fabric", "plastic", "leather") if rng.random() < 0.6 else wood
    patches = box((-width / 2, 0, seat - 0.05), (width / 2, depth, seat), cover)
    patches += legs(width, depth, seat - 0.05, 0.022, wood, 0.025)
    for side in (-1, 1):
        patches.append(
            post(
                (side * (width / 2 - 0.025), 0.02, seat),
                (side * (width / 2 - 0.025), -0.04, top),
                0.022,
                wood,
            )
        )
    patches += box((-width / 2 + 0.02, -0.05, seat + 0.15), (width / 2 - 0.02, -0.01, top), cover)
    return [Piece("chair", moved([Piece("", patches)], 0, (0, 0.05, 0))[0].patches)]


def armchair(rng) -> Pieces:
    """A small sofa for one."""
    return [Piece("armchair", _upholstered(rng, rng.uniform(0.68, 0.85), rng.uniform(0.7, 0.85), 1, 0.12))]


def _upholstered(rng, width: float, depth: float, cushions: int, arm: float) -> list[Patch]:
    cloth = finish(rng, "fabric", "leather", "fabric")
    seat, top, arm_top = rng.uniform(0.38, 0.46), rng.uniform(0.74, 0.92), rng.uniform(0.54, 0.66)
    back = rng.uniform(0.18, 0.25)
    left, right = -width / 2 + arm, width / 2 - arm
    patches = box((left, 0, 0.06), (right, depth - 0.04, seat - 0.12), shaded(cloth, 0.9))
    patches += box((-width / 2, 0, 0.06), (width / 2, back, top), cloth)
    for x in (-width / 2, right):
        patches += box((x, back, 0.06), (x + arm, depth - 0.03, arm_top), cloth, skip=("bottom", "back"))
    step = (right - left) / cushions
    for k in range(cushions):
        centre = left + (k + 0.5) * step
        middle = (back + depth) / 2
        half, deep = step / 2 - 0.005, (depth - back) / 2
        profile = [(half, deep, -0.12), (half, deep, -0.02), (half * 0.9, deep * 0.9, 0.02), (0, 0, 0.025)]
        patches.append(
            lathe((centre, middle, seat), profile, shaded(cloth, rng.uniform(0.97, 1.05)), power=7, sides=32)
        )
        low, high = (centre - half, back, seat + 0.02), (centre + half, back + 0.13, top - 0.06)
        patches += box(low, high, shaded(cloth, rng.uniform(0.95, 1.05)), skip=("bottom", "back"))
    return patches


def pillow(rng, x: float, y: float, z: float, name: str = "pillow") -> Piece:
    """A rounded cushion lying with its middle at (x, y, z)."""
    half, deep = rng.uniform(0.2, 0.33), rng.uniform(0.17, 0.23)
    profile = [(half, deep, 0), (half, deep, 0.05), (half * 0.75, deep * 0.75, 0.1), (0, 0, 0.12)]
    return Piece(name, [lathe((x, y, z), profile, finish(rng, "linen", "fabric", "linen"), power=4)])


def sofa(rng) -> Pieces:
    """Two to four cushions between arms, at times with a chaise longue; loose pillows."""
    cushions = int(rng.choice([2, 3, 3, 4]))
    width, depth = cushions * rng.uniform(0.58, 0.68) + 0.4, rng.uniform(0.82, 0.98)
    pieces = [Piece("couch", _upholstered(rng, width, depth, cushions, 0.2))]
    if rng.random() < 0.2:
        cloth = pieces[0].patches[5].finish
        pieces[0].patches += box(
            (width / 2 - 0.85, depth - 0.04, 0.06), (width / 2, depth + 0.65, 0.42), cloth
        )
    for side in (-1, 1):
        if rng.random() < 0.45:
            pieces.append(pillow(rng, side * (width / 2 - 0.5), 0.5, 0.46))
    return pieces


def bed(rng) -> Pieces:
    """Mattress with rounded duvet on a frame, head board at the wall, pillows."""
    width, length = rng.choice([0.95, 1.05, 1.4, 1.6, 1.6, 1.9]), rng.uniform(2.0, 2.12)
    top = rng.uniform(0.5, 0.66)
    frame, sheet_, cover = (
        finish(rng, "wood", "dark", "fabric"),
        finish(rng, "linen", "white"),
        finish(rng, "linen", "fabric"),
    )
    patches = box((-width / 2, 0.05, 0.05), (width / 2, length, top - 0.22), frame)
    half, deep = width / 2 - 0.01, (length - 0.07) / 2
    profile = [
        (half, deep, top - 0.24),
        (half, deep, top - 0.05),
        (half - 0.05, deep - 0.04, top),
        (0, 0, top),
    ]
    patches.append(lathe((0, 0.06 + deep, 0), profile, sheet_, power=14, sides=48))
    half, deep = width / 2 + 0.03, length * 0.33
    profile = [
        (half, deep, top - 0.3),
        (half, deep, top),
        (half * 0.9, deep * 0.93, top + 0.06),
        (0, 0, top + 0.06),
    ]
    patches.append(lathe((0, length - deep + 0.03, 0), profile, cover, power=10, sides=48))
    if rng.random() < 0.8:
        patches += box((-width / 2 - 0.03, 0, 0), (width / 2 + 0.03, 0.06, rng.uniform(0.85, 1.25)), frame)
    pieces = [Piece("bed", patches)]
    for x in (-width / 4, width / 4) if width > 1.2 else (0.0,):
        pieces.append(pillow(rng, x, 0.33, top))
    return pieces


def ottoman(rng) -> Pieces:
    """Padded stool without a back."""
    half, deep, h = rng.uniform(0.25, 0.42), rng.uniform(0.22, 0.3), rng.uniform(0.36, 0.46)
    profile = [(half, deep, 0.04), (half, deep, h - 0.06), (half * 0.88, deep * 0.88, h), (0, 0, h + 0.01)]
    return [
        Piece(
            "ottoman",
            [lathe((0, deep, 0), profile, finish(rng, "fabric", "leather"), rng.choice([2.5, 8]), 28)],
        )
    ]


def bench(rng) -> Pieces:
    """Padded top on two panels."""
    width, wood = rng.uniform(1.0, 1.5), finish(rng, "wood", "dark")
    patches = box((-width / 2, 0, 0.38), (width / 2, 0.4, 0.46), finish(rng, "fabric", "leather"), skip=())
    for x in (-width / 2 + 0.05, width / 2 - 0.09):
        patches += box((x, 0.03, 0), (x + 0.04, 0.37, 0.38), wood)
    return [Piece("bench", patches)]


def waiting_chairs(rng) -> Pieces:
    """A row of like chairs along a wall."""
    state, count = rng.integers(1 << 32), int(rng.integers(2, 5))
    kind = (plain_chair, armchair)[rng.integers(2)]
    one = kind(np.random.default_rng(state))
    step = np.ptp([c[0] for c in one[0].bounds()]) + 0.06
    return [
        piece
        for k in range(count)
        for piece in moved(kind(np.random.default_rng(state)), 0, ((k - (count - 1) / 2) * step, 0.05, 0))
    ]
