"""A room as PLY files for MeshLab and CloudCompare: one for every panel of the viewer."""

import re
from collections.abc import Sequence

import numpy as np

from scannet_css.classes import BACKGROUND_NAME, IGNORE, UNLABELLED_NAME, class_list
from scannet_css.raw.ply_files import ply_bytes
from scannet_css.scenes import Scene
from scannet_css.viewer.picture import error_colours, paint
from scannet_css.viewer.predictions import RoomRun, channel_table

UNLABELLED_ID = -1
_FIELDS = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
_COLOUR = [(name, "u1") for name in ("red", "green", "blue")]


def room_plys(scene: Scene, runs: Sequence[RoomRun], classes: Sequence[str]) -> dict[str, bytes]:
    """What follows the files' common name -> PLY of P vertices x y z nx ny nz red green blue and integers.

    "" has the scan's colours, `label` (the class's id, NYU40's for ScanNet's 20 classes; -1 unlabelled) and a
    property `<run>_step<k>` for every prediction (0 background). "-truth", "-<run>" and "-<run>-errors" have
    the colours of ground truth, prediction and errors after the run's last step, and one integer, `label`.
    """
    channels = [BACKGROUND_NAME, *classes]
    labels = _ids(channel_table(channels, classes)[scene.labels.numpy()], channels, classes)
    ids = class_list(classes).channel_ids(channels)
    legend = [f"label {number} {name}" for number, name in zip(ids, channels, strict=True)]
    names = _words([run.title for run in runs])
    integers = {"label": labels}
    for run, name in zip(runs, names, strict=True):
        for one in run.steps:
            integers[f"{name}_step{one.step}"] = _ids(one.values, one.channels, classes)

    def ply(colours: np.ndarray, numbers: dict[str, np.ndarray]) -> bytes:
        return _ply(scene, colours, numbers, [f"label {UNLABELLED_ID} {UNLABELLED_NAME}", *legend])

    truth = channel_table(channels, classes)[scene.labels.numpy()]
    files = {
        "": ply(scene.colours.numpy(), integers),
        "-truth": ply(paint(truth, channels, classes), {"label": labels}),
    }
    for run, name in zip(runs, names, strict=True):
        last = run.steps[-1]
        found = {"label": _ids(last.values, last.channels, classes)}
        files[f"-{name}"] = ply(paint(last.values, last.channels, classes), found)
        files[f"-{name}-errors"] = ply(error_colours(last, scene, classes), found)
    return files


def _ids(values: np.ndarray, channels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    table = np.full(256, UNLABELLED_ID, dtype=np.int32)
    table[: len(channels)] = class_list(classes).channel_ids(channels)
    table[IGNORE] = UNLABELLED_ID
    return table[values]


def _words(titles: Sequence[str]) -> list[str]:
    """Titles as names of files and properties: letters, digits and _; all different."""
    words: list[str] = []
    for title in titles:
        word = stem = re.sub(r"[^A-Za-z0-9]+", "_", title).strip("_")[:40] or "run"
        count = 2
        while word in words or word == "truth":
            word, count = f"{stem}_{count}", count + 1
        words.append(word)
    return words


def _ply(scene: Scene, colours: np.ndarray, numbers: dict[str, np.ndarray], legend: Sequence[str]) -> bytes:
    vertices = np.empty(len(colours), [*_FIELDS, *_COLOUR, *((name, "<i4") for name in numbers)])
    places = np.concatenate([scene.points.numpy(), scene.normals.numpy()], axis=1)
    for column, (name, _) in enumerate(_FIELDS):
        vertices[name] = places[:, column]
    for column, (name, _) in enumerate(_COLOUR):
        vertices[name] = colours[:, column]
    for name, values in numbers.items():
        vertices[name] = values
    comments = [" ".join(line.encode("ascii", "replace").decode().split()) for line in legend]
    return ply_bytes(vertices, comments=comments)
