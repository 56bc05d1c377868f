"""The leaderboard's folder: one file for each submission, and the tables that are rendered from all of them.

    FOLDER/records/<hash>.json     a run; FOLDER/reported/<hash>.csv: a line without records
    FOLDER/splits/<hash>.json      registered validation splits
    FOLDER/leaderboard.*           rendered, never edited

A file is named by the first digits of its content's sha256, is written whole and never changed. Any number of
processes may submit at the same time; whatever was acknowledged stays, also if one of them is killed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from scannet_css.errors import InputError, one_line
from scannet_css.files import locked, write_atomic
from scannet_css.leaderboard.published import PublishedTable, read_published
from scannet_css.leaderboard.reported import ReportedRow, check_line, new_lines, read_lines
from scannet_css.leaderboard.sections import Section, build_sections, read_reported
from scannet_css.leaderboard.text import render_csv, write_leaderboard
from scannet_css.records.record import Record, load_record, save_record
from scannet_css.records.splits import Split, load_splits
from scannet_css.records.verify import verify

PATIENCE = 60.0  # seconds to wait for one process that is at work on the leaderboard
LONGEST_CSV = 16 * 2**20
NAME_DIGITS = 16


class Leaderboard:
    """The leaderboard in `folder`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.records_folder = self.folder / "records"
        self.reported_folder = self.folder / "reported"

    @property
    def splits(self) -> dict[str, Split]:
        return load_splits(self.folder / "splits")

    def check(self, record: Record) -> list[str]:
        """What could not be verified of a record, see `verify`. Raises InputError if it cannot be true, or if
        the same run stands here under another name."""
        doubts = verify(record, self.splits)
        self._check_name(record)
        return doubts

    def _check_name(self, record: Record) -> None:
        path = self.path_of(record)
        if path.exists():
            present = load_record(path)
            if present.entry is not None and record.entry is not None:
                mine, other = record.entry.name, present.entry.name
                if mine != other:
                    raise InputError(f"entry.name is {mine!r}: this very run stands in {path} by {other!r}")

    def path_of(self, record: Record) -> Path:
        return self.records_folder / f"{record.hash[:NAME_DIGITS]}.json"

    def add(self, record: Record) -> Path | None:
        """Stores a checked record; None if it is there already."""
        with self._alone(self.records_folder):
            self._check_name(record)  # another process may have stored it since it was checked
            path = self.path_of(record)
            if path.exists():
                return None
            save_record(record, path)
            return path

    def check_csv(self, content: bytes) -> list[ReportedRow]:
        """The rows of a CSV file that the leaderboard does not have yet. Raises InputError for anything that
        may not be sent in."""
        if len(content) > LONGEST_CSV:
            raise InputError(f"{len(content)} bytes, expected at most {LONGEST_CSV}")
        sections, _ = self.sections()
        present = read_lines(render_csv(sections).encode())
        stored = [row.facts for section in sections for row in section.reported]
        lines = read_lines(content)  # one that was sent in before, as it was then, is not new
        lines = [line for line in lines if line["status"] or ReportedRow(line).facts not in stored]
        rows = []
        for line in new_lines(lines, present):
            try:
                rows.append(check_line(line))
            except InputError as error:
                raise InputError(f"row of {line['method'] or 'no method'}: {error}") from None
        return rows

    def add_row(self, row: ReportedRow) -> Path | None:
        """Stores a checked row; None if it is there already. Raises InputError if another row says the same
        with other numbers."""
        with self._alone(self.reported_folder):
            path = self.reported_folder / f"{row.hash[:NAME_DIGITS]}.csv"
            if path.exists():
                return None
            for other in read_reported([self.reported_folder])[0]:
                if other.key == row.key:
                    raise InputError(
                        f"the row is {row.method!r}: stands on the leaderboard with other numbers"
                    )
            write_atomic(path, row.to_csv())
            return path

    def sections(self) -> tuple[list[Section], list[str]]:
        """All that is stored, and a line for each file that cannot be read."""
        records, problems = [], []
        for path in sorted(self.records_folder.glob("*.json")):
            try:
                records.append(_stored_record(path.absolute()))
            except (InputError, OSError) as error:
                problems.append(one_line(error))
        reported, more = read_reported([self.reported_folder])
        return build_sections(records, self.splits, reported), problems + more

    def render(self, html: Callable[[Sequence[Section], Sequence[PublishedTable]], str] | None) -> list[str]:
        """Writes the tables anew; returns a line for each stored file that cannot be read."""
        with self._alone(self.folder, "leaderboard"):
            sections, problems = self.sections()
            write_leaderboard(sections, self.folder, read_published(), html)
            return problems

    @contextmanager
    def _alone(self, folder: Path, prefix: str = "") -> Iterator[None]:
        """Inside, no other process writes to `folder`, and nothing half-written is left in it."""
        began, last = time.monotonic(), ""

        def wait(holder: str) -> None:
            nonlocal began, last
            if holder != last:  # many take turns: none of them is at fault
                began, last = time.monotonic(), holder
            if time.monotonic() - began > PATIENCE:
                raise InputError(f"{folder}: {holder} has been at work for {PATIENCE:.0f} s; try again")
            time.sleep(0.02)

        with locked(folder, wait):
            for path in folder.glob(f".{prefix}*.tmp"):
                path.unlink(missing_ok=True)
            yield


@cache
def _stored_record(path: Path) -> Record:
    """A stored file never changes, so a process reads it once. Raises InputError if its name is not that of
    its content."""
    record = load_record(path)
    if path.stem != record.hash[:NAME_DIGITS]:
        raise InputError(f"{path}: holds the record {record.hash[:NAME_DIGITS]}, expected its own name")
    return record
