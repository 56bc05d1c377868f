"""Records -> sections of rows; text.py and html.py write them, docs/metrics.md describes the columns.

Runs that differ in nothing but the seed make one row; rows with the same data and protocol make one
section, and data sets never mix. The files are rendered from records each time and are no second source of
truth.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from scannet_css.errors import InputError, one_line
from scannet_css.files import digest
from scannet_css.leaderboard.reported import ReportedRow, check_line, read_lines
from scannet_css.leaderboard.rows import VALUES, Row, count_orders, flag_too_good, make_rows
from scannet_css.protocols import load_protocol
from scannet_css.records.record import Record, load_record
from scannet_css.records.splits import Split


def read_records(paths: Iterable[str | Path]) -> tuple[list[Record], list[str]]:
    """The records at `paths` and one line for each that cannot be read.

    A file is a record; in a folder, every record.json at any depth and every *.json directly in it are.
    Raises InputError for a path that does not exist.
    """
    records, problems = [], []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder, expected records")
        found = {*path.rglob("record.json"), *path.glob("*.json")} if path.is_dir() else {path}
        for file in sorted(found):
            try:
                records.append(load_record(file))
            except (InputError, OSError) as error:
                problems.append(one_line(error))
    return records, problems


def read_reported(paths: Iterable[str | Path]) -> tuple[list[ReportedRow], list[str]]:
    """The rows without records in the folders called `reported` among `paths`, and one line for each file
    that cannot be read."""
    rows, problems = [], []
    for path in (file for one in paths if Path(one).name == "reported" for file in Path(one).glob("*.csv")):
        try:
            rows += [check_line(line) for line in read_lines(path.read_bytes())]
        except (InputError, OSError) as error:
            problems.append(f"{path}: {one_line(error)}")
    return rows, sorted(problems)


@dataclass
class Section:
    """The rows of one data set and protocol: `methods` sorted by `all`, `references` trained jointly,
    `reported` sent in without records."""

    methods: list[Row]
    references: list[Row]
    reported: list[ReportedRow] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """Those that are made of records."""
        return self.methods + self.references

    @property
    def all_rows(self) -> list[Row | ReportedRow]:
        return [*self.rows, *self.reported]

    @property
    def title(self) -> str:
        dataset, _, _, protocol, _ = self.all_rows[0].section_key
        return f"{dataset}, {protocol}"

    @property
    def steps(self) -> list[list[str]]:
        """The class names of every step."""
        if self.rows:
            return self.rows[0].first.protocol.steps
        return [list(names) for names in load_protocol(self.all_rows[0].section_key[3]).steps]

    @property
    def description(self) -> str:
        _, manifest, voxel_size, _, protocol_hash = self.all_rows[0].section_key
        data = f"{voxel_size:g} m voxels, manifest {manifest[:8]}"
        protocol = f"{' + '.join(str(len(names)) for names in self.steps)} classes"
        if self.rows:
            record = self.rows[0].first
            data = f"{record.data.validation_scenes} validation scenes, {data}"
            protocol = f"version {record.protocol.version}, {protocol}, {record.protocol.regime}"
        return f"{data}; protocol {protocol}, {protocol_hash[:8]}"

    def label(self, row: Row | ReportedRow) -> str:
        """The method's name and the settings and recipe entries in which its rows in this section differ."""
        options = [other.options for other in self.all_rows if other.method == row.method]
        own, absent = row.options, object()
        differing = [key for key in own if any(other.get(key, absent) != own[key] for other in options)]
        shown = ", ".join(f"{key} {json.dumps(own[key])}" for key in differing).replace('"', "")
        return f"{row.method} ({shown})" if shown else row.method

    def cell(self, row: Row | ReportedRow, column: str) -> str:
        """What the table shows, numbers with one decimal and their deviation; empty where there is none."""
        if column == "method":
            return self.label(row)
        if column in VALUES:
            return VALUES[column].shown(*row.values[column])
        if column in ("status", "orders"):
            return str(getattr(row, column))
        text = row.facts[column]
        if column == "parameters" and text:
            return f"{int(text) / 1e6:.2f} M"
        return f"{text} GiB" if column == "peak_memory" and text else text

    def is_best(self, row: Row | ReportedRow, column: str) -> bool:
        """Best of at least two methods as shown; references do not compete."""
        return self._rank(row, column) == 0

    def is_second(self, row: Row | ReportedRow, column: str) -> bool:
        """Next to the best; all rows that show the same number are."""
        return self._rank(row, column) == 1

    def _rank(self, row: Row | ReportedRow, column: str) -> int | None:
        competes = any(row is other for other in self.methods)
        metric = VALUES.get(column)
        if metric is None or metric.better is None or not competes:
            return None
        means = [mean for other in self.methods if (mean := other.values[column][0]) is not None]
        ranked = sorted(set(map(metric.rank, means)), reverse=True)
        mean = row.values[column][0]
        return ranked.index(metric.rank(mean)) if len(means) > 1 and mean is not None else None


def build_sections(
    records: Iterable[Record],
    splits: Mapping[str, Split] | None = None,
    reported: Iterable[ReportedRow] = (),
) -> list[Section]:
    """Records grouped into rows and sections, in a fixed order whatever the order of the records."""
    rows = [*make_rows(records, splits or {}), *reported]
    count_orders([row for row in rows if row.records])
    rows.sort(key=_order)
    sections = [_section(list(group)) for _, group in groupby(rows, key=lambda row: row.section_key)]
    for section in sections:
        flag_too_good([*section.methods, *section.reported], section.references)
    return sections


def _section(rows: Sequence[Row | ReportedRow]) -> Section:
    own = [row for row in rows if row.records]
    return Section(
        [row for row in own if not row.is_joint],
        [row for row in own if row.is_joint],
        [row for row in rows if not row.records],
    )


def _order(row: Row | ReportedRow) -> tuple:
    mean = row.values["all"][0]
    return *row.section_key, mean is None, -(mean or 0), digest(row.facts)
