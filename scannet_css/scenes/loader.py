"""Prepared scenes -> batches of voxels, the same whatever the number of workers.

Which scenes form a batch, their order and how each is augmented depend only on (seed, step, epoch, scene) and
on the kind of device that augments: a GPU draws other random numbers than a CPU.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from scannet_css.errors import InputError
from scannet_css.processes import ahead, one_thread, signals_held, start_worker
from scannet_css.scenes.augment import augment
from scannet_css.scenes.batch import Batch
from scannet_css.scenes.store import Manifest, SceneEntry, load_scene
from scannet_css.scenes.voxelize import majority_labels, voxel_mean, voxelize

CPU = torch.device("cpu")
AHEAD = 2  # batches that wait on a GPU for their turn

# A scene and what its part of a batch is made from, by the names of Scene's tensors.
Raw = tuple[SceneEntry, dict[str, Tensor]]


def derived_generator(*identity: int | str, device: torch.device = CPU) -> Generator:
    """A random generator that depends on nothing but the identity, e.g. (seed, step, epoch, scene name), and
    the kind of device."""
    return Generator(device).manual_seed(derived_seed(*identity))


def derived_seed(*identity: int | str) -> int:
    """A 63-bit seed that depends on nothing but the identity."""
    text = "/".join(str(part) for part in identity)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


# What a point can bring to the network, and how many channels that is.
INPUTS = {"colour": 3, "normal": 3, "height": 1}


def input_channels(inputs: str) -> int:
    """Channels of inputs such as "colour" or "colour+normal+height". Raises InputError for another word."""
    names = inputs.split("+")
    for name in names:
        if name not in INPUTS or names.count(name) > 1:
            raise InputError(
                f"inputs {inputs!r}: expected some of {', '.join(INPUTS)}, each once, joined by +"
            )
    return sum(INPUTS[name] for name in names)


def point_features(inputs: str, points: Tensor, normals: Tensor, colours: Tensor) -> Tensor:
    """(P, channels) float32: colour in -1..1, unit normal, height above the scene's floor in metres.

    The floor is the height below which one point in a hundred lies, since meshes have strays.
    """
    features = []
    for name in inputs.split("+"):
        if name == "colour":
            features.append(colours / 127.5 - 1)
        elif name == "normal":
            features.append(normals)
        else:
            # not kthvalue, which has no deterministic form on a GPU
            lowest = points[:, 2].topk(1 + (len(points) - 1) // 100, largest=False, sorted=False)
            floor = lowest.values.amax()
            features.append(points[:, 2:] - floor)
    return torch.cat(features, 1)


def plan_batches(scenes: Sequence[SceneEntry], voxel_budget: int) -> list[list[SceneEntry]]:
    """Cuts the sequence into batches of at most `voxel_budget` voxels (as prepared); a larger scene stands
    alone. Scenes without voxels are left out: there is nothing to train or score on."""
    batches: list[list[SceneEntry]] = []
    filled = 0
    for scene in scenes:
        if not scene.voxels:
            continue
        if not batches or filled + scene.voxels > voxel_budget:
            batches.append([])
            filled = 0
        batches[-1].append(scene)
        filled += scene.voxels
    return batches


def shuffled(scenes: Sequence[SceneEntry], *identity: int | str) -> list[SceneEntry]:
    """The scenes in a random order that depends only on the identity."""
    order = torch.randperm(len(scenes), generator=derived_generator(*identity))
    return [scenes[index] for index in order.tolist()]


class BatchSet:
    """Batches by number. `identity` = (seed, step, epoch) switches augmentation on.

    `label_table` (256,) leads from the data set's labels to channels; `tables` holds those of scenes that
    have their own; `change(tensors, table, generator)` may give a scene in training other points. A batch is
    made in two stages, which may run in different places: `read` and `make`. A batch without scenes is one of
    no rows: several processes may share fewer scenes than they are.
    """

    def __init__(
        self,
        manifest: Manifest,
        batches: list[list[SceneEntry]],
        label_table: Tensor,
        inputs: str = "colour",
        identity: tuple[int, ...] | None = None,
        with_elastic: bool = False,
        tables: dict[str, Tensor] | None = None,
        change: Callable | None = None,
    ) -> None:
        self.change = change if identity is not None else None
        self.tables = tables or {}
        self.manifest, self.batches, self.label_table, self.inputs = manifest, batches, label_table, inputs
        self.identity, self.with_elastic = identity, with_elastic

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.load(self.batches[index])

    def load(self, entries: list[SceneEntry]) -> Batch:
        """The batch of these scenes, read and made here, on the CPU."""
        with one_thread():
            return self.make(self.read(entries), CPU)

    def read(self, entries: list[SceneEntry]) -> list[Raw]:
        """What is needed of the scenes. Raises InputError for a file that is missing or damaged."""
        names = ["points", "normals", "colours", "labels"]
        if self.identity is None:
            names += ["voxel_coordinates", "voxel_labels", "inverse"]
        scenes = [load_scene(self.manifest.path(entry)) for entry in entries]
        return [
            (entry, {name: getattr(scene, name) for name in names})
            for entry, scene in zip(entries, scenes, strict=True)
        ]

    def make(self, scenes: list[Raw], device: torch.device) -> Batch:
        """The batch of these scenes, computed on `device`. Raises InputError, which names the scene's file,
        for numbers that are not finite or too large."""
        training = self.identity is not None
        # The parts of a batch without scenes.
        features = [torch.empty(0, input_channels(self.inputs), device=device)]
        coordinates = [torch.empty(0, 4, dtype=torch.int32, device=device)]
        labels = [torch.empty(0, dtype=self.label_table.dtype, device=device)]
        inverse, vertex_labels = [], []
        for number, (entry, tensors) in enumerate(scenes):
            tensors = {name: _sent(tensor, device) for name, tensor in tensors.items()}
            table = self.tables.get(entry.name, self.label_table).to(device)
            if self.change is not None:
                generator = derived_generator(*self.identity, entry.name, "change")
                tensors, table = self.change(tensors, table, generator)
            try:
                means, voxels, majority, voxel_of_vertex = self._make_scene(entry.name, tensors)
            except InputError as error:
                raise InputError(f"{self.manifest.path(entry)}: {error}") from None
            features.append(means)
            coordinates.append(torch.nn.functional.pad(voxels, (1, 0), value=number))
            labels.append(table[majority.long()])
            if not training:
                inverse.append(voxel_of_vertex)
                vertex_labels.append(table[tensors["labels"].long()])
        names = [entry.name for entry, _ in scenes]
        return Batch(
            names, torch.cat(features), torch.cat(coordinates), torch.cat(labels), inverse, vertex_labels
        )

    def _make_scene(self, name: str, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, coordinates and labels of the voxels, and the voxel of each point."""
        points, normals, colours = tensors["points"], tensors["normals"], tensors["colours"].float()
        # The sum stands for all, which takes a tenth of the time; on a GPU it is one wait instead of two.
        if not torch.isfinite(points.sum() + normals.sum()):
            raise InputError("points or normals are not finite; prepare it again from whole data")
        if self.identity is None:
            coordinates, labels = tensors["voxel_coordinates"], tensors["voxel_labels"]
            inverse = tensors["inverse"].long()
        else:
            generator = derived_generator(*self.identity, name, device=points.device)
            points, normals, colours = augment(points, normals, colours, generator, self.with_elastic)
            coordinates, inverse = voxelize(points, self.manifest.voxel_size)
            labels = majority_labels(tensors["labels"], inverse, len(coordinates))
        features = point_features(self.inputs, points, normals, colours)
        return voxel_mean(features, inverse, len(coordinates)), coordinates, labels, inverse


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On `device`; to a GPU over pinned memory, so that this thread does not wait for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def batches_of(batch_set: BatchSet, workers: int, device: torch.device = CPU) -> Iterator[Batch]:
    """Iterates over the batches in order, on `device`.

    `workers` processes read and make them (0: this process does). For a CUDA device they only read; a thread
    makes the batches there, on a stream of its own, and stays AHEAD of them ahead. Raises InputError for a
    scene that cannot be read or made. Closing the iterator early ends thread and processes; these are
    started by, and die with, the thread that asks for the first batch.
    """
    on_gpu = device.type == "cuda"
    work = batch_set.read if on_gpu else batch_set.load
    with closing(_results(work, batch_set.batches, workers)) as results:
        if on_gpu:
            yield from _made_on_gpu(batch_set, results, device)
        else:
            for batch in results:
                yield batch.to(device)


def _made_on_gpu(batch_set: BatchSet, results: Iterator[list[Raw]], device: torch.device) -> Iterator[Batch]:
    """The batches of what was read, made while the consumer's stream works on earlier ones."""
    stream = torch.cuda.Stream(device)

    def made() -> Iterator[tuple[Batch, torch.cuda.Event]]:
        for scenes in results:
            with torch.cuda.stream(stream):
                batch = batch_set.make(scenes, device)
                done = stream.record_event()
            yield batch, done

    with closing(ahead(made(), AHEAD)) as batches:
        for batch, done in batches:
            consumer = torch.cuda.current_stream(device)
            consumer.wait_event(done)
            for tensor in batch.tensors:
                tensor.record_stream(consumer)  # its memory is not used again before the consumer is done
            yield batch


def _results(work: Callable, batches: list[list[SceneEntry]], workers: int) -> Iterator:
    """`work` of each batch's scenes in order, done by processes that are started now."""
    options = {}
    if workers:
        options["worker_init_fn"] = partial(_start_worker, os.getpid())
        if sys.platform == "linux":  # with a fork server a worker would not be this process's child
            options["multiprocessing_context"] = "fork"
    generator = Generator()  # the loader draws a seed, which must not change what the caller draws next
    options |= {"batch_size": None, "num_workers": workers, "generator": generator}
    with signals_held():
        results = iter(DataLoader(batches, collate_fn=partial(_attempt, work), **options))
    return _raising(results)


def _start_worker(parent: int, number: int) -> None:
    start_worker(parent)


def _attempt(work: Callable, entries: list[SceneEntry]) -> Any:
    """The result or the error for the user: what a worker raises, DataLoader hands on with its traceback."""
    try:
        return work(entries)
    except (InputError, OSError) as error:
        return error


def _raising(results: Iterator) -> Iterator:
    """The same results; raises the first that is an error."""
    try:
        for result in results:
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        del results  # the last reference to the loader's iterator: it ends its processes
