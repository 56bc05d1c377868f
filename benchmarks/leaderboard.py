"""Renders records to a leaderboard: CSV, Markdown, LaTeX and a site for the browser.

    python benchmarks/leaderboard.py            # runs/, benchmarks/records/ and reported/ -> results/
    python benchmarks/leaderboard.py runs/mine --out mine
    python benchmarks/leaderboard.py benchmarks/records --html site        # the site in a folder of its own
    python benchmarks/leaderboard.py runs/study --html site --data data/study/prepared   # with rooms in 3D

In a folder, every record.json at any depth and every *.json directly in it is read. A broken record is
reported in one line and the others are rendered; the exit code is then 1. A folder called reported holds
rows without records. Rooms are shown of runs that kept
their predictions (benchmarks/run.py --keep-predictions).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

import baselines  # noqa: F401  registers the methods, whose settings are checked
from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError
from scannet_css.leaderboard.published import read_published
from scannet_css.leaderboard.sections import build_sections, read_records, read_reported
from scannet_css.leaderboard.site import write_site
from scannet_css.leaderboard.site_rooms import find_rooms
from scannet_css.leaderboard.text import PAPER_TABLE, render_markdown, write_leaderboard
from scannet_css.records.splits import load_splits
from scannet_css.scenes import load_manifest

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_PATHS = (Path("runs"), Path("benchmarks/records"), Path("benchmarks/reported"))


def main(arguments: Sequence[str]) -> int:
    parser = Parser(__doc__)
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="default: runs, benchmarks/records and reported"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="folder to write to (default: results)"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FOLDER", help="folder of index.html (default: that of --out)"
    )
    parser.add_argument("--data", type=Path, help="prepared scenes, to show rooms of the validation split")
    parser.add_argument(
        "--rooms", type=int, default=4, metavar="N", help="how many rooms (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    paths = options.paths or [path for path in DEFAULT_PATHS if path.exists()]
    records, problems = read_records(paths)
    reported, more = read_reported(paths)
    problems += more
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not records and not reported:
        where = ", ".join(map(str, options.paths or DEFAULT_PATHS))
        raise InputError(
            f"{where}: no records found, expected record.json of a run (benchmarks/run.py writes one)"
        )
    sections = build_sections(records, load_splits(ROOT / "benchmarks" / "splits"), reported)
    write_leaderboard(sections, options.out, read_published())
    rooms, classes = (), ()
    if options.data:
        manifest = load_manifest(options.data)
        classes = manifest.classes
        found = find_rooms([path for path in paths if path.is_dir()], manifest, options.rooms)
        rooms = tqdm(found, total=options.rooms, unit="room", disable=None)
    page = write_site(sections, read_published(), options.html or options.out, rooms, classes)
    print(render_markdown(sections, PAPER_TABLE))
    print(f"wrote {options.out / 'leaderboard.csv'}, leaderboard.md, leaderboard.tex and {page}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
