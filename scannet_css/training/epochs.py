"""One step of a protocol from its first epoch to its last: schedule, checkpoints, log, stopping.

A step is cut into iterations, and nothing but (seed, step, epoch, number of the batch, scene) decides what is
drawn in one. So a step can be left between any two of them and goes on as if nothing had happened.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from scannet_css import distributed
from scannet_css.errors import InputError
from scannet_css.methods.losses import IGNORE
from scannet_css.methods.method import Method, Step
from scannet_css.scenes import Manifest, SceneEntry
from scannet_css.scenes.loader import (
    Batch,
    BatchSet,
    batches_of,
    derived_seed,
    plan_batches,
    shuffled,
)
from scannet_css.training.checkpoint import Checkpoints
from scannet_css.training.log import MetricsLog, Tracker
from scannet_css.training.machine import Machine
from scannet_css.training.recipe import Recipe, make_optimizer, schedule, train_mode
from scannet_css.training.step.tune import tune
from scannet_css.training.step.update import Updater
from scannet_css.training.sums import forget_sums

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a step is and what it has cost; part of the checkpoint."""

    epochs: int = 0  # finished ones
    batches: int = 0  # of the epoch at hand
    iterations: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of the epoch's values, for the console
    too_many_voxels: int | None = None  # see MemoryRetry
    log_bytes: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    deterministic: bool = True  # all of it so far


class StepTrainer:
    """Trains `step.network` for one step; checkpoints and log lie in `folder`."""

    def __init__(
        self,
        step: Step,
        method: Method,
        recipe: Recipe,
        manifest: Manifest,
        seed: int,
        machine: Machine,
        folder: Path,
        tracker: Tracker | None = None,
    ) -> None:
        self.step, self.method, self.recipe, self.manifest = step, method, recipe, manifest
        self.seed, self.machine, self.folder, self.tracker = seed, machine, folder, tracker
        base = step.index == 0
        self.epochs = recipe.base_epochs if base else recipe.epochs * method.trains
        self.peak_rate = recipe.base_learning_rate if base else recipe.learning_rate
        step.tune = partial(tune, self)
        method.adapt(step)
        optimizer = make_optimizer(step.network, recipe, self.peak_rate)
        self.updater = Updater(step, method, recipe, machine, optimizer)
        self.checkpoints = Checkpoints(folder)
        self.progress = Progress()
        self.log: MetricsLog | None = None
        self._saved = time.monotonic()

    def run(self) -> Progress:
        """Trains to the last epoch, from the newest checkpoint if there is one; calls method.begin before the
        first. Raises Stop, with a checkpoint written, if a signal says so; InputError as Updater.run."""
        content = distributed.first_process_first(self.checkpoints.load)
        if content is not None:
            self._restore(content)
        self.progress.deterministic &= self.machine.is_deterministic
        scenes = self._begin(is_new=content is None)
        train_mode(self.step.network, "frozen" if self.method.freezes_norms else self.recipe.batch_norm)
        if self.progress.epochs < self.epochs:
            self._probe_memory(scenes)
            self._open_log()
            silent = None if distributed.is_first() else True
            total, title = self.epochs * len(scenes), f"step {self.step.index}"
            try:
                with tqdm(total=total, desc=title, unit="scene", leave=False, disable=silent) as bar:
                    for epoch in range(self.progress.epochs, self.epochs):
                        self._run_epoch(epoch, scenes, bar)
                self._checkpoint()
            finally:
                self._close_log()
        distributed.as_the_first(list(self.step.network.buffers()))
        return self.progress

    def _begin(self, is_new: bool) -> list[SceneEntry]:
        """The scenes to train on, after the method has begun the step if it had not before."""
        if self.step.index == 0 and not self.method.base:
            return self.step.scenes
        if is_new:
            self.step.network.eval()
            torch.manual_seed(derived_seed(self.seed, self.step.index, "begin"))
            self.method.begin(self.step)
            self._checkpoint()
        if self.progress.iterations == 0 and distributed.is_first():
            forget_sums(self.folder)  # what was found out is in the checkpoint
        return self.method.scenes(self.step) if self.step.index else self.step.scenes

    def _probe_memory(self, scenes: list[SceneEntry]) -> None:
        """Says before anything is trained whether the largest batch fits into the memory."""
        by_size = sorted(scenes, key=lambda entry: (-entry.voxels, entry.name))
        batches = plan_batches(by_size, self.recipe.batch_voxels)
        if not batches:
            raise InputError(f"method {self.method.name!r}: no scene with a vertex in step {self.step.index}")
        identity = (self.seed, self.step.index, 0)
        batch = next(self.load(batches[:1], identity))
        whole = self.updater.probe_memory(batch)
        log.info(
            "step %d: the largest batch, %d voxels, fits%s; %.2f GiB at most",
            self.step.index,
            sum(entry.voxels for entry in batches[0]),
            "" if whole else " in parts",
            self.machine.peak_memory_bytes() / 2**30,
        )

    def load(self, batches: list[list[SceneEntry]], identity: tuple[int, ...]) -> Iterator[Batch]:
        """This process' shares of the batches, augmented, on its device."""
        fewest = min(map(len, batches), default=distributed.processes())
        if self.recipe.batch_norm == "sync" and fewest < distributed.processes():
            raise InputError(
                f"--batch-norm sync: a batch has fewer scenes than the {distributed.processes()} processes;"
                " fewer processes or more --batch-voxels would do"
            )
        table = self.step.protocol.training_table(self.step.index, self.manifest.classes)
        shares = [share_of(batch) for batch in batches]
        batch_set = BatchSet(
            self.manifest,
            shares,
            table,
            self.recipe.inputs,
            identity,
            self.recipe.elastic,
            tables=self._remembered_tables(),
            change=partial(self.method.change, self.step) if self.step.index else None,
        )
        return batches_of(batch_set, self.machine.workers, self.machine.device)

    def _remembered_tables(self) -> dict[str, Tensor]:
        """The label tables of scenes in which a memory shows more than the step does; see
        Method.remembered."""
        step, tables = self.step, {}
        own = {entry.name for entry in step.scenes}
        for name, classes in self.method.remembered(step).items():
            table = step.protocol.training_table(step.index, self.manifest.classes, classes)
            shows_all = name in own or self.method.shows_rest
            tables[name] = table if shows_all else torch.where(table == 0, IGNORE, table)
        return tables

    def _run_epoch(self, epoch: int, scenes: list[SceneEntry], bar: tqdm) -> None:
        identity, progress = (self.seed, self.step.index, epoch), self.progress
        batches = plan_batches(shuffled(scenes, *identity, "order"), self.recipe.batch_voxels)
        loaded = self.load(batches[progress.batches :], identity)
        bar.n = epoch * len(scenes) + sum(map(len, batches[: progress.batches]))
        started = time.perf_counter()
        for number in range(progress.batches, len(batches)):
            batch = next(loaded)
            fraction = (epoch + number / len(batches)) / self.epochs
            rate = self.peak_rate * schedule(self.recipe.schedule, fraction)
            values = self.updater.run(batch, rate, derived_seed(*identity, number, "batch"))
            said = distributed.gathered([batch.voxels, int(self.machine.stop.requested)])
            voxels, stop = sum(each for each, _ in said), any(requested for _, requested in said)
            seconds, started = time.perf_counter() - started, time.perf_counter()
            self._note(epoch, number, rate, values, (len(batches[number]), voxels, seconds))
            bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()})
            bar.update(len(batches[number]))
            if stop:
                self.machine.stop.saving()
                self._checkpoint()
                self.machine.stop.leave()
            if time.monotonic() - self._saved >= self.machine.checkpoint_seconds:
                self._checkpoint()
        self._say(epoch, {name: value / len(batches) for name, value in progress.sums.items()})
        progress.epochs, progress.batches, progress.sums = epoch + 1, 0, {}

    def _note(
        self, epoch: int, number: int, rate: float, values: dict[str, float], cost: tuple[int, int, float]
    ) -> None:
        """Counts the iteration and writes it to the log. `cost`: scenes, voxels and seconds."""
        scenes, voxels, seconds = cost
        progress = self.progress
        terms = {name: value for name, value in values.items() if name != "gradient_norm"}
        row = {
            "step": self.step.index,
            "epoch": epoch,
            "batch": number,
            "iteration": progress.iterations,
            "learning_rate": rate,
            "loss": {**terms, "total": sum(terms.values())},
            "gradient_norm": values["gradient_norm"] if math.isfinite(values["gradient_norm"]) else None,
            "scenes": scenes,
            "voxels": voxels,
            "speed": {  # whatever differs from run to run
                "scenes_per_second": scenes / seconds,
                "voxels_per_second": voxels / seconds,
                "memory_gib": self.machine.peak_memory_bytes() / 2**30,
            },
        }
        if self.log is not None:
            self.log.write(row)
        for name, value in {**row["loss"], "rate": rate, **row["speed"]}.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        progress.batches = number + 1
        progress.iterations += 1
        progress.seconds += seconds
        if self.machine.device.type == "cuda":
            progress.peak_memory_bytes = self.machine.peak_memory_bytes()

    def _say(self, epoch: int, means: dict[str, float]) -> None:
        """An epoch in one line of the console."""
        speeds = [means.pop(name) for name in ("scenes_per_second", "voxels_per_second", "memory_gib")]
        log.info(
            "step %d  epoch %d/%d  %s  %.1f scenes/s  %.0fk voxels/s  %.2f GiB",
            self.step.index,
            epoch + 1,
            self.epochs,
            "  ".join(f"{name} {value:.4g}" for name, value in means.items()),
            speeds[0],
            speeds[1] / 1000,
            speeds[2],
        )

    def _open_log(self) -> None:
        if distributed.is_first():
            progress = self.progress
            self.log = MetricsLog(self.folder, progress.log_bytes, progress.iterations, self.tracker)

    def _close_log(self) -> None:
        if self.log is not None:
            self.log.close()
            self.log = None

    def _checkpoint(self) -> None:
        """Written by the first process; the others hold the same."""
        self._saved = time.monotonic()
        if not distributed.is_first():
            return
        if self.log is not None:
            self.progress.log_bytes = self.log.keep()
        self.progress.too_many_voxels = self.updater.memory.too_many_voxels
        content: dict[str, Any] = {
            "network": self.step.network.state_dict(),
            "optimizer": self.updater.optimizer.state_dict(),
            "scaler": self.updater.scaler.state_dict(),
            "method": self.method.state,
            "progress": asdict(self.progress),
        }
        self.checkpoints.save(self.progress.iterations, content)

    def _restore(self, content: dict[str, Any]) -> None:
        self.step.network.load_state_dict(content["network"])
        self.updater.optimizer.load_state_dict(content["optimizer"])
        self.updater.scaler.load_state_dict(content["scaler"])
        self.method.state = content["method"]
        self.progress = Progress(**content["progress"])
        self.updater.memory.too_many_voxels = self.progress.too_many_voxels


def share_of(batch: list[SceneEntry]) -> list[SceneEntry]:
    """This process' scenes of a batch: each scene goes to the process that has the fewest voxels so far, so
    the first process always has one."""
    loads, share = [0] * distributed.processes(), []
    for entry in batch:
        taker = loads.index(min(loads))
        loads[taker] += max(entry.voxels, 1)
        if taker == distributed.rank():
            share.append(entry)
    return share
