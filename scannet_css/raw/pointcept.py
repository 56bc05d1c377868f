"""ScanNet as Pointcept prepares it: folders of numpy arrays, P vertices in the order of the raw mesh.

    train/scene0000_00/coord.npy       (P, 3) float32, metres
    train/scene0000_00/color.npy       (P, 3) uint8
    train/scene0000_00/normal.npy      (P, 3) float32
    train/scene0000_00/segment20.npy   (P,) integers: label 0 to 19, -1 ignored; segment200.npy for ScanNet200
    train/scene0000_00/instance.npy    (P,) integers, -1 for none

The folders train, val and test are the splits; test scans have neither labels nor instances. Labels come by
way of the segments, so they differ a little from those of labels.ply; the settings say which they are.
"""

import re
from pathlib import Path

import numpy as np

from scannet_css.classes import CLASS_LISTS, IGNORE
from scannet_css.errors import InputError
from scannet_css.raw.scan import Found, RawScan, Source, check_points, first

SPLITS = ("train", "val", "test")
_FIELDS = ("coord", "color", "normal", "instance")  # and the labels
_SCAN_NAME = re.compile(r"scene[0-9]{4}_[0-9]{2}")
_LONGEST_NORMAL = 1.001


def matches(path: Path) -> bool:
    """Whether the split folders of `path` hold prepared scans."""
    return any(
        _SCAN_NAME.fullmatch(file.parent.name)
        for split in SPLITS
        for file in (path / split).glob("*/coord.npy")
    )


class PointceptReader:
    """Reads the folder that holds train, val and test, or some of them. See Reader in scan.py."""

    dataset = "scannet"
    voxel_size = 0.02

    def __init__(self, root: str | Path, classes: str = "scannet20") -> None:
        self.root = Path(root)
        self.classes = CLASS_LISTS[classes].names
        self.labels = classes.replace("scannet", "segment")
        self.settings = {"labels": "segments", "source": "pointcept"}

    def find(self) -> Found:
        """The scans that are there, by split. Raises InputError if there are none or one is there twice."""
        sources: dict[str, Source] = {}
        for split in SPLITS:
            for folder in sorted((self.root / split).glob("*")):
                if not _SCAN_NAME.fullmatch(folder.name) or not folder.is_dir():
                    continue
                if folder.name in sources:
                    raise InputError(f"{folder}: the scan is also in {sources[folder.name].split}")
                files = [folder / f"{field}.npy" for field in (*_FIELDS, self.labels)]
                there = tuple(path for path in files if path.is_file()) or (folder / "coord.npy",)
                sources[folder.name] = Source(folder.name, split, there)
        if not sources:
            raise InputError(f"{self.root}: no scans; expected folders like train/scene0000_00")
        return Found([sources[name] for name in sorted(sources)])

    def read(self, source: Source) -> RawScan:
        """One scan; coordinates, colours and normals must be there."""
        folder = source.files[0].parent
        there = {path.stem: path for path in source.files}
        points = _read_points(folder / "coord.npy")
        count, labels, instances = len(points), None, None
        if self.labels in there:
            numbers = _read_numbers(there[self.labels], count, len(self.classes))
            labels = np.where(numbers < 0, IGNORE, numbers).astype(np.uint8)
        if "instance" in there:
            instances = _read_numbers(there["instance"], count, 2**31).astype(np.int32)
        return RawScan(
            name=source.name,
            points=points,
            colours=_read(folder / "color.npy", columns=3, type_name="uint8", rows=count),
            normals=_read_normals(folder / "normal.npy", count),
            faces=np.empty((0, 3), np.int32),
            labels=labels,
            instances=instances,
        )


def _read_points(path: Path) -> np.ndarray:
    """Positions (P, 3) that can be a room."""
    points = _read(path, columns=3, type_name="float32")
    check_points(path, points)
    return points


def _read_normals(path: Path, count: int) -> np.ndarray:
    """Normals (count, 3), none longer than 1; zero where a vertex has no face."""
    normals = _read(path, columns=3, type_name="float32", rows=count)
    length = np.linalg.norm(normals, axis=1)
    sound = length <= _LONGEST_NORMAL  # false for NaN too
    if not sound.all():
        bad = first(~sound)
        raise InputError(f"{path}: the normal of vertex {bad} has length {length[bad]:g}; expected at most 1")
    return normals


def _read_numbers(path: Path, count: int, end: int) -> np.ndarray:
    """Whole numbers (count,) int64 from -1 to end - 1."""
    numbers = _read(path, columns=0, type_name="integer", rows=count)
    sound = (numbers >= -1) & (numbers < end)
    if not sound.all():
        bad = first(~sound)
        raise InputError(f"{path}: vertex {bad} has {numbers[bad]}; expected -1 to {end - 1}")
    return numbers.astype(np.int64)


def _read(path: Path, columns: int, type_name: str, rows: int | None = None) -> np.ndarray:
    """The array (rows, columns), or (rows,) for no columns, of a .npy file that holds nothing else."""
    size = path.stat().st_size
    try:
        # as a map, for numpy would trust the header of a damaged file with its memory; objects it refuses
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # the header is read as Python, which fails in many ways
        raise InputError(f"{path}: not a numpy array ({error})") from None
    if array.offset + array.nbytes != size:
        raise InputError(f"{path}: {size} bytes, but its header asks for {array.offset + array.nbytes}")
    shape = (len(array) if rows is None and array.ndim else rows, *([columns] if columns else []))
    is_type = array.dtype.kind in "iu" if type_name == "integer" else array.dtype == type_name
    if array.shape != shape or not is_type:
        expected = " x ".join("P" if length is None else str(length) for length in (rows, *shape[1:]))
        found = " x ".join(map(str, array.shape))
        raise InputError(f"{path}: {found} {array.dtype}; expected {expected} {type_name}")
    return np.array(array, order="C")
