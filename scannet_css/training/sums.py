"""Adding up over scenes: shared by all processes, resumed where it was, the same whoever does it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from scannet_css import distributed
from scannet_css.errors import InputError
from scannet_css.scenes import SceneEntry
from scannet_css.scenes.loader import Batch
from scannet_css.training.checkpoint import load_checkpoint, save_checkpoint
from scannet_css.training.machine import Machine

_NAME = "sums-{}.pt"
Sums = dict[str, Tensor]


def add_up(
    name: str,
    batches: list[list[SceneEntry]],
    load: Callable[[list[list[SceneEntry]]], Iterator[Batch]],
    compute: Callable[[Batch], Sums],
    folder: Path,
    machine: Machine,
) -> Sums:
    """The sums of the tensors that `compute` gives for each batch, over all batches and processes.

    Processes take the batches in turns. Partial sums lie in `folder` under `name`, so that a pass that was
    killed or told to stop (Stop is raised) goes on; `forget_sums` removes them. Integers are exact, floats
    are added in the order of the batches (over several processes, in the order of these). Raises InputError
    if there is nothing to add up.
    """
    if not batches:
        raise InputError(f"{name}: no scene with a vertex to go over")
    path, processes, rank = folder / _NAME.format(name), distributed.processes(), distributed.rank()
    done, whole = _kept(path, machine.device)
    sums = whole if distributed.is_first() else {}
    loaded, saved = load(batches[done + rank :: processes]), time.monotonic()
    shown = {"desc": name, "unit": "batch", "disable": None if distributed.is_first() else True}
    with tqdm(total=len(batches), initial=done, leave=False, **shown) as bar:
        while done < len(batches):
            if done + rank < len(batches):
                found = compute(next(loaded))
                sums = {key: sums[key] + value if key in sums else value for key, value in found.items()}
            bar.update(min(processes, len(batches) - done))
            done = min(done + processes, len(batches))
            is_due = done == len(batches) or time.monotonic() - saved >= machine.checkpoint_seconds
            said = distributed.gathered([int(is_due), int(machine.stop.requested)])
            stop = any(requested for _, requested in said)
            if said[0][0] or stop:  # the first process' clock counts
                whole, saved = distributed.total_of(sums, machine.device), time.monotonic()
                if stop:
                    machine.stop.saving()
                if distributed.is_first():
                    cpu = {key: value.cpu() for key, value in whole.items()}
                    save_checkpoint(path, {"done": done, "sums": cpu})
            if stop:
                machine.stop.leave()
    return whole


def _kept(path: Path, device: torch.device) -> tuple[int, Sums]:
    """How many batches are in the file, and their sums."""
    kept = load_checkpoint(path) if path.exists() else {"done": 0, "sums": {}}
    return kept["done"], {key: value.to(device) for key, value in kept["sums"].items()}


def forget_sums(folder: Path) -> None:
    """Removes what finished passes have left in `folder`."""
    for path in folder.glob(_NAME.format("*")):
        path.unlink(missing_ok=True)
