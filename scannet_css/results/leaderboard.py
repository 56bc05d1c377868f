"""Records -> rows -> leaderboard.csv and leaderboard.md; docs/metrics.md describes the columns.

Runs that differ in nothing but the seed make one row; rows with the same data and protocol make one
section, and data sets never mix. The files are rendered from records each time and are no second source of
truth.
"""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev

from scannet_css.errors import InputError, one_line
from scannet_css.files import digest, write_atomic
from scannet_css.learning.metrics import METRICS
from scannet_css.results.record import Record, load_record

COLUMNS = (
    *("dataset", "protocol", "method", "settings", "network"),
    *(column for metric in METRICS for column in (metric, f"{metric}_std")),
    *("voxel_all", "n", "parameters", "hours", "peak_memory", "device"),
    *("manifest", "voxel_size", "protocol_hash", "recipe", "note"),
)
TABLE = ("method", "network", *METRICS, "voxel_all", "n", "parameters", "hours", "peak_memory")
SHORT_TABLE = ("method", "bg", "old", "new", "all", "average", "hiou", "forgetting", "n")
REFERENCE = "trained on all classes at once:"


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


@dataclass
class Row:
    """One line of the table: `records` differ in nothing but the seed, one for each, in order of seed."""

    records: list[Record]
    note: str

    @property
    def first(self) -> Record:
        return self.records[0]

    @cached_property
    def values(self) -> dict[str, tuple[float | None, float | None]]:
        """Mean and unbiased standard deviation over seeds of every metric and of `voxel_all`."""
        runs = [{**one.metrics(), "voxel_all": one.metrics("voxels")["all"]} for one in self.records]
        return {name: mean_and_deviation([run[name] for run in runs]) for name in runs[0]}

    @property
    def hours(self) -> float:
        return fmean(sum(step.seconds for step in one.steps) for one in self.records) / 3600

    @property
    def peak_memory(self) -> float | None:
        """GiB, the most over all runs and steps; None if one did not tell."""
        peaks = [step.peak_memory_bytes for one in self.records for step in one.steps]
        return None if None in peaks else max(peaks) / 2**30


@dataclass
class Section:
    """The rows of one data set and protocol: `methods` sorted by `all`, `references` trained jointly."""

    methods: list[Row]
    references: list[Row]

    @property
    def rows(self) -> list[Row]:
        return self.methods + self.references

    @property
    def title(self) -> str:
        record = self.rows[0].first
        return f"{record.data.dataset}, {record.protocol.name}"

    @property
    def description(self) -> str:
        record = self.rows[0].first
        return (
            f"{record.data.validation_scenes} validation scenes, {record.data.voxel_size:g} m voxels, "
            f"manifest {record.data.manifest_hash[:8]}; protocol version {record.protocol.version}, "
            f"{' + '.join(str(len(names)) for names in record.protocol.steps)} classes, "
            f"{record.protocol.regime}, {record.protocol.hash[:8]}"
        )

    def label(self, row: Row) -> str:
        """The method's name and the settings and recipe entries in which its rows in this section differ."""
        name = row.first.method.name
        options = [_options(other.first) for other in self.rows if other.first.method.name == name]
        own, absent = _options(row.first), object()
        differing = [key for key in own if any(other.get(key, absent) != own[key] for other in options)]
        shown = ", ".join(f"{key} {json.dumps(own[key])}" for key in differing).replace('"', "")
        return f"{name} ({shown})" if shown else name

    def cell(self, row: Row, column: str) -> str:
        """What the table shows, numbers with one decimal and their deviation; empty where there is none."""
        if column == "method":
            return self.label(row)
        if column in row.values:
            mean, deviation = row.values[column]
            return _number(mean, 1) + (f" ± {deviation:.1f}" if deviation is not None else "")
        if column == "parameters":
            return f"{row.first.network.parameters / 1e6:.2f} M"
        if column == "peak_memory" and row.peak_memory is not None:
            return f"{row.peak_memory:.2f} GiB"
        return _facts(row)[column]

    def is_best(self, row: Row, column: str) -> bool:
        """Best of at least two methods as shown; low is good for forgetting, references do not compete."""
        if column not in row.values or column == "bg" or row.first.is_joint:
            return False
        sign = -1 if column == "forgetting" else 1
        shown = [mean for other in self.methods if (mean := other.values[column][0]) is not None]
        ranked = sorted({sign * round(mean, 1) for mean in shown})
        mean = row.values[column][0]
        return len(shown) > 1 and mean is not None and sign * round(mean, 1) == ranked[-1]


def build_sections(records: Iterable[Record]) -> list[Section]:
    """Records grouped into rows and sections, in a fixed order whatever the order of the records."""
    groups = defaultdict(list)
    for record in records:
        groups[_section_key(record), digest(_row_identity(record))].append(record)
    rows = sorted((_row(group) for group in groups.values()), key=_order)
    sections = [list(group) for _, group in groupby(rows, key=lambda row: _section_key(row.first))]
    return [
        Section([r for r in group if not r.first.is_joint], [r for r in group if r.first.is_joint])
        for group in sections
    ]


def mean_and_deviation(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (ddof 1); None where a run lacks the value, no deviation of one run."""
    if not values or any(value is None for value in values):
        return None, None
    return fmean(values), stdev(values) if len(values) > 1 else None


def render_csv(sections: Sequence[Section]) -> str:
    """leaderboard.csv (RFC 4180): COLUMNS, numbers with two decimals, a missing value is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in (row for section in sections for row in section.rows):
        cells = _facts(row)
        for name, (mean, deviation) in row.values.items():
            cells |= {name: _number(mean, 2), f"{name}_std": _number(deviation, 2)}
        writer.writerow([cells[column] for column in COLUMNS])
    return text.getvalue()


def render_markdown(sections: Sequence[Section], columns: Sequence[str] = TABLE) -> str:
    """leaderboard.md: one table for each data set and protocol; readable as plain text too."""
    intro = "IoU in percent at raw vertices after the last step, mean ± deviation over n seeds."
    parts = [f"# Leaderboard\n\n{intro}\n"]
    for section in sections:
        parts.append(f"## {_escape(section.title)}\n\n{_escape(section.description)}\n")
        parts.append(_markdown_table(section, columns))
        noted = [row for row in section.rows if row.note]
        if noted:
            parts.append("".join(f"- {_escape(section.label(row))}: {row.note}\n" for row in noted))
    return "\n".join(parts)


def _markdown_table(section: Section, columns: Sequence[str]) -> str:
    lines = [[_escape(column) for column in columns], []]
    for row in section.methods:
        lines.append([_markdown_cell(section, row, column) for column in columns])
    if section.references and section.methods:
        lines.append([f"*{REFERENCE}*", *[""] * (len(columns) - 1)])
    for row in section.references:
        lines.append([_markdown_cell(section, row, column) for column in columns])
    widths = [max(len(line[index]) for line in lines if line) for index in range(len(columns))]
    lines[1] = ["-" * width for width in widths]
    return "".join("| " + " | ".join(map(str.ljust, line, widths)) + " |\n" for line in lines)


def _markdown_cell(section: Section, row: Row, column: str) -> str:
    text = _escape(section.cell(row, column))
    return f"**{text}**" if section.is_best(row, column) else text


def write_leaderboard(sections: Sequence[Section], folder: str | Path) -> None:
    """Writes leaderboard.csv and leaderboard.md into `folder`, each atomically."""
    write_atomic(Path(folder) / "leaderboard.csv", render_csv(sections))
    write_atomic(Path(folder) / "leaderboard.md", render_markdown(sections))


def _row(group: list[Record]) -> Row:
    by_seed, notes = defaultdict(dict), []
    for record in group:
        by_seed[record.seed][record.hash] = record
    for seed, runs in sorted(by_seed.items()):
        if len(runs) > 1:
            notes.append(f"seed {seed} has {len(runs)} different runs, the newest is used")
    newest = [
        max(runs.values(), key=lambda one: (one.created, one.hash)) for _, runs in sorted(by_seed.items())
    ]
    return Row(newest, "; ".join(notes))


def _section_key(record: Record) -> tuple:
    data, protocol = record.data, record.protocol
    return data.dataset, data.manifest_hash, data.voxel_size, protocol.name, protocol.hash


def _row_identity(record: Record) -> list:
    return [record.method.name, record.method.settings, record.network.name, record.recipe, record.is_joint]


def _order(row: Row) -> tuple:
    mean = row.values["all"][0]
    return *_section_key(row.first), mean is None, -(mean or 0), digest(_row_identity(row.first))


def _options(record: Record) -> dict:
    return {**record.recipe, **record.method.settings}


def _facts(row: Row) -> dict[str, str]:
    record = row.first
    return {
        "dataset": record.data.dataset,
        "protocol": record.protocol.name,
        "method": record.method.name,
        "settings": json.dumps(record.method.settings, sort_keys=True, separators=(",", ":")),
        "network": record.network.name,
        "n": str(len(row.records)),
        "parameters": str(record.network.parameters),
        "hours": f"{row.hours:.2f}",
        "peak_memory": _number(row.peak_memory, 2),
        "device": ", ".join(sorted({one.environment.device for one in row.records})),
        "manifest": record.data.manifest_hash,
        "voxel_size": f"{record.data.voxel_size:g}",
        "protocol_hash": record.protocol.hash,
        "recipe": digest(record.recipe)[:8],
        "note": row.note,
    }


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _escape(text: str) -> str:
    return re.sub(r"[\\`*\[\]<>|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)
