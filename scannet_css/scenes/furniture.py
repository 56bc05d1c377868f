"""Shapes of loose furniture: one function per object, each a list of pieces in its own frame.

The frame: back at y = 0, looking towards +y, centred on x = 0, standing on z = 0; metres. Sizes follow the boxes of
ScanNet's training split (docs/synthetic_scans.md).
"""

import numpy as np

from scannet_css.scenes.paint import finish, shaded
from scannet_css.scenes.surfaces import Finish, Patch, Piece, box, lathe, moved, post, quad

Pieces = list[Piece]


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


def lamp(rng, x: float, y: float, z: float, height: float | None = None) -> Piece:
    """Foot, pole and shade."""
    height, foot = height or rng.uniform(0.4, 0.6), finish(rng, "metal", "dark", "ceramic")
    radius = 0.12 + 0.05 * (height > 1)
    profile = [(radius + 0.04, radius + 0.04, 0), (radius * 0.75, radius * 0.75, 0.22)]
    return Piece(
        "lamp",
        [
            lathe(
                (x, y, z),
                [(radius * 0.8, radius * 0.8, 0), (radius * 0.7, radius * 0.7, 0.03), (0, 0, 0.04)],
                foot,
                sides=12,
            ),
            post((x, y, z), (x, y, z + height - 0.2), 0.02, foot),
            lathe((x, y, z + height - 0.22), profile, finish(rng, "white", "linen"), sides=16),
        ],
    )


def floor_lamp(rng) -> Pieces:
    return [lamp(rng, 0, 0.2, 0, rng.uniform(1.5, 1.75))]


def on_top(rng, x: float, y: float, z: float, width: float, depth: float, count: int) -> Pieces:
    """A few small things on a table top: books, boxes, bottles, bowls, papers."""
    pieces = []
    for _ in range(count):
        px, py = x + rng.uniform(-0.35, 0.35) * width, y + rng.uniform(-0.3, 0.3) * depth
        kind = rng.choice(["books", "box", "bottle", "bowl", "paper", "object"])
        if kind in ("books", "box", "object", "paper"):
            half = rng.uniform(0.08, 0.16, 2)
            tall = {"books": 0.08, "box": 0.16, "object": 0.12, "paper": 0.015}[kind] * rng.uniform(0.7, 1.4)
            paint = finish(
                rng,
                *{"books": ("spines",), "box": ("cardboard",), "paper": ("white",)}.get(kind, ("plastic",)),
            )
            patches = moved(
                [Piece(kind, box((-half[0], -half[1], 0), (*half, tall), paint))], rng.uniform(-0.6, 0.6)
            )[0].patches
            pieces.append(Piece(kind, [patch.moved(0, (px, py, z)) for patch in patches]))
        else:
            r, tall = (
                (rng.uniform(0.035, 0.05), rng.uniform(0.2, 0.28))
                if kind == "bottle"
                else (rng.uniform(0.08, 0.13), 0.09)
            )
            profile = (
                [(r, r, 0), (r, r, tall * 0.7), (r * 0.4, r * 0.4, tall)]
                if kind == "bottle"
                else [
                    (r * 0.5, r * 0.5, 0),
                    (r, r, tall),
                    (r * 0.9, r * 0.9, tall),
                    (r * 0.4, r * 0.4, 0.02),
                    (0, 0, 0.02),
                ]
            )
            pieces.append(
                Piece(kind, [lathe((px, py, z), profile, finish(rng, "plastic", "ceramic"), sides=12)])
            )
    return pieces


def trash_can(rng) -> Pieces:
    """Tapered bin, open at the top."""
    r, h = rng.uniform(0.13, 0.21), rng.uniform(0.3, 0.65)
    profile = [
        (r * 0.8, r * 0.8, 0),
        (r, r, h),
        (r * 0.93, r * 0.93, h),
        (r * 0.75, r * 0.75, 0.08),
        (0, 0, 0.08),
    ]
    return [
        Piece(
            "trash can",
            [lathe((0, r, 0), profile, finish(rng, "plastic", "grey", "dark"), rng.choice([2, 5]), 16)],
        )
    ]


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


def cardboard_box(rng) -> Pieces:
    w, d, h = rng.uniform(0.25, 0.5, 3)
    return [
        Piece("box", box((-w / 2, 0, 0), (w / 2, d, h), finish(rng, "cardboard", "plastic", "cardboard")))
    ]


def backpack(rng) -> Pieces:
    half, deep, h = rng.uniform(0.14, 0.2), rng.uniform(0.09, 0.13), rng.uniform(0.38, 0.5)
    profile = [
        (half, deep, 0),
        (half * 1.05, deep * 1.1, h * 0.4),
        (half * 0.9, deep * 0.8, h * 0.85),
        (0, 0, h),
    ]
    return [Piece("backpack", [lathe((0, deep, 0), profile, finish(rng, "fabric", "dark"), 3)])]


def plant(rng) -> Pieces:
    """Pot with a crown of leaves."""
    r, h, crown = rng.uniform(0.12, 0.19), rng.uniform(0.22, 0.35), rng.uniform(0.25, 0.4)
    leaf, patches = (
        finish(rng, "leaf"),
        [
            lathe(
                (0, crown, 0),
                [(r * 0.8, r * 0.8, 0), (r, r, h), (0, 0, h)],
                finish(rng, "ceramic", "plastic", "dark"),
                sides=12,
            )
        ],
    )
    for _ in range(14):
        angle, lift = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.3)
        out = np.array([np.cos(angle), np.sin(angle), 0]) * crown * 0.9
        side = np.array([-np.sin(angle), np.cos(angle), 0]) * 0.09
        start = np.array([0, crown, h])
        patches.append(
            quad(start - side / 2 + out * 0.1, side, out + (0, 0, lift * crown * 1.6), leaf, two_sided=True)
        )
    return [Piece("plant", patches)]


def clothes(rng) -> Pieces:
    r = rng.uniform(0.2, 0.35)
    profile = [(r, r * 0.8, 0), (r * 0.8, r * 0.7, 0.1), (r * 0.3, r * 0.3, 0.17), (0, 0, 0.18)]
    return [Piece("clothes", [lathe((0, r, 0), profile, finish(rng, "fabric", "linen"), 2.3)])]


def copier(rng) -> Pieces:
    body = finish(rng, "white", "grey")
    patches = box((-0.32, 0, 0), (0.32, 0.6, 0.95), body) + box(
        (-0.3, 0.03, 0.98), (0.3, 0.5, 1.12), finish(rng, "dark", "grey"), skip=()
    )
    patches += box((0.32, 0.1, 0.5), (0.55, 0.5, 0.54), body, skip=())
    return [Piece("copier", patches)]


def desk_place(rng) -> Pieces:
    """Desk with a chair before it."""
    pieces = desk(rng)
    depth = pieces[0].bounds()[1][1]
    return pieces + moved(
        office_chair(rng) if rng.random() < 0.75 else plain_chair(rng),
        np.pi + rng.normal(0, 0.4),
        (rng.uniform(-0.15, 0.15), depth + rng.uniform(0.42, 0.7), 0),
    )


def bed_place(rng) -> Pieces:
    """Bed with its night stands."""
    pieces = bed(rng)
    half = pieces[0].bounds()[1][0]
    for side in (-1, 1):
        if rng.random() < 0.55:
            pieces += moved(night_stand(rng), 0, (side * (half + 0.36), 0.02, 0))
    return pieces


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
