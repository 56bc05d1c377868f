"""A process that submits records of its own, one after the other, and notes what was acknowledged.

    python submitter.py FOLDER NUMBER COUNT

In FOLDER/acknowledged-NUMBER stands the hash of every record that it was told is stored; started again, it
goes on behind the last of them.
"""

import os
import sys
from pathlib import Path

from made_records import make_value

from scannet_css.results.record import Record
from scannet_css.results.submissions import Leaderboard
from scannet_css.results.tables import render_tables_page


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
