"""A prepared room with its ground truth and predictions: 3D viewer, point clouds, picture.

    python tools/view.py data/scannet/val/scene0011_00.safetensors --run RUN --run RUN2 --out room
    python tools/view.py SCENE --run RUN/predictions/step1/scene0011_00.safetensors --out room.png
    python tools/view.py SCENE --run A --title finetune --run B --title lgkd --window

RUN is the folder of a run of benchmarks/run.py --keep-predictions. `--out room` writes room.html (every step
of every run; a browser shows it from disk), room.png (after the last steps; several runs in columns) and, for
MeshLab and CloudCompare, room.ply with all labels and predictions as integers, and room-truth.ply,
room-<method>.ply and room-<method>-errors.ply in the colours of the panels. `--out room.png`, room.html or
room.ply writes that one file.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError
from scannet_css.files import write_atomic
from scannet_css.scenes import Scene, load_scene
from scannet_css.viewer.browser import viewer_page
from scannet_css.viewer.picture import AZIMUTH, draw
from scannet_css.viewer.ply import room_plys
from scannet_css.viewer.predictions import RoomRun, classes_of, default_titles, find_runs, load_prediction
from scannet_css.viewer.window import open_window

KINDS = (".html", ".ply", ".png")


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    scene, classes = load_scene(options.scene), classes_of(options.scene)
    if not len(scene.points):
        raise InputError(f"{options.scene}: has no vertex; expected a room to show")
    runs = read_runs(options.run, options.title, scene, classes)
    if options.out:
        kind = options.out.suffix if options.out.suffix in KINDS else ""
        # everything is made before anything is written
        files = make_files(scene, runs, options.azimuth, classes, [kind] if kind else KINDS)
        for ending, content in ({"": files[kind]} if kind else files).items():
            path = options.out.with_name(options.out.name + ending)
            write_atomic(path, content)
            print(f"wrote {path}")
    if options.window:
        open_window(scene, runs, classes)
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("scene", type=Path, metavar="SCENE", help="prepared scene (.safetensors)")
    parser.add_argument(
        "--run",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a run's folder or one file of its predictions; may be given several times",
    )
    parser.add_argument("--title", action="append", help="one for each --run (default: its method)")
    parser.add_argument("--out", type=Path, help="what to write: a name, or one file (.html, .ply, .png)")
    parser.add_argument("--window", action="store_true", help="open it in rerun, or in open3d")
    parser.add_argument(
        "--azimuth",
        type=float,
        default=AZIMUTH,
        help="where the picture's camera stands, in degrees (%(default)s)",
    )
    options = parser.parse_args(arguments)
    if not options.out and not options.window:
        raise InputError("nothing to do; expected --out, --window or both")
    return options


def read_runs(
    paths: Sequence[Path], titles: Sequence[str] | None, scene: Scene, classes: Sequence[str]
) -> list[RoomRun]:
    if titles and len(titles) != len(paths):
        raise InputError(f"--title: {len(titles)} given, expected one for each of {len(paths)} predictions")
    runs = []
    for path, title in zip(paths, titles or default_titles(paths), strict=True):
        if not path.is_dir():
            runs.append(RoomRun(title, [load_prediction(path, scene, classes)]))
            continue
        found = find_runs([path], scene, classes, [title])
        if not found:
            raise InputError(
                f"{path}: no predictions/step*/{scene.name}.safetensors; expected a run of --keep-predictions"
            )
        runs += found
    return runs


def make_files(
    scene: Scene, runs: Sequence[RoomRun], azimuth: float, classes: Sequence[str], kinds: Sequence[str]
) -> dict[str, str | bytes]:
    """Ending of each file -> its content."""
    files: dict[str, str | bytes] = {}
    if ".html" in kinds:
        files[".html"] = viewer_page([(scene, runs)], classes)
    if ".png" in kinds:
        content = io.BytesIO()
        draw(scene, runs, classes, azimuth).save(content, format="PNG", optimize=True)
        files[".png"] = content.getvalue()
    if ".ply" in kinds:
        for ending, content in room_plys(scene, runs, classes).items():
            files[f"{ending}.ply"] = content
    return files


if __name__ == "__main__":
    sys.exit(run_command(main))
