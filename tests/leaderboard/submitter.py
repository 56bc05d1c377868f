"""A process that submits records of its own, one after the other, and notes what was acknowledged.

    python submitter.py FOLDER NUMBER COUNT

In FOLDER/acknowledged-NUMBER stands the hash of every record that it was told is stored; started again, it
goes on behind the last of them.
"""

import os
import sys
from pathlib import Path

from scannet_css.leaderboard.folder import Leaderboard
from scannet_css.leaderboard.html import render_tables_page
from scannet_css.records.record import Record
from tests.records.made_records import make_value


def record_of(number: int, seed: int) -> Record:
    return Record.from_json(make_value(method=f"mine{number}", seed=seed))


def main(folder: Path, number: int, count: int) -> None:
    board, notes = Leaderboard(folder / "benchmarks"), folder / f"acknowledged-{number}"
    done = len(notes.read_text().splitlines()) if notes.exists() else 0
    for seed in range(done, count):
        record = record_of(number, seed)
        board.check(record)
        board.add(record)
        with open(notes, "a", encoding="utf-8") as file:
            file.write(f"{record.hash}\n")
            file.flush()
            os.fsync(file.fileno())
        problems = board.render(render_tables_page)
        assert problems == [], problems


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
