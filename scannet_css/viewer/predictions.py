"""Predictions of validation rooms, as benchmarks/run.py --keep-predictions leaves them:

RUN/predictions/step<k>/<scene>.safetensors
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from scannet_css.classes import BACKGROUND, BACKGROUND_NAME, CLASS_LISTS, IGNORE, SCANNET_LISTS
from scannet_css.errors import InputError
from scannet_css.scenes import Scene, load_manifest
from scannet_css.scenes.store import MANIFEST, read_header

_STEP = re.compile(r"step(\d{1,4})")


@dataclass
class Prediction:
    """What a run predicted for one room after one step."""

    step: int
    channels: list[str]  # names, "background" first
    values: np.ndarray  # (P,) uint8: channel of each vertex

    def truth(self, scene: Scene, classes: Sequence[str]) -> np.ndarray:
        """(P,) uint8: the scene's labels as this prediction's channels: others are background, 255 stays."""
        return channel_table(self.channels, classes)[scene.labels.numpy()]

    def wrong(self, scene: Scene, classes: Sequence[str]) -> np.ndarray:
        """(P,) bool: labelled vertices whose channel is not the true one."""
        truth = self.truth(scene, classes)
        return (truth != IGNORE) & (truth != self.values)


@dataclass
class RoomRun:
    """The predictions of one run for one room, by step."""

    title: str
    steps: list[Prediction]


def find_runs(
    folders: Iterable[Path],
    scene: Scene,
    classes: Sequence[str],
    titles: Sequence[str] | None = None,
) -> list[RoomRun]:
    """The predictions that the runs in `folders` kept of `scene`; a run without any is left out.

    A run's title is that of `titles`, or its method's name, with its folder where two would be called the
    same. Raises InputError if a prediction is damaged or of another room.
    """
    folders = list(folders)
    runs = []
    for folder, title in zip(folders, titles or default_titles(folders), strict=True):
        numbered = {
            int(match[1]): path / f"{scene.name}.safetensors"
            for path in (folder / "predictions").glob("step*")
            if (match := _STEP.fullmatch(path.name))
        }
        steps = [
            load_prediction(numbered[step], scene, classes)
            for step in sorted(numbered)
            if numbered[step].exists()
        ]
        if steps:
            runs.append(RoomRun(title, steps))
    return runs


def default_titles(folders: Sequence[Path]) -> list[str]:
    """A title for each run's folder: its method, and the folder where several have the same."""
    titles = [_method(folder) for folder in folders]
    return [
        title if titles.count(title) == 1 else f"{title} ({folder.resolve().name})"
        for title, folder in zip(titles, folders, strict=True)
    ]


def _method(folder: Path) -> str:
    """The method's name as the run's settings have it, else the name of its folder; for a prediction's file
    of the run that it lies in."""
    if folder.is_file():
        inside = folder.resolve().parents
        folder = inside[2] if inside[1].name == "predictions" else inside[0]
    try:
        return str(json.loads((folder / "settings.json").read_bytes())["method"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return folder.resolve().name


def load_prediction(path: Path, scene: Scene, classes: Sequence[str]) -> Prediction:
    """Reads a prediction of `scene`. Raises InputError if the file is damaged or belongs to another scene."""
    try:
        with safe_open(path, framework="np") as file:
            header, values = file.metadata() or {}, file.get_tensor("prediction")
    except SafetensorError as error:
        raise InputError(f"{path}: {error}; expected a prediction file") from None
    try:
        channels = json.loads(header.get("channels", ""))
    except (ValueError, RecursionError):
        channels = None
    unknown = [name for name in channels[1:] if name not in classes] if isinstance(channels, list) else None
    if unknown is None or unknown or channels[:1] != [BACKGROUND_NAME]:
        raise InputError(f"{path}: channels are {channels}, expected background and the data set's classes")
    if header.get("scene") != scene.name:
        raise InputError(f"{path}: predicts scene {header.get('scene')}, expected {scene.name}")
    points = len(scene.points)
    if values.dtype != np.uint8 or values.shape != (points,) or (points and values.max() >= len(channels)):
        found = f"{values.dtype} {values.shape}, largest {values.max(initial=0)}"
        raise InputError(f"{path}: prediction is {found}; expected uint8 ({points},) below {len(channels)}")
    match = _STEP.fullmatch(path.resolve().parent.name)
    return Prediction(int(match[1]) if match else 0, channels, values)


def channel_table(channels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(256,) uint8: data set label -> channel; classes without one are background, the rest is 255."""
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[: len(classes)] = [channels.index(name) if name in channels else BACKGROUND for name in classes]
    return table


def classes_of(scene_path: Path) -> tuple[str, ...]:
    """The class names of a prepared scene: its manifest's; of a file on its own ScanNet's 20 or 200.

    Raises InputError if there is no manifest and the scene has another number of classes.
    """
    folder = scene_path.resolve().parents[1]
    count = len(read_header(scene_path).entry.class_counts)
    if (folder / MANIFEST).exists():
        classes = load_manifest(folder).classes
    else:
        lists = (CLASS_LISTS[name].names for name in SCANNET_LISTS)
        classes = next((names for names in lists if len(names) == count), ())
    if len(classes) != count:
        raise InputError(f"{scene_path}: has {count} classes; expected {folder / MANIFEST}, which names them")
    return classes
