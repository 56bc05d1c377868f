"""The class lists of ScanNet: the 20 classes of the benchmark and the 200 of ScanNet200.

A label is the position in such a list; IGNORE (255) marks vertices that are not scored. Facts from ScanNet's
benchmark scripts. Always map by id, never by NYU40 name: id 24 is spelt two ways.
"""

import json
from dataclasses import dataclass
from pathlib import Path

IGNORE = 255
UNLABELLED_COLOUR = (0, 0, 0)
_DATA = Path(__file__).parent / "class_lists"


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of their labels; all tuples are as long."""

    names: tuple[str, ...]
    ids: tuple[int, ...]  # NYU40 ids for the 20 classes, ScanNet ids (column "id") for the 200
    id_column: str  # of the label table: "nyu40id" or "id"
    colours: tuple[tuple[int, int, int], ...]
    groups: tuple[str, ...]  # ScanNet200: "head", "common" or "tail" by how frequent it is; else ""


def _load(name: str, id_column: str) -> ClassList:
    rows = json.loads((_DATA / f"{name}.json").read_text(encoding="utf-8"))["classes"]
    return ClassList(
        names=tuple(row["name"] for row in rows),
        ids=tuple(row["id"] for row in rows),
        id_column=id_column,
        colours=tuple(tuple(row["colour"]) for row in rows),
        groups=tuple(row.get("group", "") for row in rows),
    )


SCANNET20 = _load("scannet20", "nyu40id")
SCANNET200 = _load("scannet200", "id")
CLASS_LISTS = {"scannet20": SCANNET20, "scannet200": SCANNET200}

CLASSES, NYU40_IDS, COLOURS = SCANNET20.names, SCANNET20.ids, SCANNET20.colours
