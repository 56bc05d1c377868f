"""Views of the synthetic rooms, in the layout of ScanNet's frames: the same rooms and splits as the scans.

    scene0000_00/color/000000.jpg      photo
    scene0000_00/label/000000.png      NYU40 ids, 8 bits, 0 where nothing is seen
    scene0000_00/depth/000000.png      16 bits, millimetres along the camera's axis, 0 where nothing is seen
    scene0000_00/pose/000000.txt       camera to room: a corner at the origin, walls along x and y, z up
    scene0000_00/intrinsics_color.txt, intrinsics_depth.txt

A view depends on nothing but (seed, split, room, number of the view, size). Unlike a scan it shows the whole
surfaces: a photo has no holes where a scanner saw nothing.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from scannet_css.errors import InputError
from scannet_css.files import write_atomic, write_json
from scannet_css.synthetic.cameras import choose_cameras
from scannet_css.synthetic.render import Painter, View, render
from scannet_css.synthetic.rooms import make_room
from scannet_css.synthetic.scans import (
    LARGEST_SET,
    SETTINGS_FILE,
    STREAMS,
    check_settings,
    make_missing,
    scan_name,
    whole_folder,
)
from scannet_css.synthetic.zbuffer import Camera, surfaces_of

VIEWS_VERSION = 1
MOST_VIEWS, SIDES = 1000, (16, 2048)
_CAMERAS, _LIGHT, _GRAIN = 3, 4, 5  # streams of random numbers, beside those of rooms.py


def make_views(
    seed: int, split: str, index: int, count: int, width: int = 160, height: int = 120
) -> list[View]:
    """The first `count` views of room `index` of a split."""
    stream = STREAMS[split]
    room = make_room(seed, stream, index, np.random.default_rng([seed, stream, 0, index]))
    surfaces = surfaces_of(room)
    chooser = np.random.default_rng([seed, stream, _CAMERAS, index])
    painter = Painter(surfaces.patches, [seed, stream, _LIGHT, index])
    return [
        render(room, surfaces, camera, painter, np.random.default_rng([seed, stream, _GRAIN, index, k]))
        for k, camera in enumerate(choose_cameras(room, surfaces, count, width, height, chooser))
    ]


def make_view_set(
    out: str | Path,
    train: int,
    val: int,
    seed: int,
    views: int = 14,
    size: tuple[int, int] = (160, 120),
    workers: int = 1,
) -> int:
    """Makes what is missing of a set of views, `views` of each room, and returns of how many rooms that was.

    size: columns, rows. Raises InputError for impossible numbers and for a folder that was made with others;
    OSError if it cannot be written.
    """
    out, (width, height) = Path(out), size
    for option, value, low, high in (
        ("train", train, 0, LARGEST_SET),
        ("val", val, 0, LARGEST_SET),
        ("seed", seed, 0, 2**32 - 1),
        ("views", views, 1, MOST_VIEWS),
        ("size", width, *SIDES),
        ("size", height, *SIDES),
        ("workers", workers, 1, 512),
    ):
        if not low <= value <= high:
            raise InputError(f"--{option} {value}: expected a number from {low} to {high}")
    settings = {"dataset": "synthetic_views", "seed": seed, "views": views, "width": width, "height": height}
    settings["views_version"] = VIEWS_VERSION
    check_settings(out, settings)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SETTINGS_FILE, settings | {"train": train, "val": val})
    jobs = []
    for split, count in (("train", train), ("val", val)):
        names = [scan_name(split, k) for k in range(count)]
        write_atomic(out / f"scannetv2_{split}.txt", "".join(f"{name}\n" for name in names))
        jobs += [
            (seed, split, k, views, size, out / name)
            for k, name in enumerate(names)
            if not (out / name).is_dir()
        ]
    make_missing(_make_one, jobs, workers, "room")
    return len(jobs)


def write_views(views: list[View], folder: Path) -> None:
    """Writes the views of one room into `folder`, named as its scan; it is whole or absent."""
    with whole_folder(folder) as temporary:
        for part in ("color", "label", "depth", "pose"):
            (temporary / part).mkdir()
        for k, view in enumerate(views):
            millimetres = np.clip(np.rint(view.depth * 1000), 0, 65535).astype(np.uint16)
            photo = _encoded(view.photo, "JPEG", quality=95, subsampling=0)
            (temporary / "color" / f"{k:06d}.jpg").write_bytes(photo)
            (temporary / "label" / f"{k:06d}.png").write_bytes(_encoded(view.nyu40, "PNG"))
            (temporary / "depth" / f"{k:06d}.png").write_bytes(_encoded(millimetres, "PNG"))
            (temporary / "pose" / f"{k:06d}.txt").write_text(_matrix(view.camera.pose), encoding="utf-8")
        for kind in ("color", "depth"):
            intrinsics = _matrix(_intrinsics(views[0].camera))
            (temporary / f"intrinsics_{kind}.txt").write_text(intrinsics, encoding="utf-8")


def _make_one(seed: int, split: str, index: int, count: int, size: tuple[int, int], folder: Path) -> None:
    write_views(make_views(seed, split, index, count, *size), folder)


def _encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def _intrinsics(camera: Camera) -> np.ndarray:
    matrix = np.eye(4)
    matrix[0, 0] = matrix[1, 1] = camera.focal
    # the middle of the first pixel is (0, 0), as in ScanNet
    matrix[0, 2], matrix[1, 2] = camera.width / 2 - 0.5, camera.height / 2 - 0.5
    return matrix


def _matrix(matrix: np.ndarray) -> str:
    return "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in matrix)
