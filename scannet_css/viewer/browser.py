"""The 3D viewer: rooms packed for a browser, and the page that shows them.

A packed room is a classic script, `rooms/<scene>.js`, that puts one object into `scannetRooms` (see pack_room
for what is in it). The page loads it with a <script> tag when the room is chosen, which works from disk as
well as from a server.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from scannet_css.classes import BACKGROUND, IGNORE
from scannet_css.files import write_atomic
from scannet_css.scenes import Scene
from scannet_css.viewer.picture import named_colours
from scannet_css.viewer.predictions import RoomRun

FINEST_STEP = 0.001  # metres; of positions, coarser in rooms of more than 65 m
_PACKAGE = Path(__file__).parents[1]
_SCRIPTS = (
    "vendor/three.min.js",
    *("viewer/page/packed_rooms.js", "viewer/page/points.js", "viewer/page/viewer.js"),
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def pack_room(scene: Scene, runs: Sequence[RoomRun], classes: Sequence[str]) -> dict:
    """A room as a JSON value. Classes are numbered 0 background, 1 + label, 255 unlabelled.

    `points` is deflated and in base64: P x 3 uint16 positions (metres: low + step * value), P x 3 uint8
    colours, P x 3 int8 normals (127 is 1), P uint8 true classes, one after the other, little-endian. A run's
    `predictions` are P uint8 classes for each of its steps. A step has `seen`, the classes that are not
    background, `added`, the names of those the step before did not have, and the number of `wrong` vertices
    among the room's `labelled`.
    """
    points = scene.points.numpy().astype(np.float64)
    low = points.min(axis=0) if len(points) else np.zeros(3)
    step = max(FINEST_STEP, float((points - low).max(initial=0)) / 65535)
    labels = scene.labels.numpy()
    numbers = np.where(labels == IGNORE, IGNORE, labels + 1).astype(np.uint8)
    parts = (
        np.rint((points - low) / step).astype("<u2"),
        scene.colours.numpy(),
        np.rint(scene.normals.numpy() * 127).astype(np.int8),
        numbers,
    )
    packed_runs = [_pack_run(run, scene, classes) for run in runs]
    return {
        "name": scene.name,
        "vertices": len(points),
        "labelled": int((labels != IGNORE).sum()),
        "low": [round(float(value), 6) for value in low],
        "step": step,
        "spacing": round(_spacing(points), 5),
        "points": _deflate(b"".join(part.tobytes() for part in parts)),
        "classes": _legend(numbers, runs, classes),
        "runs": packed_runs,
    }


def _pack_run(run: RoomRun, scene: Scene, classes: Sequence[str]) -> dict:
    steps, predictions, known = [], [], set()
    for one in run.steps:
        numbers = [0, *(1 + classes.index(name) for name in one.channels[1:])]
        predictions.append(np.array(numbers, dtype=np.uint8)[one.values].tobytes())
        wrong = int(one.wrong(scene, classes).sum())
        added = [name for name in one.channels[1:] if name not in known]
        known.update(added)
        steps.append({"step": one.step, "seen": numbers[1:], "added": added, "wrong": wrong})
    return {"title": run.title, "steps": steps, "predictions": _deflate(b"".join(predictions))}


def _legend(numbers: np.ndarray, runs: Sequence[RoomRun], classes: Sequence[str]) -> list[dict]:
    """The classes that occur in the room or in a prediction of it; background and unlabelled count."""
    occurring = {int(number) for number in np.unique(numbers)}
    for one in (one for run in runs for one in run.steps):
        seen = {1 + classes.index(name) for name in one.channels[1:]}
        if BACKGROUND in one.values or occurring - seen - {IGNORE}:
            occurring.add(BACKGROUND)
        occurring |= {1 + classes.index(one.channels[value]) for value in np.unique(one.values) if value}
    *named, unlabelled = named_colours(classes).items()  # background, then the classes
    shown = {**dict(enumerate(named)), IGNORE: unlabelled}
    return [
        {"number": number, "name": shown[number][0], "colour": list(shown[number][1])}
        for number in sorted(occurring)
    ]


def _spacing(points: np.ndarray) -> float:
    """Median distance (metres) of a vertex from the nearest other one; decides how large points are drawn."""
    if len(points) < 2:
        return 0.02
    some = points[:: max(1, len(points) // 4000)]
    return float(np.median(cKDTree(points).query(some, k=2)[0][:, 1])) or 0.02


def _deflate(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def room_script(scene: Scene, runs: Sequence[RoomRun], classes: Sequence[str]) -> str:
    """The script that registers a room, fit for a file of its own and for a <script> element."""
    room = script_json(pack_room(scene, runs, classes))
    return f"(globalThis.scannetRooms ??= {{}})[{script_json(scene.name)}] = {room};\n"


def script_json(value: object) -> str:
    """JSON that may stand in a <script> element and in an attribute's quotes once escaped."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def write_rooms(
    folder: Path, rooms: Iterable[tuple[Scene, Sequence[RoomRun]]], classes: Sequence[str]
) -> list[str]:
    """Writes `<scene>.js` for each room into `folder`; gives the scenes' names for viewer_html."""
    names = []
    for scene, runs in rooms:
        write_atomic(Path(folder) / f"{scene.name}.js", room_script(scene, runs, classes))
        names.append(scene.name)
    return names


def viewer_html(names: Sequence[str], folder: str | None = "rooms") -> str:
    """The element that becomes the viewer. `folder`: of the rooms' scripts, relative to the page; None if the
    page holds them itself."""
    rooms = [{"name": name, "file": folder and f"{folder}/{name}.js"} for name in names]
    return (
        f'<div class="room-viewer" data-rooms="{escape(json.dumps(rooms))}">'
        "<noscript>The 3D view needs JavaScript.</noscript></div>"
    )


def viewer_css() -> str:
    """The viewer's style sheet; every rule begins with .room-viewer."""
    return (_PACKAGE / "viewer/page/viewer.css").read_text(encoding="utf-8")


def viewer_js() -> str:
    """three.js and the viewer as one classic script; to be put behind the elements of viewer_html."""
    return "\n".join((_PACKAGE / path).read_text(encoding="utf-8") for path in _SCRIPTS)


def viewer_page(
    rooms: Iterable[tuple[Scene, Sequence[RoomRun]]], classes: Sequence[str], title: str = ""
) -> str:
    """One HTML file that holds the viewer and the rooms and needs nothing else."""
    scripts, names = [], []
    for scene, runs in rooms:
        scripts.append(f"<script>{room_script(scene, runs, classes)}</script>\n")
        names.append(scene.name)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title or ', '.join(names))}</title><style>{_PAGE_STYLE}{viewer_css()}</style></head>"
        f"<body>{viewer_html(names, None)}\n{''.join(scripts)}<script>{viewer_js()}</script></body></html>\n"
    )


def write_viewer_page(
    path: Path,
    rooms: Iterable[tuple[Scene, Sequence[RoomRun]]],
    classes: Sequence[str],
    title: str = "",
) -> None:
    """Writes `viewer_page`, atomically."""
    write_atomic(path, viewer_page(rooms, classes, title))


_PAGE_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; padding: .75rem; background: #f7f7f5; font: 15px/1.5 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { body { background: #121211; } }
"""
