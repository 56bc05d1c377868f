"""ScanNet's hidden test set: predictions as the zip that the benchmark's server takes.

    scene0707_00.txt     at the zip's root, one for each of the 100 test scans
        5                a line for each vertex of scene0707_00_vh_clean_2.ply: NYU40 id, 0 for none

The same predictions give the same bytes.
"""

import io
import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from scannet_css.classes import SCANNET20
from scannet_css.errors import InputError

TEST_LIST = Path(__file__).parent / "splits" / "scannetv2_test.txt"
NONE_ID = 0  # whatever is none of the 20 ids, the server counts as wrong
_SCAN_NAME = re.compile(r"scene[0-9]{4}_[0-9]{2}")


def read_list(path: Path) -> list[str]:
    """The scans' names in a split list, sorted. Raises InputError for other lines and for an empty list."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a list of scans, a name per line") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; expected a list of scans, a name per line") from None
    names = [line.strip() for line in lines if line.strip()]
    for name, count in Counter(names).items():
        if not _SCAN_NAME.fullmatch(name):
            raise InputError(f"{path}: {name!r}; expected a name like scene0707_00")
        if count > 1:
            raise InputError(f"{path}: {name} is listed {count} times")
    if not names:
        raise InputError(f"{path}: lists no scan")
    return sorted(names)


def require_all(where: Path, names: list[str], present: set[str]) -> None:
    """Raises InputError unless every scan of the list is there: the server takes no part of them."""
    missing = [name for name in names if name not in present]
    if missing:
        which = f"{missing[0]} is" if len(missing) == 1 else f"{missing[0]} and {len(missing) - 1} more are"
        raise InputError(
            f"{where}: of the list's {len(names)} scans {which} not there; the benchmark takes all or nothing"
        )


def as_lines(ids: np.ndarray) -> str:
    """Ids (P,) as the text of one scan."""
    return "".join(f"{number}\n" for number in ids.tolist())


def pack(texts: dict[str, Path]) -> bytes:
    """The zip of the scans' texts, sorted by name, without times."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted(texts):
            entry = zipfile.ZipInfo(f"{name}.txt")  # 1980, the format's zero
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, texts[name].read_bytes(), compresslevel=6)
    return content.getvalue()


def check(content: bytes, vertices: dict[str, int]) -> Counter:
    """Reads a zip again: how often each id occurs. `vertices` is how many every scan has.

    Raises InputError, naming the scan, unless each is there once, whole, with an id that can be submitted for
    every vertex, and nothing else is.
    """
    counts: Counter = Counter()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found, expected = sorted(archive.namelist()), sorted(f"{name}.txt" for name in vertices)
        if found != expected:
            raise InputError(f"submission: {len(found)} files, expected {len(expected)}, one for each scan")
        for name, number in vertices.items():
            lines = archive.read(f"{name}.txt").split(b"\n")
            if len(lines) - 1 != number or lines[-1]:
                raise InputError(f"{name}: {len(lines) - 1} lines, but the scan has {number} vertices")
            counts.update(lines[:-1])
    wrong = [line for line in counts if line not in {str(i).encode() for i in (NONE_ID, *SCANNET20.ids)}]
    if wrong:
        raise InputError(f"submission: id {wrong[0][:20]!r}, expected the benchmark's 20 ids or 0")
    return Counter({int(line): count for line, count in counts.items()})
