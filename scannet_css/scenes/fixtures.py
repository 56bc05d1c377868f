"""Shapes that belong to the building or are fixed to it: storage, kitchen, bathroom, doors, windows, pictures.

The frame is that of furniture.py: back at y = 0 against the wall, looking towards +y, centred on x = 0; metres.
What is recessed into the wall has negative y.
"""

import numpy as np

from scannet_css.scenes.furniture import Pieces, drawers, on_top
from scannet_css.scenes.paint import finish, shaded
from scannet_css.scenes.surfaces import Finish, Patch, Piece, box, lathe, post, quad, sheet


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


def wall_cabinet(rng, width: float | None = None) -> Pieces:
    """Cupboard hung above a counter or a basin."""
    w, d, h = width or rng.uniform(0.6, 1.0), rng.uniform(0.28, 0.36), rng.uniform(0.55, 0.75)
    wood = finish(rng, "wood", "white")
    patches = box((-w / 2, 0, 0), (w / 2, d, h), shaded(wood, 0.92), skip=())
    return [
        Piece(
            "kitchen cabinet",
            patches + door_fronts(-w / 2, w / 2, d, 0.0, h, wood, finish(rng, "metal"), 0.42),
        )
    ]


def basin(rng, x: float, y: float, z: float, half: float, deep: float, name: str = "sink") -> Piece:
    """Bowl let into a top at height `z`, with a tap behind it."""
    paint = finish(rng, "ceramic", "metal") if name == "kitchen sink" else finish(rng, "ceramic")
    depth = rng.uniform(0.14, 0.19)
    profile = [
        (half, deep, 0),
        (half, deep, 0.025),
        (half * 0.88, deep * 0.85, 0.02),
        (half * 0.75, deep * 0.72, -depth * 0.8),
        (half * 0.3, deep * 0.3, -depth),
        (0, 0, -depth),
    ]
    tap, metal = y - deep - 0.02, finish(rng, "metal")
    return Piece(
        name,
        [
            lathe((x, y, z), profile, paint, power=4 if name == "kitchen sink" else 2.5),
            post((x, tap, z), (x, tap, z + 0.2), 0.02, metal),
            post((x, tap, z + 0.2), (x, tap + 0.15, z + 0.17), 0.018, metal),
        ],
    )


def _top_with_hole(x0, x1, depth, z, thick, hole, paint) -> list[Patch]:
    """A slab with a rectangular hole (x0, x1, y0, y1), or none; overhanging edge in front, upstand at the wall."""
    low, high = z - thick, z
    patches = box((x0, 0, low), (x1, depth, high), paint, skip=("top", "back"))
    if hole is None:
        patches.append(quad((x0, 0, high), (x1 - x0, 0, 0), (0, depth, 0), paint))
    else:
        a, b, c, d = hole
        for left, right, near, far in ((x0, a, 0, depth), (b, x1, 0, depth), (a, b, 0, c), (a, b, d, depth)):
            patches.append(quad((left, near, high), (right - left, 0, 0), (0, far - near, 0), paint))
    return patches + box((x0, 0, high), (x1, 0.025, high + 0.13), paint)


def kitchen_run(rng) -> Pieces:
    """Base cupboards under a counter with sink and stove, cupboards hung above."""
    w, d, z = rng.uniform(1.9, 2.9), rng.uniform(0.58, 0.64), rng.uniform(0.88, 0.93)
    wood, metal, stone = (
        finish(rng, "wood", "white", "grey"),
        finish(rng, "metal"),
        finish(rng, "stone", "wood"),
    )
    base = box((-w / 2, 0, 0.08), (w / 2, d - 0.04, z - 0.05), shaded(wood, 0.92))
    base += door_fronts(-w / 2, w / 2, d - 0.04, 0.1, z - 0.06, wood, metal)
    sink_x, half, deep = rng.uniform(-0.2, 0.5), rng.uniform(0.27, 0.36), 0.21
    hole = (sink_x - half + 0.02, sink_x + half - 0.02, 0.33 - deep + 0.02, 0.33 + deep - 0.02)
    pieces = [
        Piece("kitchen cabinet", base),
        Piece("kitchen counter", _top_with_hole(-w / 2, w / 2, d, z, 0.05, hole, stone)),
        basin(rng, sink_x, 0.33, z, half, deep, "kitchen sink"),
    ]
    if rng.random() < 0.6:
        black, x = finish(rng, "dark"), -w / 2 + 0.36
        stove = box((x - 0.28, 0.06, z), (x + 0.28, d - 0.08, z + 0.03), black)
        stove += box((x - 0.3, d - 0.02, 0.12), (x + 0.3, d + 0.01, z - 0.06), black, skip=("back", "bottom"))
        pieces.append(Piece("stove", stove))
    pieces += on_top(rng, w / 2 - 0.35, 0.3, z, 0.5, 0.4, int(rng.integers(1, 4)))
    for x in np.arange(-w / 2 + 0.45, w / 2 - 0.4, 0.9):
        if rng.random() < 0.7:
            pieces += [
                piece.moved(0, (x, 0, 1.45))
                for piece in wall_cabinet(np.random.default_rng(int(w * 1e9)), 0.88)
            ]
    return pieces


def counter(rng) -> Pieces:
    """A counter of its own with cupboards below, as in halls and break rooms."""
    w, d, z = rng.uniform(1.1, 2.0), rng.uniform(0.5, 0.62), rng.uniform(0.88, 1.0)
    wood = finish(rng, "wood", "white", "grey")
    base = box((-w / 2 + 0.03, 0, 0), (w / 2 - 0.03, d - 0.08, z - 0.05), wood)
    base += door_fronts(
        -w / 2 + 0.03, w / 2 - 0.03, d - 0.08, 0.06, z - 0.06, shaded(wood, 1.05), finish(rng, "metal")
    )
    top = _top_with_hole(-w / 2, w / 2, d, z, 0.05, None, finish(rng, "stone", "wood"))
    return [
        Piece("cabinet", base),
        Piece("counter", top),
        *on_top(rng, 0, 0.3, z, w, 0.4, int(rng.integers(1, 4))),
    ]


def refrigerator(rng) -> Pieces:
    """Tall rounded box with two doors and long handles."""
    w, d, h = rng.uniform(0.62, 0.85), rng.uniform(0.62, 0.74), rng.uniform(1.55, 1.8)
    body, metal = finish(rng, "white", "metal", "white", "dark"), finish(rng, "metal")
    half, deep, split = w / 2, (d - 0.06) / 2, h * rng.choice([0.32, 0.68])
    profile = [(half, deep, 0.03), (half, deep, h - 0.03), (half - 0.03, deep - 0.03, h), (0, 0, h)]
    patches = [lathe((0, deep, 0), profile, body, power=16, sides=48)]
    for low, high in ((0.1, split - 0.012), (split + 0.012, h - 0.02)):
        profile = [(0, 0, low), (half, 0.05, low), (half, 0.05, high), (0, 0, high)]
        patches.append(lathe((0, d - 0.08, 0), profile, shaded(body, 1.03), power=5, sides=32))
        start = high - 0.1 if low < h / 2 and high < h * 0.7 else low + 0.1
        end = start - 0.45 if start > (low + high) / 2 else start + 0.45
        patches.append(
            post((half - 0.08, d + 0.02, max(end, low + 0.04)), (half - 0.08, d + 0.02, start), 0.02, metal)
        )
    return [Piece("refrigerator", patches)]


def washing_machine(rng) -> Pieces:
    body, dark = finish(rng, "white", "grey"), finish(rng, "dark", "glass")
    patches = box((-0.31, 0, 0), (0.31, 0.6, 0.88), body) + box((-0.31, 0, 0.88), (0.31, 0.1, 1.02), body)
    ring = lathe((0, 0, 0), [(0.22, 0.22, 0), (0.2, 0.2, 0.06), (0.1, 0.1, 0.03), (0, 0, 0.02)], dark)
    # a ring made about z, laid over so that it looks out of the front
    grid = np.stack([ring.grid[..., 0], 0.6 + ring.grid[..., 2], 0.45 - ring.grid[..., 1]], axis=-1)
    return [Piece("washing machine", [*patches, Patch(grid, dark)])]


def toilet(rng) -> Pieces:
    """Oval bowl on a foot, raised or closed lid, water tank behind."""
    seat, paint = rng.uniform(0.38, 0.43), finish(rng, "ceramic")
    middle = 0.45
    profile = [
        (0.11, 0.17, 0),
        (0.1, 0.16, seat * 0.4),
        (0.18, 0.24, seat * 0.85),
        (0.19, 0.25, seat),
        (0, 0, seat + 0.02),
    ]
    if rng.random() < 0.4:
        profile[-1:] = [
            (0.19, 0.25, seat + 0.02),
            (0.14, 0.19, seat + 0.02),
            (0.08, 0.1, seat - 0.17),
            (0, 0, seat - 0.19),
        ]
    half, high = rng.uniform(0.19, 0.24), rng.uniform(0.72, 0.82)
    tank = [
        (half, 0.1, seat - 0.04),
        (half, 0.1, high),
        (half * 0.95, 0.09, high + 0.02),
        (0, 0, high + 0.02),
    ]
    patches = [
        lathe((0, middle, 0), profile, paint, power=2.2),
        lathe((0, 0.11, 0), tank, paint, power=7, sides=32),
    ]
    pieces = [Piece("toilet", patches)]
    if rng.random() < 0.6:
        pieces.append(
            Piece(
                "toilet paper",
                [
                    lathe(
                        (0.45, 0.06, 0.65),
                        [(0, 0, 0), (0.06, 0.06, 0), (0.06, 0.06, 0.1), (0, 0, 0.1)],
                        finish(rng, "white"),
                        sides=12,
                    )
                ],
            )
        )
    return pieces


def vanity(rng) -> Pieces:
    """Basin in a small counter on a cupboard, or alone on a pedestal; mirror above."""
    z = rng.uniform(0.78, 0.86)
    if rng.random() < 0.45:
        paint = finish(rng, "ceramic")
        sink = basin(rng, 0, 0.27, z, 0.28, 0.22)
        sink.patches += [post((0, 0.2, 0), (0, 0.2, z - 0.15), 0.09, paint, 10)]
        sink.patches += [
            lathe((0, 0.27, z), [(0.12, 0.1, -0.2), (0.27, 0.21, -0.05), (0.28, 0.22, 0)], paint, power=2.5)
        ]
        pieces = [sink]
    else:
        w, d = rng.uniform(0.7, 1.2), 0.54
        wood = finish(rng, "wood", "white")
        base = box((-w / 2, 0, 0), (w / 2, d - 0.04, z - 0.04), shaded(wood, 0.92))
        base += door_fronts(-w / 2, w / 2, d - 0.04, 0.08, z - 0.05, wood, finish(rng, "metal"), 0.4)
        top = _top_with_hole(
            -w / 2, w / 2, d, z, 0.04, (-0.2, 0.2, 0.14, 0.44), finish(rng, "stone", "ceramic")
        )
        pieces = [
            Piece("bathroom vanity", base),
            Piece("bathroom counter" if w > 0.95 else "bathroom vanity", top),
        ]
        pieces.append(basin(rng, 0, 0.29, z, 0.23, 0.17))
    if rng.random() < 0.7:
        half = rng.uniform(0.25, 0.4)
        pieces.append(
            Piece(
                "mirror",
                box(
                    (-half, 0, 1.15),
                    (half, 0.03, rng.uniform(1.7, 1.95)),
                    finish(rng, "metal"),
                    skip=("back",),
                    front=finish(rng, "glass"),
                ),
            )
        )
    return pieces


def bathtub(rng, with_curtain: bool = False) -> Pieces:
    """Tub along the wall (long side along x); at times a curtain on a rod over its edge."""
    half, deep, h = rng.uniform(0.7, 0.82), rng.uniform(0.36, 0.4), rng.uniform(0.44, 0.56)
    paint = finish(rng, "ceramic")
    profile = [
        (half, deep, 0),
        (half, deep, h),
        (half - 0.08, deep - 0.08, h),
        (half - 0.13, deep - 0.13, h * 0.5),
        (half - 0.2, deep - 0.18, 0.14),
        (0, 0, 0.13),
    ]
    patches = [lathe((0, deep, 0), profile, paint, power=7, sides=48)]
    metal = finish(rng, "metal")
    patches.append(post((-half + 0.12, deep, h + 0.15), (-half + 0.26, deep, h + 0.12), 0.03, metal))
    pieces = [Piece("bathtub", patches)]
    if with_curtain:
        pieces += _hung_shower_curtain(rng, -half, half, 2 * deep + 0.02)
    return pieces


def bathtub_with_curtain(rng) -> Pieces:
    return bathtub(rng, True)


def _hung_shower_curtain(rng, x0: float, x1: float, y: float) -> Pieces:
    top, drawn = rng.uniform(1.9, 2.05), rng.uniform(0.3, 0.6) * (x1 - x0)
    left = x0 + 0.03 if rng.random() < 0.5 else x1 - drawn - 0.03
    cloth = sheet(
        left,
        left + drawn,
        rng.uniform(0.12, 0.3),
        top,
        y + 0.05,
        rng.uniform(0.05, 0.08),
        drawn / 0.13,
        finish(rng, "cloth", "white", "linen"),
    )
    rod = post((x0, y + 0.05, top + 0.02), (x1, y + 0.05, top + 0.02), 0.015, finish(rng, "metal"))
    return [Piece("shower curtain", [cloth]), Piece("shower curtain rod", [rod])]


def shower(rng) -> Pieces:
    """Tray on the floor with a curtain around it."""
    half, deep, paint = rng.uniform(0.42, 0.5), 0.42, finish(rng, "ceramic")
    tray = [
        (half, deep, 0),
        (half, deep, 0.1),
        (half - 0.06, deep - 0.06, 0.1),
        (half - 0.1, deep - 0.1, 0.04),
        (0, 0, 0.03),
    ]
    return [
        Piece("shower floor", [lathe((0, deep, 0), tray, paint, power=9, sides=32)]),
        *_hung_shower_curtain(rng, -half, half, 2 * deep),
    ]


def door(rng) -> Pieces:
    """Leaf set back in a frame that stands out from the wall, with a handle; one in four stands open."""
    w, h, depth = rng.uniform(0.8, 0.98), rng.uniform(1.98, 2.1), rng.uniform(0.09, 0.15)
    paint = finish(rng, "wood", "white", "grey", "wood")
    frame, metal = shaded(paint, rng.uniform(0.8, 1.1)), finish(rng, "metal")
    patches = []
    for low, high in (
        ((-w / 2 - 0.09, 0, 0), (-w / 2, 0.04, h)),
        ((w / 2, 0, 0), (w / 2 + 0.09, 0.04, h)),
        ((-w / 2 - 0.09, 0, h), (w / 2 + 0.09, 0.04, h + 0.09)),
    ):
        patches += box(low, high, frame, skip=("back",))
    patches.append(quad((-w / 2, 0.04, 0), (0, -depth - 0.04, 0), (0, 0, h), frame))
    patches.append(quad((w / 2, -depth, 0), (0, depth + 0.04, 0), (0, 0, h), frame))
    patches.append(quad((-w / 2, -depth, h), (0, depth + 0.04, 0), (w, 0, 0), frame))
    leaf = box((0, -0.02, 0.01), (w, 0.02, h), paint, skip=())
    for z0, z1 in ((0.2, 0.9), (1.1, h - 0.2)):
        leaf += box((0.12, 0.02, z0), (w - 0.12, 0.035, z1), shaded(paint, 1.06), skip=("back",))
    for side in (-1, 1):
        leaf.append(post((w - 0.08, side * 0.07, 1.0), (w - 0.2, side * 0.07, 1.0), 0.018, metal))
    swing = rng.uniform(0.8, 1.5) if rng.random() < 0.25 else rng.choice([0.0, 0.0, rng.uniform(0.0, 0.15)])
    hinge = (-w / 2 + 0.02, -depth + 0.02 if swing < 0.5 else 0.03, 0)
    return [Piece("door", patches + [patch.moved(swing, hinge) for patch in leaf])]


def window(rng) -> Pieces:
    """Panes set back behind bars, in a frame with a sill; at times a blind, and something seen outside."""
    w, h, depth = rng.uniform(0.9, 2.3), rng.uniform(1.0, 1.45), rng.uniform(0.14, 0.22)
    frame, glass = finish(rng, "white", "wood", "metal"), finish(rng, "glass")
    patches = [quad((w / 2, -depth, 0), (-w, 0, 0), (0, 0, h), glass)]
    patches.append(quad((-w / 2, -depth, 0), (w, 0, 0), (0, depth, 0), frame))
    patches.append(quad((-w / 2, 0, h), (w, 0, 0), (0, -depth, 0), frame))
    patches.append(quad((-w / 2, 0, 0), (0, -depth, 0), (0, 0, h), frame))
    patches.append(quad((w / 2, -depth, 0), (0, depth, 0), (0, 0, h), frame))
    patches += box((-w / 2 - 0.06, 0, -0.06), (w / 2 + 0.06, 0.1, 0), frame, skip=("back",))
    for low, high in (
        ((-w / 2 - 0.06, 0, 0), (-w / 2, 0.03, h)),
        ((w / 2, 0, 0), (w / 2 + 0.06, 0.03, h)),
        ((-w / 2 - 0.06, 0, h), (w / 2 + 0.06, 0.03, h + 0.06)),
    ):
        patches += box(low, high, frame, skip=("back",))
    bars = max(2, int(round(w / 0.6)) + 1)
    for x in np.linspace(-w / 2, w / 2, bars):
        patches += box((x - 0.03, -depth, 0), (x + 0.03, -depth + 0.07, h), frame, skip=("back",))
    z = h * rng.uniform(0.4, 0.7)
    for low in (0.0, z, h - 0.06):
        patches += box((-w / 2, -depth, low), (w / 2, -depth + 0.07, low + 0.06), frame, skip=("back",))
    pieces = [Piece("window", patches)]
    if rng.random() < 0.2:
        drop = h * rng.uniform(0.2, 0.6)
        pieces.append(
            Piece(
                "blinds",
                [sheet(-w / 2, w / 2, h - drop, h, -0.03, 0.008, w * 6, finish(rng, "white", "linen"))],
            )
        )
    if rng.random() < 0.5:
        x, y = rng.uniform(-w / 3, w / 3), -depth - rng.uniform(0.2, 0.7)
        pieces.append(
            Piece(
                "",
                [
                    quad(
                        (x + 0.3, y, rng.uniform(0, 0.3)),
                        (-0.6, rng.normal(0, 0.2), 0),
                        (0, rng.normal(0, 0.2), 0.7),
                        finish(rng, "glass", "leaf"),
                    )
                ],
            )
        )
    return pieces


def window_place(rng) -> Pieces:
    """Window at its height above the floor, at times over a radiator."""
    bottom = rng.uniform(0.68, 0.98)
    pieces = [piece.moved(0, (0, 0, bottom)) for piece in window(rng)]
    return pieces + (radiator(rng) if rng.random() < 0.2 else [])


def curtained_window(rng) -> Pieces:
    """Window between two wavy sheets that hang from a rod."""
    pieces = window_place(rng)
    (x0, _, _), (x1, _, top) = pieces[0].bounds()
    height = min(top + rng.uniform(0.05, 0.2), 2.35)
    bottom = rng.choice([0.04, 0.1, 0.6], p=[0.45, 0.35, 0.2])
    cloth, phase = finish(rng, "cloth", "linen", "white"), rng.uniform(0, 6)
    drawn, wave = rng.uniform(0.4, 0.75), rng.uniform(0.04, 0.06)
    for left in (x0 - 0.15, x1 + 0.15 - drawn):
        folds = sheet(left, left + drawn, bottom, height, 0.17, wave, drawn / 0.16, cloth, phase)
        pieces.append(Piece("curtain", [folds]))
    rod = post(
        (x0 - 0.2, 0.17, height + 0.02), (x1 + 0.2, 0.17, height + 0.02), 0.018, finish(rng, "metal", "dark")
    )
    return [*pieces, Piece("curtain rod", [rod])]


def picture(rng) -> Pieces:
    """Framed print standing out from the wall."""
    w, h, out = rng.uniform(0.3, 0.95), rng.uniform(0.3, 0.75), rng.uniform(0.035, 0.055)
    frame, t = finish(rng, "wood", "dark", "white"), rng.uniform(0.025, 0.05)
    patches = [quad((w / 2 - t, out * 0.6, t), (-w + 2 * t, 0, 0), (0, 0, h - 2 * t), finish(rng, "print"))]
    for low, high in (
        ((-w / 2, 0, 0), (w / 2, out, t)),
        ((-w / 2, 0, h - t), (w / 2, out, h)),
        ((-w / 2, 0, t), (-w / 2 + t, out, h - t)),
        ((w / 2 - t, 0, t), (w / 2, out, h - t)),
    ):
        patches += box(low, high, frame, skip=("back",))
    return [Piece("picture", patches)]


def whiteboard(rng) -> Pieces:
    w, h, metal = rng.uniform(1.2, 2.4), rng.uniform(0.9, 1.2), finish(rng, "metal")
    patches = box((-w / 2, 0, 0), (w / 2, 0.025, h), metal, skip=("back",), front=finish(rng, "white"))
    return [Piece("whiteboard", patches + box((-w / 2, 0.02, -0.02), (w / 2, 0.09, 0), metal))]


def wall_tv(rng) -> Pieces:
    half, black = rng.uniform(0.45, 0.7), finish(rng, "dark")
    return [Piece("tv", box((-half, 0.04, 0), (half, 0.1, 1.12 * half), black, skip=()))]


def wall_shelf(rng) -> Pieces:
    w, wood = rng.uniform(0.6, 1.1), finish(rng, "wood", "white")
    return [
        Piece("shelf", box((-w / 2, 0, 0), (w / 2, 0.24, 0.03), wood, skip=("back",))),
        *on_top(rng, 0, 0.12, 0.03, w, 0.1, 3),
    ]


def towel(rng) -> Pieces:
    w, cloth = rng.uniform(0.4, 0.6), finish(rng, "linen", "fabric")
    return [Piece("towel", [sheet(-w / 2, w / 2, 0, rng.uniform(0.45, 0.7), 0.06, 0.012, 3, cloth)])]


def radiator(rng) -> Pieces:
    """Ribbed body near the floor, below windows."""
    w, h, paint = rng.uniform(0.8, 1.4), rng.uniform(0.5, 0.62), finish(rng, "white", "grey")
    ribs = sheet(-w / 2, w / 2, 0.12, h, 0.13, 0.025, w / 0.12, paint, two_sided=False)
    patches = [ribs, *box((-w / 2, 0.03, 0.12), (w / 2, 0.12, h), paint)]
    return [Piece("radiator", patches)]


def column(rng) -> Pieces:
    """A pillar or duct from floor to ceiling."""
    half, d = rng.uniform(0.15, 0.3), rng.uniform(0.2, 0.4)
    return [
        Piece(
            "column",
            box(
                (-half, 0, 0),
                (half, d, 2.5),
                finish(rng, "wall_paint", "grey"),
                skip=("back", "bottom", "top"),
            ),
        )
    ]


def railing(rng) -> Pieces:
    """Rail on posts, as at stairs and galleries."""
    w, metal = rng.uniform(1.0, 2.0), finish(rng, "metal", "wood")
    patches = [
        post((x, 0.05, 0), (x, 0.05, 0.95), 0.02, metal) for x in np.linspace(-w / 2, w / 2, int(w / 0.16))
    ]
    return [Piece("railing", [*patches, post((-w / 2, 0.05, 0.97), (w / 2, 0.05, 0.97), 0.03, metal)])]


def partition(rng) -> Pieces:
    """A stub of wall that divides a flat."""
    half, d = 0.07, rng.uniform(1.2, 1.8)
    return [
        Piece("wall", box((-half, 0, 0), (half, d, 2.4), finish(rng, "wall_paint"), skip=("back", "bottom")))
    ]


def fireplace(rng) -> Pieces:
    w, stone, dark = rng.uniform(1.2, 1.5), finish(rng, "stone"), finish(rng, "dark")
    patches = box((-w / 2, 0, 0), (-w / 2 + 0.3, 0.3, 1.1), stone) + box(
        (w / 2 - 0.3, 0, 0), (w / 2, 0.3, 1.1), stone
    )
    patches += box((-w / 2 - 0.06, 0, 1.1), (w / 2 + 0.06, 0.38, 1.18), stone, skip=())
    patches += box((-w / 2 + 0.3, 0, 0.75), (w / 2 - 0.3, 0.3, 1.1), stone, skip=("left", "right"))
    patches.append(quad((w / 2 - 0.3, 0.03, 0), (-w + 0.6, 0, 0), (0, 0, 0.75), dark))
    return [Piece("fireplace", patches)]
