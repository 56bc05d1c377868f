"""A method in training, with a clock: what `speed.py train` measures.

The real loader, augmentation, teacher, loss, update and optimiser, at step 1 of a protocol.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

import baselines  # noqa: F401  registers the methods
from scannet_css.methods.method import Step, find_method
from scannet_css.network import build_network, frozen_copy, grow
from scannet_css.processes import keep_freed_memory
from scannet_css.protocols import load_protocol
from scannet_css.scenes import Manifest
from scannet_css.scenes.loader import Batch, BatchSet, batches_of, input_channels
from scannet_css.sparse.maps import timed_building
from scannet_css.training.machine import Machine
from scannet_css.training.recipe import Recipe, make_optimizer, train_mode
from scannet_css.training.step.update import Updater
from scannet_css.training.sums import add_up
from speed_lib.measure import PROCESS_STATUS, resident, synchronize

PROTOCOL = "scannet/lgkd-14-5"
PARTS = ("loader", "maps", "teacher", "forward", "loss", "backward", "optimiser")


class Parts:
    """Seconds of named parts of the work. A part inside of another one counts for itself only.

    `wait` is called before each look at the clock; on a GPU it waits until that has nothing left to do.
    """

    def __init__(
        self, wait: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._wait, self._clock = wait, clock
        self._running: list[str] = []  # the outermost first
        self._since = 0.0

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """What runs in here belongs to `name`."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def timed_maps(self) -> AbstractContextManager:
        """In here, the building of kernel maps belongs to "maps": in the middle of the forward pass, where a
        network first asks for them."""
        return timed_building(lambda: self.timed("maps"))

    def _charge(self) -> None:
        """The time since the last change goes to the part that was running."""
        self._wait()
        now = self._clock()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


@dataclass
class Case:
    """What the methods that are compared have in common."""

    manifest: Manifest
    scenes: int  # of a batch
    recipe: Recipe
    machine: Machine
    clock: Callable[[], float] = time.perf_counter

    def batches(self, number: int, turn: int | None = None) -> Iterator[Batch]:
        """The first scenes as a batch, `number` times; each turn augments them in its own way."""
        entries = self.manifest.split("train")[: self.scenes]
        table = load_protocol(PROTOCOL).training_table(1, self.manifest.classes)
        identity, recipe = None if turn is None else (0, 1, turn), self.recipe
        batches = BatchSet(self.manifest, [entries] * number, table, recipe.inputs, identity, recipe.elastic)
        return batches_of(batches, self.machine.workers, self.machine.device)


@dataclass
class Turn:
    """Seconds per batch."""

    voxels: int
    step: float  # undisturbed by timers, from batch to batch
    update: float  # of it, all but the wait for the loader
    timed_step: float  # with timers around all parts
    parts: dict[str, float]


class Trainee:
    """A method at the beginning of step 1, in a run that has left out the training of step 0.

    `folder` is for what the method adds up over the scenes before it begins.
    """

    def __init__(self, case: Case, name: str, folder: Path) -> None:
        self.case, recipe, machine = case, case.recipe, case.machine
        protocol, method = load_protocol(PROTOCOL), find_method(name)()
        torch.manual_seed(0)
        network = build_network(recipe.network, input_channels(recipe.inputs), protocol.channels(0))
        network.to(machine.device)
        teacher = frozen_copy(network) if method.needs_teacher else None
        grow(network, len(protocol.steps[1]), start=method.head_start)
        scenes = case.manifest.split("train")[: case.scenes]
        step = Step(
            1,
            protocol,
            scenes,
            network,
            teacher,
            machine.device,
            lambda: machine.autocast(recipe.precision),
            lambda what, compute: add_up(
                what, [scenes], lambda batches: case.batches(len(batches)), compute, folder, machine
            ),
        )
        method.begin(step)
        train_mode(network, recipe.batch_norm)
        optimizer = make_optimizer(network, recipe, recipe.learning_rate)
        self.updater = Updater(step, method, recipe, machine, optimizer)

    def turn(self, turn: int, batches: int) -> Turn:
        """Trains on so many batches undisturbed, and then on as many with timers."""
        machine, plain = self.case.machine, self.updater.timed
        clock = self.case.clock
        loader, parts = Parts(clock=clock), Parts(lambda: synchronize(machine.device), clock)
        is_ahead = machine.workers > 0 or machine.device.type == "cuda"
        with closing(self.case.batches(2 * batches + is_ahead, turn)) as loaded:
            if is_ahead:  # it is started, and works while this one is trained on
                self._train(loaded, 1, Parts())
            step, voxels = self._train(loaded, batches, loader)
            self.updater.timed = parts.timed
            with parts.timed_maps():
                timed_step, _ = self._train(loaded, batches, parts)
            self.updater.timed = plain
        update = step - loader.seconds["loader"] / batches
        each = {name: parts.seconds[name] / batches for name in PARTS}
        return Turn(voxels, step, update, timed_step, each)

    def _train(self, loaded: Iterator[Batch], batches: int, parts: Parts) -> tuple[float, int]:
        """Seconds per batch, and its voxels."""
        synchronize(self.case.machine.device)
        start = self.case.clock()
        for _ in range(batches):
            with parts.timed("loader"):
                batch = next(loaded)
            self.updater.run(batch, self.case.recipe.learning_rate, seed=0)
        synchronize(self.case.machine.device)
        return (self.case.clock() - start) / batches, batch.voxels


def peak_memory(case: Case, name: str) -> int | None:
    """The most bytes of a process that does nothing but train by this method: on CUDA what torch allocated;
    on a CPU all that is resident, libraries included, None where /proc does not tell."""
    if case.machine.device.type != "cuda" and not PROCESS_STATUS.exists():
        return None
    machine = case.machine  # not sent as it is: its handler of signals belongs to this process
    arguments = (case.manifest, case.scenes, case.recipe, machine.device, machine.deterministic)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_memory, *arguments, name, torch.get_num_threads()).result()


def _peak_memory(
    manifest: Manifest,
    scenes: int,
    recipe: Recipe,
    device: torch.device,
    deterministic: bool,
    name: str,
    threads: int,
) -> int:
    keep_freed_memory()
    torch.set_num_threads(threads)
    machine = Machine(device, deterministic=deterministic)
    machine.make_deterministic()
    with tempfile.TemporaryDirectory(prefix="train-speed-") as folder:
        Trainee(Case(manifest, scenes, recipe, machine), name, Path(folder)).turn(0, batches=1)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident("VmHWM")
