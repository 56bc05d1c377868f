"""Files that are whole or absent, and digests that name their content."""

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomic(path: str | Path, content: bytes | memoryview | str) -> None:
    """Writes `content` (text as UTF-8) so that `path` holds either the old or the whole new content.

    A temporary file in the same folder is written, synced and renamed; folders are made as needed. Raises
    OSError (with the path) if that is not possible; nothing is left behind then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it was
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_temporary_files(folder: Path) -> None:
    """Removes what write_atomic was writing below `folder` when its process was killed."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, while_busy: Callable[[str], None]) -> Iterator[None]:
    """Inside, no other process is inside for the same folder; a process that ends, however, is out.

    While another one is, `while_busy` is called with what that one says of itself, and has to wait or raise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                while_busy(file.read(100).strip())
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


_NUMBERS = re.compile(r"\[\n([\s\d,.eE+-]*)\]")


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically; NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    # A list of numbers is a line: a matrix reads as one. No JSON text holds a bare newline.
    write_atomic(path, _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")


def digest_file(path: str | Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form (sorted keys, no spaces), in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
