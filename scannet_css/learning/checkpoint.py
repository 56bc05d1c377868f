"""Checkpoints that are whole or absent, and that cannot run code when loaded."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from scannet_css.errors import InputError
from scannet_css.files import write_atomic


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes tensors, numbers, strings and containers of them, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What save_checkpoint wrote, on the CPU. Raises InputError (one line) if the file is damaged or
    foreign."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable checkpoint; delete it to train again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a checkpoint of this suite")
    return content
