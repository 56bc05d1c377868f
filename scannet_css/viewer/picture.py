"""A picture of a room: RGB, ground truth, predictions and their errors side by side, with a class legend."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scannet_css.classes import (
    BACKGROUND_NAME,
    IGNORE,
    UNLABELLED_COLOUR,
    UNLABELLED_NAME,
    class_list,
)
from scannet_css.scenes import Scene
from scannet_css.viewer.drawing import render
from scannet_css.viewer.predictions import Prediction, RoomRun, channel_table

PANEL = (560, 460)  # pixels
AZIMUTH, ELEVATION = 35.0, 50.0  # degrees
TITLE_HEIGHT, LEGEND_LINE, MARGIN = 34, 26, 12
TEXT, PAPER = (30, 30, 30), (255, 255, 255)
WRONG, RIGHT = (230, 0, 100), (185, 200, 190)


def draw(
    scene: Scene, runs: Sequence[RoomRun], classes: Sequence[str], azimuth: float = AZIMUTH
) -> Image.Image:
    """RGB | ground truth | prediction | errors in a row, or several runs in columns; after the last steps."""
    seen = faces_camera(scene, azimuth)
    points = scene.points.numpy()[seen]
    channels = runs[-1].steps[-1].channels if runs else [BACKGROUND_NAME, *classes]
    truth = channel_table(channels, classes)[scene.labels.numpy()]
    columns = [[("RGB", scene.colours.numpy()), ("ground truth", paint(truth, channels, classes))]]
    shown = occurring(truth, channels)
    for run in runs:
        one = run.steps[-1]
        wrong, scored = one.wrong(scene, classes).sum(), (scene.labels.numpy() != IGNORE).sum()
        error_title = f"errors: {100 * wrong / max(scored, 1):.1f} % of labelled vertices"
        columns.append(
            [
                (run.title, paint(one.values, one.channels, classes)),
                (error_title, error_colours(one, scene, classes)),
            ]
        )
        shown |= occurring(one.values, one.channels)
    rows = list(zip(*columns, strict=True)) if len(runs) > 1 else [sum(columns, [])]
    panels = [
        [(title, render(points, colours[seen], PANEL, azimuth, ELEVATION)) for title, colours in row]
        for row in rows
    ]
    legend = [(name, colour) for name, colour in named_colours(classes).items() if name in shown]
    legend += [("wrong", WRONG), ("right", RIGHT)] if runs else []
    return compose(panels, legend)


def faces_camera(scene: Scene, azimuth: float) -> np.ndarray:
    """(P,) whether a vertex's surface looks at the camera; near walls and ceiling do not."""
    around, above = np.deg2rad(azimuth), np.deg2rad(ELEVATION)
    camera = [np.cos(around) * np.cos(above), np.sin(around) * np.cos(above), np.sin(above)]
    normals = scene.normals.numpy()
    return (normals @ np.array(camera) > 0) | ~normals.any(axis=1)


def named_colours(classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Name -> colour of every class, of background and of what nobody labelled."""
    names = [BACKGROUND_NAME, *classes]
    colours = map(tuple, class_list(classes).channel_colours(names).tolist())
    return {**dict(zip(names, colours, strict=True)), UNLABELLED_NAME: UNLABELLED_COLOUR}


def paint(values: np.ndarray, channels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(P, 3) uint8: the colour of each vertex's channel."""
    table = np.full((256, 3), UNLABELLED_COLOUR, dtype=np.uint8)
    table[: len(channels)] = class_list(classes).channel_colours(channels)
    return table[values]


def error_colours(prediction: Prediction, scene: Scene, classes: Sequence[str]) -> np.ndarray:
    """(P, 3) uint8: wrong, right or unlabelled."""
    scored = (scene.labels.numpy() != IGNORE)[:, None]
    wrong = prediction.wrong(scene, classes)[:, None]
    return np.where(wrong, WRONG, np.where(scored, RIGHT, UNLABELLED_COLOUR)).astype(np.uint8)


def occurring(values: np.ndarray, channels: Sequence[str]) -> set[str]:
    """The names of the channels that `values` holds."""
    return {UNLABELLED_NAME if value == IGNORE else channels[value] for value in np.unique(values)}


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
