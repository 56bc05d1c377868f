"""Checkpoints that are whole or absent, that notice damage, and that cannot run code when loaded.

A file is a line with the format, a line with the sha256 of what follows, and what torch.save makes of
tensors, numbers, strings and containers of them.
"""

import hashlib
import io
import logging
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from scannet_css.errors import InputError
from scannet_css.files import write_atomic

FORMAT = 1
TITLE = b"scannet-css checkpoint "
_HEADER = re.compile(rb"scannet-css checkpoint (\d{1,9})\n([0-9a-f]{64})\n")
_NAME = "checkpoint-{:09d}.pt"
KEPT = 2

log = logging.getLogger(__name__)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes tensors, numbers, strings and containers of them, atomically. Raises OSError."""
    buffer = io.BytesIO()
    header = TITLE + b"%d\n" % FORMAT + b"0" * 64 + b"\n"
    buffer.write(header)
    torch.save(content, buffer)
    whole = buffer.getbuffer()
    digest = hashlib.sha256(whole[len(header) :]).hexdigest().encode()
    whole[len(header) - 65 : len(header) - 1] = digest
    write_atomic(path, whole)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What save_checkpoint wrote, on the CPU. Raises InputError (one line) if it is damaged or foreign."""
    data = path.read_bytes()
    header = _HEADER.match(data)
    if header is None:
        raise InputError(f"{path}: not a checkpoint of this suite, or of an older version; remove it")
    version, digest = int(header[1]), header[2].decode()
    if version != FORMAT:
        raise InputError(
            f"{path}: checkpoint of format {version}, expected {FORMAT}; remove it to train again"
        )
    body = memoryview(data)[header.end() :]
    if hashlib.sha256(body).hexdigest() != digest:
        raise InputError(f"{path}: damaged (its sha256 is not the one it was written with)")
    try:
        content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, expected a dictionary")
    return content


class Checkpoints:
    """The checkpoints of one step, numbered by iteration, of which the newest two are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("checkpoint-*.pt"))

    def save(self, iteration: int, content: dict[str, Any]) -> None:
        """Writes the newest and removes what is older than the one before it. Raises OSError."""
        save_checkpoint(self.folder / _NAME.format(iteration), content)
        self.keep(KEPT)

    def load(self) -> dict[str, Any] | None:
        """The newest that is whole, None if there is none at all. A damaged one is said and removed.

        Raises InputError if there are checkpoints and every one is damaged.
        """
        paths = self.paths()
        for number, path in enumerate(reversed(paths)):
            try:
                content = load_checkpoint(path)
            except InputError as error:
                if number + 1 == len(paths):
                    raise InputError(
                        f"{error}, and there is none before it; remove it to train again"
                    ) from None
                log.warning("warning: %s; going on from the one before it", error)
                damaged = path
            else:
                if number:
                    damaged.unlink()
                return content
        return None

    def keep(self, number: int) -> None:
        """Removes all but the newest `number`."""
        paths = self.paths()
        for path in paths[: len(paths) - number]:
            path.unlink()


def load_finished(folder: Path) -> dict[str, Any] | None:
    """FOLDER/finished.pt, None if the step has to be trained. A damaged file is as if it were not there if
    the step's last checkpoint is; else it raises InputError."""
    path = folder / "finished.pt"
    if not path.exists():
        return None
    try:
        return load_checkpoint(path)
    except InputError as error:
        if not Checkpoints(folder).paths():
            raise
        log.warning("warning: %s; going on from the checkpoint before it", error)
        path.unlink()
        return None
