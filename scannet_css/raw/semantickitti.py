"""SemanticKITTI (Behley et al., ICCV 2019): laser scans of street scenes.

    sequences/08/velodyne/000123.bin    float32: x y z in metres and the remission of each point
    sequences/08/labels/000123.label    uint32: label id in the lower 16 bits, instance in the upper 16

Labels follow the learning map of the benchmark for single scans: moving things belong to the class of things
that stand. The remission, 0 to 1, is stored as a grey of 0 to 255. There are neither normals nor faces, and
poses are not needed. Sequences 11 to 21 are the test split and come without labels.
"""

import json
import re
from pathlib import Path

import numpy as np

from scannet_css.classes import CLASS_LISTS, IGNORE
from scannet_css.errors import InputError
from scannet_css.raw.scan import Found, RawScan, Source, check_points, first

_CLASS_LIST = CLASS_LISTS["semantickitti"]
CLASSES = _CLASS_LIST.names
_RELEASE = json.loads((Path(__file__).parent / "splits" / "semantickitti.json").read_text(encoding="utf-8"))
_SCANS = {split: _RELEASE[split] for split in ("train", "val", "test")}  # sequence -> number of its scans
SPLIT_OF = {sequence: split for split, scans in _SCANS.items() for sequence in scans}

_UNLABELLED = 0
_EXTENT = (1.0, 500.0)  # metres, longest side of the bounding box; the scanner sees about 120 m each way
_SCAN_FILE = re.compile(r"[0-9]{6}\.bin")


def matches(path: Path) -> bool:
    """Whether `path` holds sequences/, or dataset/sequences/."""
    return _sequences(path).is_dir()


class SemanticKITTIReader:
    """Reads the folder that holds sequences/, with some or all of them. See Reader in scan.py."""

    dataset = "semantickitti"
    classes = CLASSES
    voxel_size = 0.05

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.settings: dict[str, str] = {}

    def find(self) -> Found:
        """The scans of the 22 sequences that are there. Raises InputError if there are none."""
        folder = _sequences(self.root)
        sequences = {path.name: path for path in folder.glob("*") if (path / "velodyne").is_dir()}
        sources = []
        for name in sorted(sequences.keys() & SPLIT_OF.keys()):
            sources += _scans(sequences[name], SPLIT_OF[name])
        if not sources:
            raise InputError(f"{self.root}: no scans; expected files like sequences/00/velodyne/000000.bin")
        there = [source.split for source in sources]
        return Found(
            sources=sources,
            unlisted=sorted(sequences.keys() - SPLIT_OF.keys()),
            absent={
                split: max(0, sum(scans.values()) - there.count(split)) for split, scans in _SCANS.items()
            },
        )

    def read(self, source: Source) -> RawScan:
        """One scan. Objects keep their instance through a sequence: class * 65536 + stored number."""
        scan_file, *label_file = source.files
        values = _read_array(scan_file, np.dtype("<f4"), 4).reshape(-1, 4)
        points, remission = np.ascontiguousarray(values[:, :3]), values[:, 3]
        check_points(scan_file, points, _EXTENT)
        sound = (remission >= 0) & (remission <= 1)
        if not sound.all():
            bad = first(~sound)
            raise InputError(f"{scan_file}: point {bad} has remission {remission[bad]:g}; expected 0 to 1")
        labels, instances, findings, unknown_ids = None, None, {}, {}
        if label_file:
            stored = _read_array(label_file[0], np.dtype("<u4"), 1)
            if len(stored) != len(points):
                raise InputError(
                    f"{label_file[0]}: {len(stored)} labels, but the scan has {len(points)} points"
                )
            labels, unknown_ids = _to_labels(stored & 0xFFFF)
            instances = _to_instances(labels, stored >> 16)
            unlabelled = int((stored & 0xFFFF == _UNLABELLED).sum())
            findings = {"unannotated_vertices": unlabelled} if unlabelled else {}
        return RawScan(
            name=source.name,
            points=points,
            colours=np.repeat(np.rint(remission[:, None] * 255).astype(np.uint8), 3, axis=1),
            normals=None,
            faces=np.empty((0, 3), np.int32),
            labels=labels,
            instances=instances,
            findings=findings,
            unknown_ids=unknown_ids,
        )


def _sequences(root: Path) -> Path:
    """The folder of the sequences; KITTI's archives unpack it below dataset/."""
    folder = root / "sequences"
    return folder if folder.is_dir() else root / "dataset" / "sequences"


def _scans(sequence: Path, split: str) -> list[Source]:
    """The scans of one sequence, named like 08_000123."""
    labels = {path.stem: path for path in (sequence / "labels").glob("*.label")}
    return [
        Source(
            name=f"{sequence.name}_{path.stem}",
            split=split,
            files=(path, labels[path.stem]) if path.stem in labels else (path,),
        )
        for path in sorted((sequence / "velodyne").iterdir())
        if _SCAN_FILE.fullmatch(path.name)
    ]


def _read_array(path: Path, dtype: np.dtype, columns: int) -> np.ndarray:
    """All values of a file without a header, flat."""
    data = path.read_bytes()
    size = dtype.itemsize * columns
    if len(data) % size:
        raise InputError(f"{path}: {len(data)} bytes; expected {size} for each point, so it is cut off")
    return np.frombuffer(data, dtype)


def _to_labels(ids: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
    """Labels (P,) uint8 of ids (P,): position in CLASSES, else 255; and the ids the map does not have."""
    table = np.full(1 << 16, IGNORE, np.uint8)
    known = np.zeros(1 << 16, bool)
    known[list(_CLASS_LIST.ignored_ids)] = True
    for label, raw_ids in enumerate(_CLASS_LIST.raw_ids):
        table[list(raw_ids)] = label
        known[list(raw_ids)] = True
    unknown, counts = np.unique(ids[~known[ids]], return_counts=True)
    return table[ids], dict(zip(unknown.tolist(), counts.tolist(), strict=True))


def _to_instances(labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Instances (P,) int32: unique over classes, -1 where the number is 0 or the label ignored."""
    instances = (labels.astype(np.int32) << 16) + numbers.astype(np.int32)
    return np.where((numbers > 0) & (labels != IGNORE), instances, -1).astype(np.int32)
