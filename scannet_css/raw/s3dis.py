"""S3DIS (Armeni et al., CVPR 2016), the raw release Stanford3dDataset_v1.2 or its aligned version.

    Area_5/office_3/Annotations/chair_2.txt     one object, one point a line: x y z in metres, red green blue

There are neither normals nor faces. The file of the whole room is not needed. Area 5 is the validation split,
as in the literature; the other five are for training.

A few lines of the released files are damaged, all in the same way: a character has lost its bit 0x20, which
leaves a control character. "103.0\\x100000" was 103.000000, the NUL between two colours a space, and
"-9.1\\x160" was -9.160 (lines before and after agree), so deleting the character, as is often advised, can
move a point by centimetres. The bit is put back.
"""

import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np

from scannet_css.classes import CLASS_LISTS
from scannet_css.errors import InputError
from scannet_css.raw.scan import Found, RawScan, Source, check_points

CLASSES = CLASS_LISTS["s3dis"].names
CLUTTER = CLASSES.index("clutter")
_RELEASE = json.loads((Path(__file__).parent / "splits" / "s3dis.json").read_text(encoding="utf-8"))
ROOMS = {  # area -> names of its rooms
    area: [f"{kind}_{number}" for kind, count in kinds.items() for number in range(1, count + 1)]
    for area, kinds in _RELEASE["rooms"].items()
}

_PLAIN = b"0123456789.+-eE \t\r\n"  # all that a sound file holds
_LOST_BIT = {code & ~0x20: code for code in b" .0123456789"}
_RESTORED = bytes(_LOST_BIT.get(code, code) for code in range(256))
_NUMBER = rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[ \t]+"
_COLOUR = rb"(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.0*)?"
_POINT = re.compile(rb"[ \t]*(?:%b){3}(?:%b[ \t]+){2}%b[ \t]*\r?" % (_NUMBER, _COLOUR, _COLOUR))
_MOST_DROPPED = 10  # lines of one file; with more it is no file of S3DIS, or a wreck


def matches(path: Path) -> bool:
    """Whether folders named like areas lie in `path`."""
    return any((path / area).is_dir() for area in ROOMS)


class S3DISReader:
    """Reads the folder that holds Area_1 to Area_6, or some of them. See Reader in scan.py."""

    dataset = "s3dis"
    classes = CLASSES
    voxel_size = 0.02

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.settings: dict[str, str] = {}

    def find(self) -> Found:
        """The rooms of the release that are there. Raises InputError if there are none."""
        sources, unlisted, absent = [], [], {"train": 0, "val": 0}
        for area, rooms in ROOMS.items():
            split = "val" if area in _RELEASE["validation"] else "train"
            folders = {path.name: path for path in (self.root / area).glob("*") if path.is_dir()}
            for room in sorted(folders.keys() & set(rooms)):
                annotations = folders[room] / "Annotations"
                # without objects the folder stands for them, and reading the room says what is wrong
                files = tuple(sorted(annotations.glob("*.txt"))) or (annotations,)
                sources.append(Source(f"{area}_{room}", split, files))
            unlisted += sorted(f"{area}_{room}" for room in folders.keys() - set(rooms))
            absent[split] += len(set(rooms) - folders.keys())
        if not sources:
            raise InputError(f"{self.root}: no rooms of S3DIS; expected folders like Area_1/office_1")
        return Found(sources, unlisted, absent)

    def read(self, source: Source) -> RawScan:
        """One room: its objects one after the other, sorted by file name; the object's number is the
        instance."""
        folder = source.files[0].parent
        if source.files[0].suffix != ".txt":
            raise InputError(f"{source.files[0]}: no objects; expected files like chair_1.txt")
        points, colours, labels, findings = [], [], [], Counter()
        for path in source.files:
            values, odd = _read_object(path)
            with np.errstate(over="ignore"):  # infinite then, and refused as such below
                points.append(values[:, :3].astype(np.float32))
            colours.append(values[:, 3:].astype(np.uint8))
            name = path.stem.split("_")[0]
            labels.append(CLASSES.index(name) if name in CLASSES else CLUTTER)
            findings.update(odd, unknown_classes=int(name not in CLASSES))
        sizes = [len(part) for part in points]
        scan = RawScan(
            name=source.name,
            points=np.concatenate(points),
            colours=np.concatenate(colours),
            normals=None,
            faces=np.empty((0, 3), np.int32),
            labels=np.repeat(np.array(labels, np.uint8), sizes),
            instances=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            findings=dict(findings),
        )
        check_points(folder, scan.points)
        return scan


def _read_object(path: Path) -> tuple[np.ndarray, dict[str, int]]:
    """The points of one object (P, 6) float64, and how many lines were repaired and how many left out."""
    data = path.read_bytes()
    values, odd = _parse(data), {}
    if values is None:
        values, odd = _repair(path, data.split(b"\n"))
    if len(values) == 0:
        raise InputError(f"{path}: the object is empty, no points")
    return values, odd


def _parse(data: bytes) -> np.ndarray | None:
    """All points at once, or None if any line is not exactly six numbers with colours of 0 to 255."""
    if data.translate(None, _PLAIN) or not data.strip():
        return None
    try:
        values = np.loadtxt(io.BytesIO(data), comments=None, ndmin=2, encoding="ascii")
    except ValueError:
        return None
    return values if values.shape[1] == 6 and _are_colours(values[:, 3:]).all() else None


def _repair(path: Path, lines: list[bytes]) -> tuple[np.ndarray, dict[str, int]]:
    """As _read_object: puts lost bits back and leaves out the lines that are no points even so."""
    restored = [line.translate(_RESTORED) for line in lines]
    sound = [_POINT.fullmatch(line) is not None for line in restored]
    dropped = [number for number, line in enumerate(lines) if not sound[number] and line.strip()]
    if len(dropped) > _MOST_DROPPED:
        raise InputError(
            f"{path}:{dropped[0] + 1}: {lines[dropped[0]][:60].decode('latin-1')!r}, like {len(dropped) - 1} "
            "more lines, is no point; expected x y z red green blue"
        )
    kept = [number for number, is_sound in enumerate(sound) if is_sound]
    values = _parse(b"\n".join(restored[number] for number in kept))
    repaired = sum(restored[number] != lines[number] for number in kept)
    odd = {"repaired_lines": repaired, "damaged_lines": len(dropped)}
    return np.empty((0, 6)) if values is None else values, odd


def _are_colours(values: np.ndarray) -> np.ndarray:
    return (values >= 0) & (values <= 255) & (values == np.floor(values))
