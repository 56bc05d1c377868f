"""Pictures of a prepared scene: RGB, ground truth, prediction and errors side by side, with a class legend.

    python tools/view.py data/synthetic/prepared/val/scene0000_00.safetensors --out room.png
    python tools/view.py SCENE --prediction RUN/predictions/step1/scene0000_00.safetensors --out lgkd.png
    python tools/view.py SCENE --prediction A --title finetune --prediction B --title lgkd --out both.png

Predictions come from benchmarks/run.py --keep-predictions. Several stand in columns, each above its errors.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from safetensors import SafetensorError, safe_open

from scannet_css.errors import InputError, run_command
from scannet_css.files import write_atomic
from scannet_css.scenes import Scene, load_scene
from scannet_css.scenes.classes import CLASSES, COLOURS, IGNORE
from scannet_css.scenes.picture import render

PANEL = (560, 460)  # pixels
ELEVATION = 50.0  # degrees
TITLE_HEIGHT, LEGEND_LINE, MARGIN = 34, 26, 12
TEXT, PAPER = (30, 30, 30), (255, 255, 255)
BACKGROUND, UNLABELLED, WRONG, RIGHT = (150, 150, 150), (225, 225, 225), (230, 0, 100), (185, 200, 190)


@dataclass
class Prediction:
    title: str
    channels: list[str]  # names, "background" first
    values: np.ndarray  # (P,) channel of each vertex

    def truth(self, scene: Scene) -> np.ndarray:
        """(P,) the scene's labels as this prediction's channels: others are background, 255 stays."""
        return channel_table(self.channels)[scene.labels.numpy()]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Draw a prepared scene, its ground truth and predictions of it."
    )
    parser.add_argument("scene", type=Path, metavar="SCENE", help="prepared scene (.safetensors)")
    parser.add_argument(
        "--prediction", type=Path, action="append", default=[], help="may be given several times"
    )
    parser.add_argument(
        "--title", action="append", help="one for each prediction (default: its folder's name)"
    )
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument(
        "--azimuth", type=float, default=35.0, help="where the camera stands, in degrees (35)"
    )
    options = parser.parse_args(arguments)
    titles = options.title or [path.resolve().parent.name for path in options.prediction]
    if len(titles) != len(options.prediction):
        raise InputError(
            f"--title: {len(titles)} given, expected one for each of {len(options.prediction)} predictions"
        )
    scene = load_scene(options.scene)
    predictions = [
        load_prediction(path, title, scene) for path, title in zip(options.prediction, titles, strict=True)
    ]
    image = draw(scene, predictions, options.azimuth)
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    write_atomic(options.out, content.getvalue())
    print(f"wrote {options.out} ({image.width} x {image.height})")
    return 0


def load_prediction(path: Path, title: str, scene: Scene) -> Prediction:
    """Reads a prediction of `scene`. Raises InputError if the file is damaged or belongs to another scene."""
    try:
        with safe_open(path, framework="np") as file:
            header, values = file.metadata() or {}, file.get_tensor("prediction")
    except SafetensorError as error:
        raise InputError(f"{path}: {error}; expected a prediction file") from None
    try:
        channels = json.loads(header.get("channels", ""))
    except ValueError:
        channels = None
    unknown = [name for name in channels[1:] if name not in CLASSES] if isinstance(channels, list) else None
    if unknown is None or unknown or channels[:1] != ["background"]:
        raise InputError(f"{path}: channels are {channels}, expected background and the data set's classes")
    if header.get("scene") != scene.name:
        raise InputError(f"{path}: predicts scene {header.get('scene')}, expected {scene.name}")
    points = len(scene.points)
    if values.dtype != np.uint8 or values.shape != (points,) or (points and values.max() >= len(channels)):
        found = f"{values.dtype} {values.shape}, largest {values.max(initial=0)}"
        raise InputError(f"{path}: prediction is {found}; expected uint8 ({points},) below {len(channels)}")
    return Prediction(title, channels, values)


def channel_table(channels: Sequence[str]) -> np.ndarray:
    """(256,) uint8: data set label -> channel; classes without one are background, the rest is 255."""
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[: len(CLASSES)] = [channels.index(name) if name in channels else 0 for name in CLASSES]
    return table


def draw(scene: Scene, predictions: Sequence[Prediction], azimuth: float) -> Image.Image:
    """The picture: RGB | ground truth | prediction | errors in a row, or several predictions in columns."""
    seen = faces_camera(scene, azimuth)
    points = scene.points.numpy()[seen]
    channels = predictions[-1].channels if predictions else ["background", *CLASSES]
    truth = channel_table(channels)[scene.labels.numpy()]
    columns = [[("RGB", scene.colours.numpy()), ("ground truth", paint(truth, channels))]]
    shown = occurring(truth, channels)
    for one in predictions:
        own_truth = one.truth(scene)
        scored = own_truth != IGNORE
        wrong = scored & (one.values != own_truth)
        error_title = f"errors: {100 * wrong.sum() / max(scored.sum(), 1):.1f} % of labelled vertices"
        error_colours = np.where(wrong[:, None], WRONG, np.where(scored[:, None], RIGHT, UNLABELLED))
        columns.append([(one.title, paint(one.values, one.channels)), (error_title, error_colours)])
        shown |= occurring(one.values, one.channels)
    rows = list(zip(*columns, strict=True)) if len(predictions) > 1 else [sum(columns, [])]
    panels = [
        [(title, render(points, colours[seen], PANEL, azimuth, ELEVATION)) for title, colours in row]
        for row in rows
    ]
    legend = [(name, colour) for name, colour in class_colours().items() if name in shown]
    legend += [("wrong", WRONG), ("right", RIGHT)] if predictions else []
    return compose(panels, legend)


def faces_camera(scene: Scene, azimuth: float) -> np.ndarray:
    """(P,) whether a vertex's surface looks at the camera; near walls and ceiling do not."""
    around, above = np.deg2rad(azimuth), np.deg2rad(ELEVATION)
    camera = [np.cos(around) * np.cos(above), np.sin(around) * np.cos(above), np.sin(above)]
    normals = scene.normals.numpy()
    return (normals @ np.array(camera) > 0) | ~normals.any(axis=1)


def class_colours() -> dict[str, tuple[int, int, int]]:
    return {**dict(zip(CLASSES, COLOURS, strict=True)), "background": BACKGROUND, "unlabelled": UNLABELLED}


def paint(values: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """(P, 3) uint8: the colour of each vertex's channel."""
    colours = class_colours()
    table = np.full((256, 3), UNLABELLED, dtype=np.uint8)
    table[: len(channels)] = [colours[name] for name in channels]
    return table[values]


def occurring(values: np.ndarray, channels: Sequence[str]) -> set[str]:
    return {"unlabelled" if value == IGNORE else channels[value] for value in np.unique(values)}


def compose(panels: list[list[tuple[str, np.ndarray]]], legend: list[tuple[str, tuple]]) -> Image.Image:
    """Titled panels in rows above the legend."""
    font = ImageFont.load_default(16)
    width = max(len(row) for row in panels) * (PANEL[0] + MARGIN) + MARGIN
    places, bottom = legend_places(legend, font, width)
    row_height = PANEL[1] + TITLE_HEIGHT
    top = len(panels) * row_height + MARGIN
    image = Image.new("RGB", (width, top + bottom + MARGIN), PAPER)
    pen = ImageDraw.Draw(image)
    for row, line in enumerate(panels):
        for column, (title, pixels) in enumerate(line):
            corner = (MARGIN + column * (PANEL[0] + MARGIN), row * row_height)
            pen.text((corner[0] + 4, corner[1] + 10), title, fill=TEXT, font=font)
            image.paste(Image.fromarray(pixels), (corner[0], corner[1] + TITLE_HEIGHT))
    for (name, colour), (x, y) in zip(legend, places, strict=True):
        pen.rectangle((x, top + y + 4, x + 14, top + y + 18), fill=colour)
        pen.text((x + 20, top + y + 2), name, fill=TEXT, font=font)
    return image


def legend_places(legend: list[tuple[str, tuple]], font, width: int) -> tuple[list[tuple[int, int]], int]:
    """Where each entry stands, left to right and line by line, and the height of all lines."""
    places, x, y = [], MARGIN + 4, 0
    for name, _ in legend:
        entry = 20 + int(font.getlength(name)) + 18
        if x + entry > width and places:
            x, y = MARGIN + 4, y + LEGEND_LINE
        places.append((x, y))
        x += entry
    return places, y + LEGEND_LINE


if __name__ == "__main__":
    sys.exit(run_command(main))
