"""ScanNet v2, and synthetic scans in its format: which scans there are, and their labels by either route."""

import re
from pathlib import Path

import numpy as np

from scannet_css.classes import CLASS_LISTS, SCANNET20, ClassList
from scannet_css.errors import InputError
from scannet_css.raw.scan import Found, RawScan, Source
from scannet_css.raw.scannet_files import LABELS, SUFFIXES, ScanFiles, read_scan, scan_files
from scannet_css.raw.scannet_labels import LABEL_MAP, labels_by_id, labels_by_object, read_label_map

SPLITS = ("train", "val", "test")
SCAN_NAME = re.compile(r"scene[0-9]{4}_[0-9]{2}")
OFFICIAL_LISTS = Path(__file__).parent / "splits"
_MOST_UNKNOWN = 3  # different ids outside NYU40 in one scan


def matches(path: Path) -> bool:
    """Whether folders named like scans lie in `path` or in its scans/ or scans_test/."""
    return path.is_dir() and any(
        SCAN_NAME.fullmatch(folder.name) and folder.is_dir()
        for place in _places(path)
        for folder in place.iterdir()
    )


class ScanNetReader:
    """Reads ScanNet's root (with scans/ and scans_test/), or a folder of scans. See Reader in scan.py.

    labels: the route to the labels, one of ROUTES; None for "ply", or "segments" if the classes need it.
    classes: "scannet20" or "scannet200". Raises InputError if the two do not fit, and if the label table is
    missing where it is needed, or damaged. Split lists beside the scans win over the official ones. A folder
    with a synthetic.json holds synthetic scans, and its data set is called so.
    """

    voxel_size = 0.02

    def __init__(self, scans: str | Path, labels: str | None = None, classes: str = "scannet20") -> None:
        self.scans = Path(scans)
        self.route = labels or ("ply" if classes == "scannet20" else "segments")
        if self.route == "ply" and classes != "scannet20":
            raise InputError(
                f"labels {labels} with classes {classes}: labels.ply has NYU40 ids only; take segments"
            )
        self._class_list = CLASS_LISTS[classes]
        self.classes = self._class_list.names
        self.dataset = "synthetic" if _beside(self.scans, "synthetic.json") else "scannet"
        self.settings = {"labels": self.route}
        table = _beside(self.scans, LABEL_MAP)
        if table is None and self.route == "segments":
            raise InputError(f"{self.scans / LABEL_MAP}: no such file; labels by segments need it")
        self.label_map = read_label_map(table) if table else None
        if self.route == "segments":
            self.settings["label_map"] = self.label_map.digest

    def find(self) -> Found:
        """The listed scans that are there, sorted. Raises InputError if there are none, or for bad lists."""
        folders = find_scans(self.scans)
        split_of = read_lists(self.scans)
        table = (self.label_map.path,) if self.label_map else ()
        sources = [
            Source(name, split_of[name], (*scan_files(folder), *table))
            for name, folder in sorted(folders.items())
            if name in split_of
        ]
        if not sources:
            raise InputError(f"{self.scans}: none of its {len(folders)} scans is in a split list")
        return Found(
            sources=sources,
            unlisted=sorted(set(folders) - set(split_of)),
            absent={s: sum(split_of[n] == s and n not in folders for n in split_of) for s in SPLITS},
            findings=self.label_map.findings if self.label_map else {},
        )

    def read(self, source: Source) -> RawScan:
        """One scan with its labels as positions in the classes."""
        scan = read_scan(source.files[0].parent)
        labels, unknown_ids = self._labels(scan, source.files[SUFFIXES.index(LABELS)])
        return RawScan(
            name=scan.name,
            points=scan.points,
            colours=scan.colours,
            normals=None,
            faces=scan.faces,
            labels=labels,
            instances=scan.instances,
            findings=scan.findings,
            unknown_ids=unknown_ids,
        )

    def _labels(self, scan: ScanFiles, labels_file: Path) -> tuple[np.ndarray | None, dict[int, int]]:
        """Labels (P,) by the chosen route, None without its files, and unknown ids; adds to the findings."""
        by_id, unknown_ids = None, {}
        if scan.nyu40 is not None:
            by_id, unknown_ids = labels_by_id(scan.nyu40)
            if len(unknown_ids) > _MOST_UNKNOWN:
                raise InputError(
                    f"{labels_file}: {len(unknown_ids)} different ids that NYU40 does not have, such as "
                    f"{min(unknown_ids)}; released files have one at most, so it is damaged"
                )
        if by_id is not None and scan.owners is not None and self.label_map:
            by_object, _ = self._by_object(scan, SCANNET20)
            scan.findings["label_routes_differ"] = int((by_id != by_object).sum())
        if self.route == "ply" and by_id is not None:
            scan.findings["unannotated_vertices"] = int((scan.nyu40 == 0).sum())
            return by_id, unknown_ids
        if self.route == "segments" and scan.owners is not None:
            labels, scan.findings["unmapped_categories"] = self._by_object(scan, self._class_list)
            scan.findings["unannotated_vertices"] = int((scan.owners == -1).sum())
            return labels, {}
        return None, {}

    def _by_object(self, scan: ScanFiles, classes: ClassList) -> tuple[np.ndarray, int]:
        categories = [category for _, category in scan.objects]
        return labels_by_object(scan.owners, categories, self.label_map.labels(classes))


def _places(scans: Path) -> list[Path]:
    """Where scans and their lists may lie."""
    return [scans, *(folder for folder in (scans / "scans", scans / "scans_test") if folder.is_dir())]


def _beside(scans: Path, name: str) -> Path | None:
    """The file `name` where scans may lie, or None."""
    return next((place / name for place in _places(scans) if (place / name).is_file()), None)


def find_scans(scans: Path) -> dict[str, Path]:
    """Name -> folder of the scans in ScanNet's root or in a folder of scans. Raises InputError for none."""
    if not scans.is_dir():
        raise InputError(f"{scans}: no such folder; expected a folder with scans")
    folders: dict[str, Path] = {}
    for place in _places(scans):
        for folder in sorted(place.iterdir()):
            if SCAN_NAME.fullmatch(folder.name) and folder.is_dir():
                if folder.name in folders:
                    raise InputError(
                        f"{folder}: the scan is also at {folders[folder.name]}; expected it once"
                    )
                folders[folder.name] = folder
    if not folders:
        raise InputError(f"{scans}: no scans here; expected folders named like scene0000_00")
    return folders


def read_lists(scans: Path) -> dict[str, str]:
    """The split of every listed scan."""
    lists = [place / f"scannetv2_{split}.txt" for place in _places(scans) for split in SPLITS]
    lists = [path for path in lists if path.is_file()] or [
        OFFICIAL_LISTS / f"scannetv2_{split}.txt" for split in SPLITS
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
            if not SCAN_NAME.fullmatch(name):
                raise InputError(f"{path}:{number}: {name!r}; expected a name like scene0000_00")
            if name in split_of:
                raise InputError(f"{path}:{number}: {name} is listed twice, before in {split_of[name]}")
            split_of[name] = split
    return split_of
