"""ScanNet v2, and synthetic scans in its format: which scans there are, and their labels.

Labels are taken from labels.ply, always by NYU40 id and never by name: id 24 is spelt two ways.
"""

import re
from pathlib import Path

import numpy as np

from scannet_css.errors import InputError
from scannet_css.scenes.classes import CLASSES, IGNORE, NYU40_IDS
from scannet_css.scenes.raw import Found, RawScan, Source
from scannet_css.scenes.scan_files import read_scan, scan_files

SPLITS = ("train", "val", "test")
_SCAN_NAME = re.compile(r"scene[0-9]{4}_[0-9]{2}")
_OFFICIAL_LISTS = Path(__file__).parent / "data"
_HIGHEST_ID = 40  # of NYU40; 50 and 149 occur in released files


def matches(path: Path) -> bool:
    """Whether folders named like scans lie in `path` or in its scans/ or scans_test/."""
    return any(
        _SCAN_NAME.fullmatch(folder.name) and folder.is_dir()
        for place in _places(path)
        for folder in place.iterdir()
    )


class ScanNetReader:
    """Reads ScanNet's root (with scans/ and scans_test/), or a folder of scans. See Reader in raw.py.

    Split lists beside the scans win over the official ones. A folder with a synthetic.json holds synthetic
    scans, and its data set is called so.
    """

    voxel_size = 0.02

    def __init__(self, scans: str | Path) -> None:
        self.scans = Path(scans)
        synthetic = any((place / "synthetic.json").is_file() for place in _places(self.scans))
        self.dataset = "synthetic" if synthetic else "scannet"
        self.classes = CLASSES
        self.settings = {"labels": "ply"}

    def find(self) -> Found:
        """The listed scans that are there, sorted. Raises InputError if there are none, or for bad lists."""
        folders = _find_scans(self.scans)
        split_of = _read_lists(self.scans)
        sources = [
            Source(name, split_of[name], scan_files(folders[name]))
            for name in sorted(folders)
            if name in split_of
        ]
        if not sources:
            raise InputError(f"{self.scans}: none of its {len(folders)} scans is in a split list")
        return Found(
            sources=sources,
            unlisted=sorted(set(folders) - set(split_of)),
            absent={s: sum(split_of[n] == s and n not in folders for n in split_of) for s in SPLITS},
        )

    def read(self, source: Source) -> RawScan:
        """One scan with its labels as positions in the classes."""
        scan = read_scan(source.files[0].parent)
        labels, unknown_ids, findings = None, {}, dict(scan.findings)
        if scan.nyu40 is not None:
            labels, unknown_ids = _to_labels(scan.nyu40)
            findings["unannotated_vertices"] = int((scan.nyu40 == 0).sum())
        return RawScan(
            name=scan.name,
            points=scan.points,
            colours=scan.colours,
            normals=None,
            faces=scan.faces,
            labels=labels,
            instances=scan.instances,
            findings=findings,
            unknown_ids=unknown_ids,
        )


def _places(scans: Path) -> list[Path]:
    """Where scans and their lists may lie."""
    return [scans, *(folder for folder in (scans / "scans", scans / "scans_test") if folder.is_dir())]


def _find_scans(scans: Path) -> dict[str, Path]:
    if not scans.is_dir():
        raise InputError(f"{scans}: no such folder; expected a folder with scans")
    folders: dict[str, Path] = {}
    for place in _places(scans):
        for folder in sorted(place.iterdir()):
            if _SCAN_NAME.fullmatch(folder.name) and folder.is_dir():
                if folder.name in folders:
                    raise InputError(
                        f"{folder}: the scan is also at {folders[folder.name]}; expected it once"
                    )
                folders[folder.name] = folder
    if not folders:
        raise InputError(f"{scans}: no scans here; expected folders named like scene0000_00")
    return folders


def _read_lists(scans: Path) -> dict[str, str]:
    """The split of every listed scan."""
    lists = [place / f"scannetv2_{split}.txt" for place in _places(scans) for split in SPLITS]
    lists = [path for path in lists if path.is_file()] or [
        _OFFICIAL_LISTS / f"scannetv2_{split}.txt" for split in SPLITS
    ]
    split_of: dict[str, str] = {}
    for path in lists:
        split = path.stem.removeprefix("scannetv2_")
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        ):
            name = line.strip()
            if not name:
                continue
            if not _SCAN_NAME.fullmatch(name):
                raise InputError(f"{path}:{number}: {name!r}; expected a name like scene0000_00")
            if name in split_of:
                raise InputError(f"{path}:{number}: {name} is listed twice, before in {split_of[name]}")
            split_of[name] = split
    return split_of


def _to_labels(nyu40: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
    """Labels (P,) uint8 of ids (P,): position in CLASSES, else 255; and the ids NYU40 does not have."""
    table = np.full(_HIGHEST_ID + 1, IGNORE, np.uint8)
    table[list(NYU40_IDS)] = np.arange(len(CLASSES))
    known = (nyu40 >= 0) & (nyu40 <= _HIGHEST_ID)
    ids, counts = np.unique(nyu40[~known], return_counts=True)
    return table[np.where(known, nyu40, 0)], dict(zip(ids.tolist(), counts.tolist(), strict=True))
