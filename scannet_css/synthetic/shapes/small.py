"""Small things: what stands on tables and lies about on floors.

Every function gives the pieces of one object or set in its own frame: back at y = 0 against the wall,
looking towards +y, centred on x = 0, standing on z = 0; metres. What is let into a wall has negative y.
"""

import numpy as np

from scannet_css.synthetic.paint import finish
from scannet_css.synthetic.surfaces import Piece, Pieces, box, lathe, moved, post, quad


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


def clutter(rng) -> Pieces:
    """One or two things that lie about on the floor."""
    return on_top(rng, 0, 0.3, 0, 0.6, 0.6, int(rng.integers(1, 3)))


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
