"""Kitchens and bathrooms.

Every function gives the pieces of one object or set in its own frame: back at y = 0 against the wall,
looking towards +y, centred on x = 0, standing on z = 0; metres. What is let into a wall has negative y.
"""

import numpy as np

from scannet_css.synthetic.paint import finish, shaded
from scannet_css.synthetic.shapes.small import on_top
from scannet_css.synthetic.shapes.storage import door_fronts
from scannet_css.synthetic.surfaces import Patch, Piece, Pieces, box, lathe, post, quad, sheet


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
    """A slab with a rectangular hole (x0, x1, y0, y1), or none, and an upstand at the wall."""
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
    base = box((-w / 2, 0, 0.08), (w / 2, d - 0.04, z - 0.05), shaded(wood, 0.92), skip=("top", "bottom"))
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
    split = h * rng.choice([0.32, 0.68])
    patches = box((-w / 2, 0, 0), (w / 2, d - 0.07, h), body)
    for low, high in ((0.03, split - 0.012), (split + 0.012, h)):
        patches += box((-w / 2, d - 0.06, low), (w / 2, d, high), shaded(body, 1.03), skip=("back",))
        inner = high - 0.08 if high < h else low + 0.08
        outer = max(inner - 0.45, low + 0.04) if high < h else min(inner + 0.45, high - 0.04)
        x = w / 2 - 0.08
        patches.append(post((x, d + 0.05, min(inner, outer)), (x, d + 0.05, max(inner, outer)), 0.02, metal))
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
        base = box((-w / 2, 0, 0), (w / 2, d - 0.04, z - 0.04), shaded(wood, 0.92), skip=("top", "bottom"))
        base += door_fronts(-w / 2, w / 2, d - 0.04, 0.08, z - 0.05, wood, finish(rng, "metal"), 0.4)
        top = _top_with_hole(
            -w / 2, w / 2, d, z, 0.04, (-0.2, 0.2, 0.14, 0.44), finish(rng, "stone", "ceramic")
        )
        pieces = [
            Piece("bathroom vanity", base),
            Piece("bathroom counter" if w > 1.05 else "bathroom vanity", top),
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


def towel(rng) -> Pieces:
    w, cloth = rng.uniform(0.4, 0.6), finish(rng, "linen", "fabric")
    return [Piece("towel", [sheet(-w / 2, w / 2, 0, rng.uniform(0.45, 0.7), 0.06, 0.012, 3, cloth)])]
