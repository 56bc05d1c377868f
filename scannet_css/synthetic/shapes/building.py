"""What belongs to the building: doors, windows with curtains, pictures, columns.

Every function gives the pieces of one object or set in its own frame: back at y = 0 against the wall,
looking towards +y, centred on x = 0, standing on z = 0; metres. What is let into a wall has negative y.
"""

import numpy as np

from scannet_css.synthetic.paint import finish, shaded
from scannet_css.synthetic.surfaces import Piece, Pieces, box, lathe, post, quad, sheet


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
    patches.append(quad((-w / 2, -depth, 0), (0, depth + 0.04, 0), (0, 0, h), frame))
    patches.append(quad((w / 2, 0.04, 0), (0, -depth - 0.04, 0), (0, 0, h), frame))
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
    """Panes set back behind bars, in a frame with a sill; at times more."""
    w, h, depth = rng.uniform(0.9, 2.3), rng.uniform(1.0, 1.45), rng.uniform(0.14, 0.22)
    frame, glass = finish(rng, "white", "wood", "metal"), finish(rng, "glass")
    patches = [quad((w / 2, -depth, 0), (-w, 0, 0), (0, 0, h), glass)]
    patches.append(quad((-w / 2, -depth, 0), (w, 0, 0), (0, depth, 0), frame))
    patches.append(quad((-w / 2, 0, h), (w, 0, 0), (0, -depth, 0), frame))
    patches.append(quad((-w / 2, -depth, 0), (0, depth, 0), (0, 0, h), frame))
    patches.append(quad((w / 2, 0, 0), (0, -depth, 0), (0, 0, h), frame))
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
    return [Piece("window", patches), *_before_and_behind_a_window(rng, w, h, depth)]


def _before_and_behind_a_window(rng, w: float, h: float, depth: float) -> Pieces:
    """At times a blind in a window of this width, height and depth, and something seen outside."""
    pieces = []
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
    drawn, wave = rng.uniform(0.5, 0.95), rng.uniform(0.04, 0.06)
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


def ceiling_light(rng) -> Pieces:
    """A lamp hung from the ceiling on a rod."""
    r, metal = rng.uniform(0.15, 0.28), finish(rng, "metal", "dark")
    shade = lathe(
        (0, r, 2.0),
        [(r, r, 0), (r * 0.6, r * 0.6, 0.2), (0, 0, 0.22)],
        finish(rng, "white", "linen"),
        sides=16,
    )
    return [Piece("ceiling light", [shade, post((0, r, 2.2), (0, r, 2.45), 0.015, metal)])]


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
