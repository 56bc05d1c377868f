"""The loss terms of a method, found by computing them: what `run.py --help` prints.

A run in miniature goes through the method's own hooks, in the order of run.py and epochs.py: two scenes of
random points, stored and loaded as others are, a protocol of two steps, a few updates in each. Then the loss
of step 1 is taken apart.
"""

import copy
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from scannet_css.methods.method import LossTerms, Method, Step, options_of
from scannet_css.network import Output, build_network, frozen_copy, grow
from scannet_css.protocols import Protocol
from scannet_css.scenes import Manifest, Scene, SceneEntry
from scannet_css.scenes.batch import Batch
from scannet_css.scenes.loader import BatchSet
from scannet_css.scenes.store import SceneHeader, save_scene, scene_file, settings_digest
from scannet_css.scenes.voxelize import majority_labels, voxelize
from scannet_css.sparse import SparseTensor
from scannet_css.training.base_step import BaseMethod
from scannet_css.training.recipe import Recipe, train_mode

RECIPE = Recipe(network="minkunet14s")
UPDATES = 2  # of each step
SCENES = 2  # that differ, and all of each step
ENTRIES = 1000  # in the data set, more than a memory keeps
POINTS, SIDE, VOXEL = 300, 0.25, 0.05  # of a scene; metres
PROTOCOL = Protocol(
    name="miniature",
    version=1,
    description="three classes and two more",
    steps=(("wall", "floor", "bed"), ("chair", "sofa")),
    background=("lamp",),
    regime="overlapped",
    unannotated="ignore",
)
CLASSES = (*PROTOCOL.classes, *PROTOCOL.background)


@dataclass(frozen=True)
class LossTerm:
    """A term of the loss of later steps."""

    name: str
    made_by: str  # "LGKD.loss", the class whose code adds it
    weights: dict[str, float]  # the options in which it is linear, with their values


def describe(method: Method) -> str:
    """What the loop adds up, in a line for each term."""
    base = f"loss: {', '.join(base_terms(method))} in step 0"
    if method.offline:
        return f"{base}, which is the only one"
    if not method.trains:
        return f"{base}; later steps are not trained, `end` does the work"
    lines, terms = [f"{base}, then the sum of"], loss_terms(method)
    width = max(len(term.name) for term in terms)
    for term in terms:
        weights = ", ".join(f"{name} {value:g}" for name, value in term.weights.items())
        lines.append(f"{term.name:<{width}}  {term.made_by}{f', weighted by {weights}' if weights else ''}")
    return "\n  ".join(lines)


def base_terms(method: Method) -> list[str]:
    """Names of the terms of step 0. Raises whatever the method's hooks raise."""
    with TemporaryDirectory() as folder:
        run = _Miniature(copy.deepcopy(method), Path(folder))
        return list(run.train(run.first_step(), BaseMethod(run.method)))


def loss_terms(method: Method) -> list[LossTerm]:
    """The terms of later steps. Raises whatever the method's hooks raise; `method` is used up."""
    with TemporaryDirectory() as folder:
        run = _Miniature(method, Path(folder))
        step = run.step_1()
        batch, new, old = run.outputs(step, method, UPDATES)

    def values(owner: type[Method]) -> dict[str, float]:
        torch.manual_seed(0)
        return {name: term.item() for name, term in owner.loss(method, step, batch, new, old).items()}

    kind, makers = type(method), {}
    for owner in reversed(kind.__mro__):  # what its super() chain adds, from the innermost outwards
        if "loss" in vars(owner):
            for name in values(owner):
                makers.setdefault(name, f"{owner.__name__}.loss")
    if makers.get("ce") == "Method.loss":
        maker = next(owner for owner in kind.__mro__ if "classification" in vars(owner))
        makers["ce"] = f"{maker.__name__}.classification"
    weights: dict[str, dict[str, float]] = {name: {} for name in values(kind)}
    for option in options_of(method):
        if type(option.default) is float:
            for name in _linear_in(option.name, method, lambda: values(kind)):
                weights[name][option.name] = getattr(method, option.name)
    return [LossTerm(name, makers[name], found) for name, found in weights.items()]


def _linear_in(option: str, method: Method, values) -> list[str]:
    """The terms that grow by the same amount each time the option does."""
    value, found = getattr(method, option), []
    for times in (1, 2, 3):
        setattr(method, option, value * times if value else float(times))
        found.append(values())
    setattr(method, option, value)
    first, second, third = found
    rises = {name: (second[name] - first[name], third[name] - second[name]) for name in first}
    return [name for name, (a, b) in rises.items() if a and abs(a - b) <= 1e-3 * abs(a)]


class _Miniature:
    """A run on scenes in `folder`."""

    def __init__(self, method: Method, folder: Path) -> None:
        self.method, self.manifest = method, _stored(folder)
        method.check(PROTOCOL, self.manifest)

    def first_step(self) -> Step:
        """Step 0, not trained."""
        torch.manual_seed(0)
        network = build_network(RECIPE.network, 3, PROTOCOL.channels(0))
        self.method.prepare(network, PROTOCOL)
        return self._step(0, network, None)

    def step_1(self) -> Step:
        """Step 1 after its first updates."""
        method, first = self.method, self.first_step()
        self.train(first, BaseMethod(method))
        first.network.eval()
        method.begin(first)
        method.end(first)
        teacher = frozen_copy(first.network) if method.needs_teacher else None
        grow(first.network, len(PROTOCOL.steps[1]), start=method.head_start)
        step = self._step(1, first.network, teacher)
        self.train(step, method)
        return step

    def train(self, step: Step, method: Method) -> LossTerms:
        """The step from its beginning, but for its end; gives the terms of the last update."""
        step.tune = partial(self._tune, step)
        method.adapt(step)
        step.network.eval()
        method.begin(step)
        train_mode(step.network, "frozen" if method.freezes_norms else RECIPE.batch_norm)
        for number in range(UPDATES):
            terms = self._update(step, method, number)
        return terms

    def outputs(self, step: Step, method: Method, number: int) -> tuple[Batch, Output, Output | None]:
        """A batch of training, and what student and teacher give for it."""
        batch = self._batch(step, number)
        torch.manual_seed(number)
        method.before_batch(step)
        voxels = SparseTensor(batch.features, batch.coordinates)
        return batch, step.network(voxels), step.old_output(voxels)

    def _update(self, step: Step, method: Method, number: int) -> LossTerms:
        """Plain gradient descent: torch's optimisers take two seconds to be imported."""
        parameters = [each for each in step.network.parameters() if each.requires_grad]
        step.network.zero_grad(set_to_none=True)
        terms = method.loss(step, *self.outputs(step, method, number))
        sum(terms.values()).backward()
        nn.utils.clip_grad_norm_(parameters, RECIPE.max_gradient_norm)
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter -= RECIPE.learning_rate * parameter.grad
        method.updated(step)
        return terms

    def _tune(self, step: Step, module: nn.Module, method: Method, epochs: int) -> None:
        step = replace(step, network=module, teacher=None)
        for number in range(epochs):  # an epoch is a batch
            self._update(step, method, number)

    def _step(self, index: int, network: nn.Module, teacher: nn.Module | None) -> Step:
        scenes = self.manifest.split("train")[:SCENES]
        table = PROTOCOL.training_table(index, CLASSES)
        prepared = BatchSet(self.manifest, [scenes], table, RECIPE.inputs)
        device = torch.device("cpu")
        return Step(
            index,
            PROTOCOL,
            scenes,
            network,
            teacher,
            device,
            nullcontext,
            lambda name, compute: compute(prepared[0]),
        )

    def _batch(self, step: Step, number: int) -> Batch:
        """The step's scenes as they are trained on. A memory, too, can have no others."""
        index, tables, change, scenes = step.index, {}, None, step.scenes
        if index:
            scenes, change = self.method.scenes(step), partial(self.method.change, step)
            for name, classes in self.method.remembered(step).items():
                tables[name] = PROTOCOL.training_table(index, CLASSES, classes)
        table = PROTOCOL.training_table(index, CLASSES)
        identity = (0, index, number)
        batches = BatchSet(
            self.manifest, [scenes], table, RECIPE.inputs, identity, tables=tables, change=change
        )
        return batches[0]


def _stored(folder: Path) -> Manifest:
    """A data set of cubes of random points, each class one object; the later scenes repeat the first ones."""
    kind = "miniature", CLASSES, VOXEL
    settings, entries = settings_digest(*kind, {}), []
    for number in range(SCENES):
        scene = _scene(number)
        entries.append(_entry(f"scene{number:03}", scene))
        save_scene(folder / entries[-1].file, scene, SceneHeader(settings, {}, entries[-1]))
    entries = [replace(entries[n % SCENES], name=f"scene{n:03}") for n in range(ENTRIES)]
    return Manifest(folder, *kind, {entry.name: entry for entry in entries})


def _scene(number: int) -> Scene:
    draw = torch.Generator().manual_seed(number)
    points = SIDE * torch.rand(POINTS, 3, generator=draw)
    colours = torch.randint(0, 256, (POINTS, 3), generator=draw).byte()
    instances = torch.randint(-1, len(CLASSES), (POINTS,), generator=draw).int()
    labels = torch.where(instances < 0, 255, instances).byte()
    voxels, inverse = voxelize(points, VOXEL)
    majority = majority_labels(labels, inverse, len(voxels))
    normals = nn.functional.normalize(torch.randn(POINTS, 3, generator=draw))
    return Scene("", points, colours, normals, labels, instances, voxels, majority, inverse.int())


def _entry(name: str, scene: Scene) -> SceneEntry:
    ignored, *counts = torch.bincount(scene.instances + 1, minlength=len(CLASSES) + 1).tolist()
    file, voxels = scene_file("train", name), len(scene.voxel_coordinates)
    return SceneEntry(name, "train", file, "", POINTS, voxels, tuple(counts), ignored, {}, True)
