"""Adds runs to the public leaderboard: checks them, recomputes every number, renders the tables.

    python tools/submit.py runs/lgkd/record.json         # -> benchmarks/records/ and benchmarks/leaderboard.*
    python tools/submit.py RECORD... --name "A. Author, University" --paper https://arxiv.org/abs/2304.12345
    python tools/submit.py --check runs/*/record.json    # only checks
    python tools/submit.py my_rows.csv                   # lines of leaderboard.csv without records

A record is stored under the digest of its content. A broken one is reported in one line (field, value, rule)
and the others are added; the exit code is then 1. A line without a record is marked as self-reported. Run it
from the repository's root; docs/submit.md says what is checked.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import baselines  # noqa: F401  registers the methods, whose settings are checked
from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError, one_line
from scannet_css.leaderboard.folder import Leaderboard
from scannet_css.leaderboard.html import render_tables_page
from scannet_css.records.record import EntryRecord, Record, load_record
from scannet_css.strict_json import read, require

FOLDER = Path("benchmarks")


def main(arguments: Sequence[str]) -> int:
    parser = Parser(__doc__)
    parser.add_argument(
        "records", nargs="+", type=Path, metavar="RECORD", help="record.json of a run, or a .csv"
    )
    parser.add_argument("--check", action="store_true", help="only check, store nothing")
    group = parser.add_argument_group("who stands behind the runs (records that do not say so yet)")
    group.add_argument("--name", help="as it shall stand on the leaderboard")
    group.add_argument("--paper", help="https address")
    group.add_argument("--code", help="https address")
    group.add_argument("--contact", help="e-mail or https address")
    options = parser.parse_args(arguments)
    entry = make_entry(options)
    board, problems = Leaderboard(FOLDER), []
    for path in options.records:
        try:
            if path.suffix == ".csv":
                submit_rows(board, path, options.check)
            else:
                submit_record(board, path, entry, options.check)
        except (InputError, OSError) as error:
            text = one_line(error)
            problems.append(text if text.startswith(str(path)) else f"{path}: {text}")
    if not options.check and FOLDER.exists():
        problems += board.render(render_tables_page)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def make_entry(options: argparse.Namespace) -> EntryRecord | None:
    """The entry that the options describe. Raises InputError by option."""
    given = {name: getattr(options, name) for name in ("name", "paper", "code", "contact")}
    if not any(given.values()):
        return None
    if not given["name"]:
        raise InputError("--name is missing: expected who submits, beside --paper, --code and --contact")
    today = datetime.now(timezone.utc).date().isoformat()
    return read(EntryRecord, {**given, "date": today}, "")


def submit_record(board: Leaderboard, path: Path, entry: EntryRecord | None, only_check: bool) -> None:
    record = load_record(path)
    if entry is not None:
        present = record.entry and record.entry.name
        require(
            present is None, "entry.name", present, "the record says already who submits it; leave out --name"
        )
        record = replace(record, entry=entry)
    doubts = board.check(record)
    print(f"{path}: {summary(record)}")
    print(f"  {'not verified: ' + '; '.join(doubts) if doubts else 'verified'}")
    if not only_check:
        report(board.add(record), board.path_of(record))


def submit_rows(board: Leaderboard, path: Path, only_check: bool) -> None:
    rows = board.check_csv(path.read_bytes())
    print(f"{path}: {len(rows)} new rows")
    for row in rows:
        print(f"  {row.method} on {row.cells['dataset']}, {row.cells['protocol']}: self-reported")
        if not only_check:
            stored = board.add_row(row)
            report(stored, stored)


def report(stored: Path | None, path: Path | None) -> None:
    """Says that a submission is safe on disk."""
    print(f"  stored: {stored}" if stored else f"  already there: {path}", flush=True)


def summary(record: Record) -> str:
    """One line: what was run and its numbers, recomputed from the confusion matrices."""
    numbers = ", ".join(
        f"{name} {'-' if value is None else f'{value:.2f}'}" for name, value in record.metrics().items()
    )
    what = f"{record.method.name} on {record.data.dataset}, {record.protocol.name}, seed {record.seed}"
    return f"{what}: {numbers}"


if __name__ == "__main__":
    sys.exit(run_command(main))
