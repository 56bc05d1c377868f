"""Tables copied from papers, kept apart from everything that is recomputed (data/published.json)."""

import json
from dataclasses import dataclass
from pathlib import Path

from scannet_css.strict_json import Link, read

DATA = Path(__file__).parent / "published.json"


@dataclass
class PublishedTable:
    """`rows`: the method's name as in the paper, and a number (percent) or None for each column."""

    title: str
    source: str
    link: Link
    caveats: list[str]
    columns: list[str]
    rows: list[tuple[str, list[float | None]]]

    def value(self, method: str, column: str) -> float | None:
        """The number of a method, None where the table lacks it. Raises ValueError for an unknown column."""
        values = dict(self.rows).get(method)
        return None if values is None else values[self.columns.index(column)]


def read_published() -> list[PublishedTable]:
    """The tables of 3DPC-CISS (CVPR 2023) and CFSSeg (ACM MM 2025) on the class orders of ours."""
    tables = []
    for entry in json.loads(DATA.read_text(encoding="utf-8")):
        settings, names = entry["settings"], ("old", "new", "all")
        columns = [f"{setting} {name}" for setting in settings for name in names]
        rows = []
        for method, cells in entry["rows"].items():
            values = [value for cell in cells for value in (cell or [None] * len(names))]
            rows.append((method, values))
        link = read(Link, entry["link"], "link")
        tables.append(PublishedTable(entry["title"], entry["source"], link, entry["caveats"], columns, rows))
    return tables
