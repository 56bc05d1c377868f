"""Adds records to the public leaderboard: checks them, recomputes every number, renders the tables.

    python tools/submit.py runs/lgkd/record.json         # -> benchmarks/records/ and benchmarks/leaderboard.*
    python tools/submit.py --check runs/*/record.json    # only checks

A record is stored under the digest of its content. A broken one is reported in one line (field, value, rule)
and the others are added; the exit code is then 1. Run it from the repository's root.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scannet_css.errors import InputError, one_line, run_command
from scannet_css.results.leaderboard import build_sections, read_records, write_leaderboard
from scannet_css.results.record import Record, load_record, save_record

RECORDS = Path("benchmarks/records")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Check records and add them to benchmarks/records.")
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD")
    parser.add_argument("--check", action="store_true", help="only check, store nothing")
    options = parser.parse_args(arguments)
    problems = []
    for path in options.records:
        try:
            record = load_record(path)
        except (InputError, OSError) as error:
            problems.append(one_line(error))
            continue
        print(f"{path}: {summary(record)}")
        if not options.check:
            store(record)
    if not options.check and RECORDS.exists():
        stored, broken = read_records([RECORDS])
        problems += broken
        write_leaderboard(build_sections(stored), RECORDS.parent)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def summary(record: Record) -> str:
    """One line: what was run and its numbers, recomputed from the confusion matrices."""
    numbers = ", ".join(
        f"{name} {'-' if value is None else f'{value:.2f}'}" for name, value in record.metrics().items()
    )
    what = f"{record.method.name} on {record.data.dataset}, {record.protocol.name}, seed {record.seed}"
    return f"{what}: {numbers}"


def store(record: Record) -> None:
    path = RECORDS / f"{record.hash[:16]}.json"
    if path.exists():
        print(f"  already there: {path}")
    else:
        save_record(record, path)
        print(f"  stored: {path}")


if __name__ == "__main__":
    sys.exit(run_command(main))
