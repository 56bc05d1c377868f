"""Checks a pull request to the leaderboard from outside: it may add submissions and nothing else.

    git fetch origin pull/17/head
    python tools/check_pull_request.py origin/main FETCH_HEAD

Run it from a checkout of the base branch: the checks are the base's, and of the pull request only the bytes
of the added files are read, out of git; nothing of it is checked out, imported or run. Files named
benchmarks/leaderboard.* are passed over, since they are rendered anew after the merge. Exit code 1 if
anything is refused.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import baselines  # noqa: F401  registers the methods, whose settings are checked
from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError, one_line, printable
from scannet_css.leaderboard.folder import LONGEST_CSV, NAME_DIGITS, Leaderboard
from scannet_css.records.record import LONGEST_FILE, load_record

FOLDER = Path("benchmarks")
RENDERED = tuple(f"benchmarks/leaderboard.{suffix}" for suffix in ("csv", "md", "tex", "html"))
FOLDERS = {"benchmarks/records": ".json", "benchmarks/reported": ".csv"}
MOST_FILES = 1000


def main(arguments: Sequence[str]) -> int:
    parser = Parser(__doc__)
    parser.add_argument("base", help="the branch that is asked to merge, such as origin/main")
    parser.add_argument("head", help="the pull request's commit")
    options = parser.parse_args(arguments)
    head = git("rev-parse", "--verify", "--end-of-options", f"{options.head}^{{commit}}").decode().strip()
    base = git("rev-parse", "--verify", "--end-of-options", f"{options.base}^{{commit}}").decode().strip()
    changes = list_changes(base, head)
    if not changes:
        raise InputError(f"{options.head}: changes nothing, expected added submissions")
    if len(changes) > MOST_FILES:
        raise InputError(f"{options.head}: changes {len(changes)} files, expected at most {MOST_FILES}")
    board, problems, seen = Leaderboard(FOLDER), [], set()
    for change, path in changes:
        try:
            print(f"{printable(path)}: {check(board, change, path, head, seen)}")
        except InputError as error:
            problems.append(f"{printable(path)}: {one_line(error)}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def list_changes(base: str, head: str) -> list[tuple[str, str]]:
    """(kind of change, path) of every file that differs from where the two parted; A means added."""
    fields = git("diff", "--no-renames", "--name-status", "-z", f"{base}...{head}").decode(errors="replace")
    words = fields.split("\0")[:-1]
    return list(zip(words[::2], words[1::2], strict=True))


def check(board: Leaderboard, change: str, path: str, head: str, seen: set) -> str:
    """What became of one changed file. Raises InputError if it may not be merged; `seen`: keys of rows that
    the request adds."""
    if path in RENDERED:
        return "passed over, it is rendered after the merge"
    folder, _, name = path.rpartition("/")
    if FOLDERS.get(folder) != Path(name).suffix:
        expected = " or ".join(f"{place}/<hash>{suffix}" for place, suffix in FOLDERS.items())
        raise InputError(f"not a submission, expected {expected}")
    if change != "A":
        raise InputError("changes what stands on the leaderboard, expected added files only")
    mode, kind, blob = git("ls-tree", head, "--", path).decode().split()[:3]
    if (mode, kind) != ("100644", "blob"):
        raise InputError(f"has mode {mode}, expected an ordinary file")
    size, most = int(git("cat-file", "-s", blob)), LONGEST_FILE if folder.endswith("records") else LONGEST_CSV
    if size > most:
        raise InputError(f"{size} bytes, expected at most {most}")
    content = git("cat-file", "blob", blob)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / name
        copy.write_bytes(content)
        return check_record(board, copy) if copy.suffix == ".json" else check_rows(board, copy, seen)


def check_record(board: Leaderboard, copy: Path) -> str:
    try:
        record = load_record(copy)
    except InputError as error:
        raise InputError(str(error).removeprefix(f"{copy}: ")) from None
    _check_name(copy, record.hash)
    doubts = board.check(record)
    text = f"not verified: {'; '.join(doubts)}" if doubts else "verified"
    if record.entry and record.entry.name in {
        row.name for section in board.sections()[0] for row in section.rows
    }:
        text += f"; {record.entry.name!r} stands on the leaderboard already: make sure that it is the same"
    return text


def check_rows(board: Leaderboard, copy: Path, seen: set) -> str:
    rows = board.check_csv(copy.read_bytes())
    if len(rows) != 1:
        raise InputError(f"{len(rows)} new rows, expected one in a file")
    if rows[0].key in seen:
        raise InputError(f"the row of {rows[0].method} stands twice in the request")
    seen.add(rows[0].key)
    _check_name(copy, rows[0].hash)
    return "self-reported"


def _check_name(copy: Path, digest: str) -> None:
    if copy.stem != digest[:NAME_DIGITS]:
        raise InputError(f"expected the name {digest[:NAME_DIGITS]}{copy.suffix}, that of its content")


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if done.returncode:
        raise InputError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(run_command(main))
