"""What every reader of raw scans gives, whatever the data set: points with labels, and what was odd in them.

A reader finds the scans of a folder and reads one at a time; scannet_css.scenes.prepare does the rest. A new
data set is one module with a reader, named in scannet_css.raw.readers.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from scannet_css.errors import InputError

FURTHEST = 1000.0  # metres from the origin
EXTENT = (0.1, 200.0)  # metres, longest side of the bounding box

# What can be odd in a scan without making it useless: what it is, and what was done. Counted per scan.
FINDINGS = {
    "unknown_ids": "vertices with a label id that the data set does not have; ignored",
    "unmapped_categories": "vertices of objects whose category has no id in the label table; ignored",
    "label_routes_differ": "vertices whose class by labels.ply is another than by segments and label table",
    "unannotated_vertices": "vertices that nobody annotated; kept, and ignored in training and evaluation",
    "duplicate_vertices": "vertices that stand exactly where another one does; kept",
    "duplicate_objects": "objects with the same segments as an earlier one; left out",
    "shared_segments": "segments that two objects claim; they stay with the first",
    "repaired_lines": "lines of an object's file with a damaged character; put right",
    "damaged_lines": "lines of an object's file that cannot be read; left out",
    "unknown_classes": "objects of a class that the data set does not have; clutter",
    "changed_colours": "vertices whose colours were no bytes; brought to 0 to 255",
    "odd_normals": "vertices whose normal is not finite; zero",
    "cut_faces": "faces of other than three corners; cut into triangles, or left out",
    "no_faces": "meshes without faces; their normals are zero",
    "repeated_rows": "rows of the label table that say what an earlier one says; dropped",
    "turned_photos": "photos turned as EXIF says, since their labels are of that size",
    "photos_left_as_stored": "photos that EXIF says to turn or mirror; left as they are stored",
    "lone_labels": "labels without a photo; left out",
    "repeated_names": "names that a list has twice; taken once",
    "validation_in_training": "validation images in the training list; left out of training",
    "listed_without_mask": "listed images without a mask, as neither SegmentationClassAug nor SBD is here",
    "without_sbd": "training images short of the usual 10,582: VOC is here without the masks of SBD",
    "missing_sbd_lists": "lists of SBD that are not there; train.txt and val.txt give the usual 10,582",
    "blank_ids": "rows of the label table with a blank id; objects of that category may go unmapped",
}


@dataclass
class RawScan:
    """One raw scan of P points and T triangles, in the classes of its reader."""

    name: str
    points: np.ndarray  # (P, 3) float32, metres
    colours: np.ndarray | None  # (P, 3) uint8; None: the format has none, stored as zeros
    normals: np.ndarray | None  # (P, 3) float32, unit length; None: from the faces, zero without
    faces: np.ndarray  # (T, 3) int32, T may be 0
    labels: (
        np.ndarray | None
    )  # (P,) uint8: position in the reader's classes, 255 ignored; None: not annotated
    instances: np.ndarray | None  # (P,) int32, -1 none
    findings: dict[str, int] = field(default_factory=dict)  # by the names of FINDINGS; zeros are dropped
    unknown_ids: dict[int, int] = field(default_factory=dict)  # id the data set does not have -> points


@dataclass(frozen=True)
class Source:
    """One raw scan on disk. What changes in the size or time of its files means preparing it again."""

    name: str  # letters, digits, dot, dash and underscore, at most 64: the name of the scene's file
    split: str  # "train", "val" or "test"; only test scans may come without labels
    files: tuple[Path, ...]  # all it is read from; some may not be there


@dataclass(frozen=True)
class Found:
    """What a reader found below its folder."""

    sources: list[Source]
    unlisted: list[str] = field(default_factory=list)  # scans in no split
    absent: dict[str, int] = field(default_factory=dict)  # split -> scans of its list that are not there
    findings: dict[str, int] = field(default_factory=dict)  # what was odd beside the scans


class Reader(Protocol):
    """Finds and reads the raw scans of one data set. It is pickled: it goes to the worker processes."""

    dataset: str  # "scannet", "synthetic", "s3dis", ...: results carry it
    classes: tuple[str, ...]
    voxel_size: float  # metres, unless the user asks for another
    settings: dict[str, str]  # what else decides the bytes, e.g. {"labels": "ply"}

    def find(self) -> Found:
        """The scans that are there. Raises InputError if that cannot be said."""

    def read(self, source: Source) -> RawScan:
        """One scan. Raises InputError, one line with the file and the reason, if it is damaged."""


def check_points(path: Path, points: np.ndarray, extent: tuple[float, float] = EXTENT) -> None:
    """Raises InputError, naming the file `path`, unless points (P, 3) in metres can be a scan.

    There must be some, all finite and within FURTHEST of the origin, and the longest side of their bounding
    box within `extent`.
    """
    if len(points) == 0:
        raise InputError(f"{path}: the scan is empty, no vertices")
    low, high = points.min(axis=0), points.max(axis=0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        bad = ~np.isfinite(points).all(axis=1)
        raise InputError(f"{path}: vertex {first(bad)} is not finite")
    if max(-low.min(), high.max()) >= FURTHEST:
        bad = (np.abs(points) >= FURTHEST).any(axis=1)
        raise InputError(f"{path}: vertex {first(bad)} is {FURTHEST:.0f} m or more from the origin")
    length = float((high - low).max())
    if not extent[0] <= length <= extent[1]:
        raise InputError(
            f"{path}: the scan is {length:.3g} m long; expected {extent[0]} to {extent[1]:.0f} m"
        )


def first(mask: np.ndarray) -> int:
    """The row of the first True of a mask (P,), for messages."""
    return int(np.flatnonzero(mask)[0])
