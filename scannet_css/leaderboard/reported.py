"""Lines of leaderboard.csv that somebody sent in without records: read strictly, shown as self-reported.

Nothing in them can be recomputed, so everything that the numbers have to fulfil among themselves is checked.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pandas import DataFrame

import scannet_css
from scannet_css.errors import InputError
from scannet_css.files import digest
from scannet_css.leaderboard.rows import SELF_REPORTED, VALUES
from scannet_css.metrics import EARLIER_STEP, METRICS, NEW_CLASSES, SOME_POINT
from scannet_css.protocols import Protocol, load_protocol
from scannet_css.records.verify import check_day, check_settings
from scannet_css.strict_json import Contact, Day, Link, OptionValue, parse, read, require

COLUMNS = (
    *("dataset", "protocol", "method", "settings", "network"),
    *(column for metric in METRICS for column in (metric, f"{metric}_std")),
    *("voxel_all", "n", "orders", "parameters", "hours", "peak_memory", "device"),
    *("manifest", "voxel_size", "protocol_hash", "recipe"),
    *("name", "paper", "code", "contact", "date", "status", "flags"),
)
RENDERED = ("orders", "status", "flags")  # the leaderboard's own columns; empty in a line that is sent in
OPTIONAL = ("voxel_all", "peak_memory", "device", "recipe", "paper", "code")
TEXTS: dict[str, Any] = {
    **dict.fromkeys(("dataset", "protocol", "method", "network", "device", "name"), str),
    **{"paper": Link, "code": Link, "contact": Contact, "date": Day},
}
HASHES = {"manifest": 64, "protocol_hash": 64, "recipe": 8}  # hexadecimal digits
COUNTS = ("n", "parameters")
QUANTITIES = ("hours", "peak_memory", "voxel_size")
LONGEST_CELL = 1000
LEAST_SEEDS = 3
ROUNDING = 0.011  # two numbers with two decimals may disagree so far


@dataclass
class ReportedRow:
    """A line without records behind it; the interface of Row."""

    cells: dict[str, str]
    flags: list[str] = field(default_factory=list)
    orders: int = 1
    status = SELF_REPORTED
    records = ()

    @property
    def method(self) -> str:
        return self.cells["method"]

    @property
    def is_joint(self) -> bool:
        return self.method == "joint"

    @cached_property
    def options(self) -> dict:
        return json.loads(self.cells["settings"])

    @property
    def name(self) -> str:
        return self.cells["name"]

    @property
    def links(self) -> list[tuple[str, str]]:
        return [(name, self.cells[name]) for name in ("paper", "code") if self.cells[name]]

    @cached_property
    def values(self) -> dict[str, tuple[float | None, float | None]]:
        """Mean and deviation of every metric and of `voxel_all`, as they were sent in."""
        cells = self.cells
        return {name: (_value(cells[name]), _value(cells.get(f"{name}_std", ""))) for name in VALUES}

    @property
    def section_key(self) -> tuple:
        cells = self.cells
        size = float(cells["voxel_size"])
        return cells["dataset"], cells["manifest"], size, cells["protocol"], cells["protocol_hash"]

    @property
    def facts(self) -> dict[str, str]:
        return {name: cell for name, cell in self.cells.items() if name not in RENDERED}

    @property
    def key(self) -> tuple[str, ...]:
        """What no two lines of the leaderboard share."""
        return row_key(self.cells)

    @property
    def hash(self) -> str:
        """sha256 of the content."""
        return digest(self.facts)

    def to_csv(self) -> str:
        """The line as a file of its own, with a header."""
        return to_csv([{**self.cells, **dict.fromkeys(RENDERED, "")}])


def to_csv(lines: Sequence[dict[str, str]]) -> str:
    """Lines with the leaderboard's columns as CSV (RFC 4180)."""
    return DataFrame(lines, columns=COLUMNS).to_csv(index=False, lineterminator="\r\n")


def row_key(cells: dict[str, str]) -> tuple[str, ...]:
    """What no two lines of leaderboard.csv share."""
    own = "dataset manifest protocol protocol_hash method settings network recipe name"
    return tuple(cells[name] for name in own.split())


def read_lines(content: bytes) -> list[dict[str, str]]:
    """The lines of a CSV file with the leaderboard's columns, in any order; the leaderboard's own may be left
    out. Raises InputError for anything else than RFC 4180 in UTF-8."""
    require(not content.startswith(b"\xef\xbb\xbf"), "line 1", content[:3], "expected no byte order mark")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}") from None
    require("\0" not in text, "the file", "a NUL character", "expected text")
    rest = text.replace("\r\n", "")
    require(
        "\r" not in rest, "the file", "a bare carriage return", "expected lines that end with \\n or \\r\\n"
    )
    longest = csv.field_size_limit(LONGEST_CELL)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise InputError(
            f"not a CSV file: {error} (a cell holds at most {LONGEST_CELL} characters)"
        ) from None
    finally:
        csv.field_size_limit(longest)
    require(bool(lines), "the file", "empty", f"expected a header: {','.join(COLUMNS)}")
    head = lines[0]
    _check_head(head)
    for number, line in enumerate(lines[1:], start=2):
        require(len(line) == len(head), f"line {number}", f"{len(line)} cells", f"expected {len(head)}")
    return [{**dict.fromkeys(RENDERED, ""), **dict(zip(head, line, strict=True))} for line in lines[1:]]


def _check_head(head: list[str]) -> None:
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        alone = len(head) == 1 and separator in head[0]
        require(not alone, "line 1", f"separated by {name}", "expected commas")
    for column in head:
        require(column in COLUMNS, "line 1", column, f"unknown column, expected {', '.join(COLUMNS)}")
        require(head.count(column) == 1, "line 1", column, "expected every column once")
    for column in COLUMNS:
        require(column in head or column in RENDERED, "line 1", None, f"column {column} is missing")


def check_line(cells: dict[str, str]) -> ReportedRow:
    """The row of a line that is sent in. Raises InputError by column, value and rule."""
    for column in RENDERED:
        require(cells[column] == "", column, cells[column], "expected an empty cell: it is rendered")
    for column, cell in cells.items():
        _check_cell(column, cell)
    require(cells["contact"] != "", "contact", "", "expected who answers for the row")
    row = ReportedRow({column: cells[column] for column in COLUMNS})
    _check_settings(row)
    protocol = _check_protocol(cells)
    _check_numbers(row, protocol)
    check_day("date", cells["date"])
    return row


def _check_cell(column: str, cell: str) -> None:
    may_be_empty = column in RENDERED or column in OPTIONAL or column.removesuffix("_std") in METRICS
    if cell == "" and may_be_empty:
        return
    if column in TEXTS:
        read(TEXTS[column], cell, column)
    elif column in HASHES:
        digits = HASHES[column]
        fits = re.fullmatch(rf"[0-9a-f]{{{digits}}}", cell)
        require(bool(fits), column, cell, f"expected {digits} hexadecimal digits")
    elif column in COUNTS:
        require(bool(re.fullmatch("[1-9][0-9]{0,14}", cell)), column, cell, "expected a whole number above 0")
    elif column in QUANTITIES:
        fits = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", cell)
        require(bool(fits), column, cell, "expected a number such as 1.25")
    elif column != "settings":
        least = VALUES[column].lowest if column in VALUES else 0  # of a deviation
        sign = "-?" if least < 0 else ""
        fits = re.fullmatch(rf"{sign}[0-9]{{1,3}}(\.[0-9]{{1,6}})?", cell)
        rule = f"expected percent from {least:g} to 100 as a plain number such as 12.34"
        require(bool(fits) and least <= float(cell) <= 100, column, cell, rule)


def _check_settings(row: ReportedRow) -> None:
    try:
        settings = parse(row.cells["settings"].encode())
    except InputError as error:
        raise InputError(f"settings is no JSON object: {error}") from None
    read(dict[str, OptionValue], settings, "settings")
    shown = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    require(shown == row.cells["settings"], "settings", row.cells["settings"], f"expected the form {shown}")
    check_settings(row.method, settings, scannet_css.__version__)


def _check_protocol(cells: dict[str, str]) -> Protocol:
    try:
        protocol = load_protocol(cells["protocol"])
    except InputError as error:
        raise InputError(f"protocol: a row without records needs one of the suite; {error}") from None
    require(protocol.name == cells["protocol"], "protocol", cells["protocol"], f"expected {protocol.name}")
    rule = f"expected {protocol.hash[:16]}..., that of {protocol.name}"
    require(protocol.hash == cells["protocol_hash"], "protocol_hash", cells["protocol_hash"], rule)
    return protocol


def _check_numbers(row: ReportedRow, protocol: Protocol) -> None:
    cells, values = row.cells, {name: mean for name, (mean, _) in row.values.items()}
    seeds = int(cells["n"])
    require(
        seeds >= LEAST_SEEDS, "n", seeds, f"expected at least {LEAST_SEEDS} seeds in a row without records"
    )
    is_grown = len(protocol.steps) > 1
    given = {"": True, NEW_CLASSES: is_grown, EARLIER_STEP: is_grown and not row.is_joint}
    for name, metric in METRICS.items():
        if metric.needs != SOME_POINT:
            needed = given[metric.needs]
            empty_rule = f"expected {'a number' if needed else 'an empty cell'} in {protocol.name}"
            require((values[name] is not None) == needed, name, cells[name], empty_rule)
        filled = cells[f"{name}_std"] != ""
        rule = "expected a deviation (n - 1 in the denominator) where there is a mean, and only there"
        require(filled == (values[name] is not None), f"{name}_std", cells[f"{name}_std"], rule)
    shown = [value for name in METRICS if METRICS[name].lowest == 0 and (value := values[name]) is not None]
    rule = "expected percent: all numbers of the row lie below 1, which looks like shares"
    require(values["all"] == 0 or max(shown) > 1, "all", cells["all"], rule)
    rule = f"expected more than 0 over {seeds} different seeds"
    require(_value(cells["all_std"]) != 0 or values["all"] == 0, "all_std", cells["all_std"], rule)
    _check_identities(values, cells, len(protocol.steps[0]), len(protocol.classes))


def _check_identities(values: dict, cells: dict[str, str], old: int, every: int) -> None:
    """The means of the classes add up; percent, rounded to two decimals."""
    total = old * values["old"] + (every - old) * (values["new"] or 0)
    rule = f"expected {total / every:.2f} = ({old} old + {every - old} new) / {every}"
    require(abs(total / every - values["all"]) <= ROUNDING, "all", cells["all"], rule)
    with_background = values["all"]
    if values["bg"] is not None:
        with_background = (values["bg"] + every * values["all"]) / (every + 1)
    rule = f"expected {with_background:.2f} from bg and all"
    require(
        abs(with_background - values["all_with_bg"]) <= ROUNDING, "all_with_bg", cells["all_with_bg"], rule
    )
    if values["hiou"] is not None:
        both = values["old"] + values["new"]
        most = 2 * values["old"] * values["new"] / both if both else 0.0
        rule = f"expected at most {most:.2f}, the harmonic mean of old and new"
        require(values["hiou"] <= most + ROUNDING, "hiou", cells["hiou"], rule)


def new_lines(lines: Sequence[dict[str, str]], present: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The lines that the leaderboard (`present`) lacks. Raises InputError where a copy of it was edited: a
    line that stands there is changed or missing."""
    known = {tuple(line[column] for column in COLUMNS) for line in present}
    given = [tuple(line[column] for column in COLUMNS) for line in lines]
    keys = {row_key(line) for line in present}
    new = [line for line, cells in zip(lines, given, strict=True) if cells not in known]
    for line in new:
        what = f"{line['method']} of {line['name'] or 'nobody'}"
        require(row_key(line) not in keys, "the row", what, "stands on the leaderboard with other numbers")
    seen = Counter(map(row_key, new))
    for line in new:
        require(seen[row_key(line)] == 1, "the row", line["method"], "expected every row once")
    left = set(given)
    if known & left:
        for line in present:
            cells = tuple(line[column] for column in COLUMNS)
            what = f"{line['method']} of {line['name'] or 'nobody'}"
            require(cells in left, "the row", what, "was removed; send in new rows alone, or all")
    return new


def _value(cell: str) -> float | None:
    return float(cell) if cell else None
