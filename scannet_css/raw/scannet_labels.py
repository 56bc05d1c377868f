"""From what ScanNet says of a vertex to its label: by the id in labels.ply, or by the category of its object.

The two routes do not agree everywhere. labels.ply holds NYU40 ids (its README calls them "ScanNet ids"),
some of them wrong; the objects name a raw category, which the label table turns into an id.
"""

import re
import reprlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scannet_css.classes import IGNORE, SCANNET20, ClassList
from scannet_css.errors import InputError
from scannet_css.files import digest

LABEL_MAP = "scannetv2-labels.combined.tsv"
ROUTES = ("ply", "segments")
_HIGHEST_NYU40 = 40  # 50 and 149 occur in released files
_COLUMNS = ("raw_category", "id", "nyu40id")


@dataclass(frozen=True)
class LabelMap:
    """ScanNet's label table: raw category -> {"id": ScanNet id, "nyu40id": NYU40 id}, None if blank."""

    path: Path
    categories: dict[str, dict[str, int | None]]
    findings: dict[str, int]  # see scannet_css.raw.scan

    @property
    def digest(self) -> str:
        """sha256 of what the table says, whatever its line ends, the order of its rows and other columns."""
        return digest(self.categories)

    def labels(self, classes: ClassList) -> dict[str, int]:
        """Raw category -> label, 255 for a known category outside the classes; blank ones are left out."""
        position = {number: label for label, number in enumerate(classes.ids)}
        return {
            category: position.get(ids[classes.id_column], IGNORE)
            for category, ids in self.categories.items()
            if ids[classes.id_column] is not None
        }


def read_label_map(path: Path) -> LabelMap:
    """Reads the table: columns by the header's names, lines ended by LF, CR LF or CR CR LF.

    Copies in the wild differ in their line ends, repeat rows and leave cells blank: a repeated row is dropped
    and counted, a blank id counted. Raises InputError for a missing column, an id that is no number, an NYU40
    id above 40, a line that does not fit the header, and for two rows that contradict each other.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it comes with ScanNet's download") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file (UTF-8)") from None
    lines = [(n, line.split("\t")) for n, line in enumerate(re.split(r"\r*\n|\r", text), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: the label table is empty")
    header = [name.strip() for name in lines[0][1]]
    for name in _COLUMNS:
        if header.count(name) != 1:
            raise InputError(f"{path}: column {name} is there {header.count(name)} times; expected it once")
    if len(lines[-1][1]) < len(header) and not text.endswith(("\n", "\r")):
        raise InputError(f"{path}:{lines[-1][0]}: the last line is cut off; is the file whole?")
    places = [header.index(name) for name in _COLUMNS]
    categories: dict[str, dict[str, int | None]] = {}
    findings = dict.fromkeys(("repeated_rows", "blank_ids"), 0)
    for number, cells in lines[1:]:
        if not max(places) < len(cells) <= len(header):
            raise InputError(f"{path}:{number}: {len(cells)} cells; expected {len(header)}, parted by tabs")
        category, scannet_id, nyu40_id = (cells[place] for place in places)
        ids = {"id": _id(path, number, scannet_id), "nyu40id": _id(path, number, nyu40_id, _HIGHEST_NYU40)}
        if categories.setdefault(category, ids) is ids:
            findings["blank_ids"] += None in ids.values()
        elif categories[category] == ids:
            findings["repeated_rows"] += 1
        else:
            raise InputError(
                f"{path}:{number}: {reprlib.repr(category)} has the ids {ids}, "
                f"but {categories[category]} in a row before"
            )
    return LabelMap(path, categories, findings)


def _id(path: Path, line: int, cell: str, highest: int = 2**31 - 1) -> int | None:
    cell = cell.strip()
    if cell == "":
        return None
    if not re.fullmatch("[0-9]{1,10}", cell) or not 1 <= int(cell) <= highest:
        cell = reprlib.repr(cell)
        raise InputError(f"{path}:{line}: id {cell}; expected a whole number from 1 to {highest}")
    return int(cell)


def labels_by_id(nyu40: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
    """Labels (P,) uint8 in the 20 classes of NYU40 ids (P,), 255 for any other id.

    Also the ids that NYU40 does not have, with their number of vertices.
    """
    table = np.full(_HIGHEST_NYU40 + 1, IGNORE, np.uint8)
    table[list(SCANNET20.ids)] = np.arange(len(SCANNET20.ids))
    known = (nyu40 >= 0) & (nyu40 <= _HIGHEST_NYU40)
    ids, counts = np.unique(nyu40[~known], return_counts=True)
    return table[np.where(known, nyu40, 0)], dict(zip(ids.tolist(), counts.tolist(), strict=True))


def labels_by_object(
    owners: np.ndarray, categories: list[str], labels: dict[str, int]
) -> tuple[np.ndarray, int]:
    """Labels (P,) uint8 of the objects' raw categories, 255 for vertices of no object.

    owners (P,) is the row of each vertex's object in `categories`, -1 for none; `labels` as LabelMap.labels
    gives them. Also the number of vertices whose category has none there; they get 255.
    """
    table = np.array([labels.get(category, IGNORE) for category in categories] + [IGNORE], np.uint8)
    unmapped = np.array([category not in labels for category in categories] + [False])
    return table[owners], int(unmapped[owners].sum())
