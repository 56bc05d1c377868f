"""Which tile sizes a Triton kernel runs with: from the shipped table, or timed once and remembered.

`data/triton.json` holds, per operation and kind of product, configurations with the shapes that each is for;
the first that fits is the default. With SCANNET_CSS_TUNE=1 the first call of each shape class times them all
on its own inputs: what gives a wrong result is refused, the fastest of the rest is kept in the user's cache
folder. Deterministic mode (torch.use_deterministic_algorithms) takes the shipped table only.
"""

import json
import logging
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scannet_css.files import write_json

VARIABLE = "SCANNET_CSS_TUNE"
VERSION = 1  # of the file of winners; another version's rankings are discarded
REPEATS = 10

Configuration = dict[str, int]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """What decides which configuration is fastest."""

    operation: str  # "convolve" or "weight_gradient"
    precision: str  # "half", "tf32" or "ieee"
    rows: int
    in_channels: int
    out_channels: int
    offsets: int
    dtype: torch.dtype

    def key(self, machine: str) -> str:
        """The class of problems that shares a winner: rows count by their power of two."""
        kind = f"{self.precision}/{str(self.dtype).removeprefix('torch.')}"
        size = f"rows2^{self.rows.bit_length()}/{self.in_channels}x{self.out_channels}/{self.offsets}"
        return f"{self.operation}/{kind}/{size}/{machine}"


@cache
def shipped_table() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """operation -> precision -> entries; an entry's limits and its configuration."""
    return json.loads((Path(__file__).parent / "triton.json").read_text(encoding="utf-8"))


def candidates(operation: str, precision: str) -> list[Configuration]:
    """All configurations of the shipped table for the operation."""
    return [entry["config"] for entry in shipped_table()[operation][precision]]


@lru_cache(maxsize=4096)  # rows differ from batch to batch
def shipped(problem: Problem) -> Configuration:
    """The default: the first entry whose limits the problem keeps. The last entry of a list has none."""
    for entry in shipped_table()[problem.operation][problem.precision]:
        limits = (entry.get(name) for name in ("rows", "in_channels", "out_channels"))
        values = problem.rows, problem.in_channels, problem.out_channels
        fits = all(limit is None or value <= limit for limit, value in zip(limits, values, strict=True))
        if fits and problem.in_channels % entry.get("multiple", 1) == 0:
            return entry["config"]
    raise LookupError(f"the shipped table has no entry for {problem}")


def is_tuning() -> bool:
    """Whether the user wants problems timed, and the situation allows it."""
    return (
        os.environ.get(VARIABLE) == "1"
        and not torch.are_deterministic_algorithms_enabled()
        and not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
    )


def agrees(result: Tensor, reference: Tensor, scale: Tensor, bound: float) -> bool:
    """Whether no single number of `result` is further from the reference than bound x scale; NaN is far.

    scale: a tensor of the reference's shape, or one that broadcasts to it.
    """
    smallest = torch.finfo(result.dtype).tiny * torch.finfo(result.dtype).eps
    error = (result.to(reference.dtype) - reference).abs_()
    return bool((error <= scale * bound + smallest).all())


class Tuner:
    """Remembers the fastest right configuration per key, in memory and in a JSON file."""

    def __init__(self, path: Path):
        self.path = path
        self._winners: dict[str, Configuration] | None = None
        self._hopeless: set[str] = set()  # keys without a right candidate, for this process

    def knows(self, key: str, options: list[Configuration]) -> bool:
        """Whether `options` were tried before, here or in an earlier process."""
        if self._winners is None:
            self._winners = self._read()
        return key in self._hopeless or self._winners.get(key) in options

    def winner(self, key: str) -> Configuration | None:
        """For a key that it knows: the fastest right configuration, None if none was right."""
        return None if key in self._hopeless else self._winners[key]

    def tune(
        self,
        key: str,
        options: list[Configuration],
        run: Callable[[Configuration], Tensor],
        is_right: Callable[[Tensor], bool],
        seconds: Callable[[Callable[[], Any]], float],
    ) -> None:
        """Times those of `options` whose result is right, and remembers the fastest.

        What cannot run (too much shared memory, say) is passed over.
        """
        times = {}
        for index, option in enumerate(options):
            try:
                right = is_right(run(option))
            except Exception as error:  # Triton raises errors of its own for what a GPU cannot hold
                logger.info("%s: %s cannot run: %s", key, option, error)
                continue
            if right:
                times[index] = seconds(partial(run, option))
            else:
                logger.warning("%s: %s gives a wrong result and is not used", key, option)
        if times:
            winner = options[min(times, key=times.__getitem__)]
            logger.info("%s: %s", key, winner)
            self._remember(key, winner)
        else:
            self._hopeless.add(key)

    def _remember(self, key: str, winner: Configuration) -> None:
        # Another process may have written since: what it found is kept.
        self._winners = {**self._read(), **(self._winners or {}), key: winner}
        try:
            write_json(self.path, {"version": VERSION, "winners": dict(sorted(self._winners.items()))})
        except OSError as error:
            logger.warning("%s: cannot be written (%s); tuned again next time", self.path, error)

    def _read(self) -> dict[str, Configuration]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            version, winners = content["version"], dict(content["winners"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            _warn_once(f"{self.path}: ignored, it is damaged ({error})")
            return {}
        return winners if version == VERSION else {}


@cache
def user_tuner() -> Tuner:
    """The tuner whose file lies in the user's cache folder."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Tuner(Path(folder) / "scannet_css" / "triton.json")


def seconds_on_gpu(run: Callable[[], Any]) -> float:
    """The median time of a call, by the GPU's own clock, after two calls that do not count."""
    run(), run()
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)
