"""What training says of itself: metrics.jsonl, TensorBoard and, if asked for, Weights & Biases.

FOLDER/metrics.jsonl has one line per iteration of a step, FOLDER/tensorboard the same as curves. A resumed
step cuts both back to its checkpoint, so no iteration stands there twice.
"""

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from scannet_css.errors import InputError
from scannet_css.files import write_json

METRICS = "metrics.jsonl"
Tracker = Callable[[int, int, dict[str, float]], None]  # (step, iteration, values by name)


class MetricsLog:
    """The log of one step, open for writing. Raises OSError."""

    def __init__(self, folder: Path, size: int, iteration: int, tracker: Tracker | None) -> None:
        """`size` bytes of metrics.jsonl and the curves before `iteration` are kept of what is there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / METRICS, "ab")  # noqa: SIM115  closed by close()
        self._file.truncate(min(size, self._file.tell()))
        self._curves = SummaryWriter(str(folder / "tensorboard"), purge_step=iteration)
        self._tracker = tracker

    def write(self, row: dict[str, Any]) -> None:
        """One iteration: {"step", "epoch", "iteration", then numbers and dictionaries of numbers}."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()  # whoever watches sees it
        curves = _flat({name: value for name, value in row.items() if name not in ("step", "iteration")})
        for name, value in curves.items():
            self._curves.add_scalar(name, value, row["iteration"])
        if self._tracker is not None:
            self._tracker(row["step"], row["iteration"], curves)

    def keep(self) -> int:
        """Brings all rows to the disk; gives the size of metrics.jsonl in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._curves.flush()
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        self._curves.close()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """{"loss": {"ce": 1}} -> {"loss/ce": 1}; what is no number is left out."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[prefix + name] = value
    return flat


class WandbTracker:
    """Sends the curves of the run in `folder` to a project of Weights & Biases, in one run that goes on where
    it was; nothing happens before the first values. Raises InputError where wandb is not installed."""

    def __init__(self, project: str, folder: Path, settings: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError("--wandb: the package wandb is not installed; pip install wandb") from None
        self._init, self._run, self._steps = wandb.init, None, set()
        self._project, self._folder, self._settings = project, folder, settings

    def __call__(self, step: int, iteration: int, values: dict[str, float]) -> None:
        if self._run is None:
            self._run = self._start()
        if step not in self._steps:  # iterations are counted anew in every step
            self._run.define_metric(f"step{step}/*", step_metric=f"step{step}/iteration")
            self._steps.add(step)
        named = {f"step{step}/{name}": value for name, value in values.items()}
        self._run.log(named | {f"step{step}/iteration": iteration})

    def _start(self) -> Any:
        path = self._folder / "wandb.json"
        if not path.exists():
            write_json(path, {"id": secrets.token_hex(8)})
        name = json.loads(path.read_text(encoding="utf-8"))["id"]
        options = {"project": self._project, "config": self._settings, "dir": str(self._folder)}
        return self._init(id=name, resume="allow", **options)
