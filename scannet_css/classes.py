"""The classes of every data set: their names, ids and colours; and what stands for no class.

A label is the position in its data set's class list. Lists are files of class_lists/, found by the names in a
manifest or record (`class_list`) or by their own name (CLASS_LISTS). ScanNet's are facts of its benchmark
scripts: always map by id, never by NYU40 name, for id 24 is spelt two ways.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IGNORE = 255  # label, and channel, of points that are not scored
BACKGROUND = 0  # channel of all that is none of the classes, and the id it is written with
BACKGROUND_NAME, BACKGROUND_COLOUR = "background", (150, 150, 150)
UNLABELLED_NAME, UNLABELLED_COLOUR = "unlabelled", (225, 225, 225)  # how points with IGNORE are shown


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of their labels; all tuples are as long, but for `ignored_ids`."""

    names: tuple[str, ...]
    ids: tuple[int, ...]  # predictions are written in: ScanNet's own, else the position counted from 1
    colours: tuple[tuple[int, int, int], ...]
    groups: tuple[str, ...]  # ScanNet200's: "head", "common" or "tail" by how frequent a class is; else ""
    raw_ids: tuple[tuple[int, ...], ...]  # SemanticKITTI's: ids in its files that mean the class; else none
    ignored_ids: tuple[int, ...] = ()  # SemanticKITTI's: ids in its files that mean none
    id_column: str = ""  # ScanNet's: of its label table, "nyu40id" (the 20) or "id" (the 200)

    def channel_ids(self, channels: Sequence[str]) -> np.ndarray:
        """The id (C,) uint16 of each channel, by their names: background, then any of the classes."""
        ids = dict(zip(self.names, self.ids, strict=True))
        return np.array([BACKGROUND, *(ids[name] for name in channels[1:])], np.uint16)

    def channel_colours(self, channels: Sequence[str]) -> np.ndarray:
        """The colour (C, 3) uint8 of each channel, by their names: background, then any of the classes."""
        colours = dict(zip(self.names, self.colours, strict=True))
        return np.array([BACKGROUND_COLOUR, *(colours[name] for name in channels[1:])], np.uint8)


def _load(path: Path) -> ClassList:
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = content["classes"]
    return ClassList(
        names=tuple(row["name"] for row in rows),
        ids=tuple(row.get("id", label + 1) for label, row in enumerate(rows)),
        colours=tuple(tuple(row["colour"]) for row in rows),
        groups=tuple(row.get("group", "") for row in rows),
        raw_ids=tuple(tuple(row.get("raw_ids", ())) for row in rows),
        ignored_ids=tuple(content.get("ignored_ids", ())),
        id_column=content.get("id_column", ""),
    )


_FOLDER = Path(__file__).parent / "class_lists"
CLASS_LISTS = {path.stem: _load(path) for path in sorted(_FOLDER.glob("*.json"))}
SCANNET20, SCANNET200 = CLASS_LISTS["scannet20"], CLASS_LISTS["scannet200"]
SCANNET_LISTS = ("scannet20", "scannet200")  # what ScanNet can be prepared with

CLASSES, NYU40_IDS, COLOURS = SCANNET20.names, SCANNET20.ids, SCANNET20.colours  # ScanNet's 20


def class_list(names: Sequence[str]) -> ClassList:
    """The class list of these names in this order, as a manifest or record has them.

    Names that are no list of class_lists/ are a data set's of somebody else: ids count from 1, colours are
    ScanNet200's in turn.
    """
    names = tuple(names)
    for known in CLASS_LISTS.values():
        if known.names == names:
            return known
    number, colours = len(names), SCANNET200.colours
    return ClassList(
        names=names,
        ids=tuple(range(1, number + 1)),
        colours=tuple(colours[label % len(colours)] for label in range(number)),
        groups=("",) * number,
        raw_ids=((),) * number,
    )
