"""The loss terms of a method, found by computing them: what `run.py --help` prints.

A run in miniature goes through the method's own hooks: two scenes of random voxels, a protocol of two steps,
a few updates in each. Then the loss of step 1 is taken apart.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from scannet_css.methods.method import Method, Step, options_of
from scannet_css.network import Output, build_network, frozen_copy, grow
from scannet_css.protocols import Protocol
from scannet_css.scenes import Manifest, SceneEntry
from scannet_css.scenes.batch import Batch
from scannet_css.sparse import SparseTensor
from scannet_css.training.base_step import BaseMethod
from scannet_css.training.recipe import train_mode

NETWORK, RATE = "minkunet14s", 0.01
UPDATES, SCENES = 2, 1000  # of each step; in the data set, more than a memory keeps
PROTOCOL = Protocol(
    name="miniature",
    version=1,
    description="three classes and two more",
    steps=(("wall", "floor", "bed"), ("chair", "sofa")),
    background=("lamp",),
    regime="overlapped",
    unannotated="ignore",
)
LABELS = (0, 1, 2, 3, 255), (0, 0, 4, 5, 255)  # that each step shows


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
    """Names of the terms of step 0."""
    step = _first_step()
    return list(method.base_loss(step, _batch(0), _outputs(step)[0]))


def loss_terms(method: Method) -> list[LossTerm]:
    """The terms of later steps. Raises whatever the method's hooks raise; `method` is used up."""
    step = _step_1(method)
    new, old = _outputs(step)

    def values(owner: type[Method]) -> dict[str, float]:
        torch.manual_seed(0)
        return {name: term.item() for name, term in owner.loss(method, step, _batch(1), new, old).items()}

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


def _first_step() -> Step:
    torch.manual_seed(0)
    return _step(0, build_network(NETWORK, 3, PROTOCOL.channels(0)), None)


def _step_1(method: Method) -> Step:
    """Step 1 as the loop brings it about, after its first updates."""
    method.check(PROTOCOL, Manifest(Path("miniature"), "miniature", _CLASSES, 0.05, _ENTRIES))
    first = _first_step()
    if method.base:
        _train(first, BaseMethod(method))
    first.network.eval()
    method.begin(first)
    method.end(first)
    teacher = frozen_copy(first.network) if method.needs_teacher else None
    grow(first.network, len(PROTOCOL.steps[1]), start=method.head_start)
    step = _step(1, first.network, teacher)
    method.adapt(step)
    step.network.eval()
    method.begin(step)
    _train(step, method)
    return step


def _train(step: Step, method: Method) -> None:
    """Plain gradient descent: torch's optimisers take two seconds to be imported."""
    train_mode(step.network, "batch")
    for number in range(UPDATES):
        new, old = _outputs(step)
        torch.manual_seed(number)
        terms = method.loss(step, _batch(step.index), new, old)
        step.network.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        with torch.no_grad():
            for parameter in step.network.parameters():
                if parameter.grad is not None:
                    parameter -= RATE * parameter.grad
        method.updated(step)


def _step(index, network, teacher) -> Step:
    scenes = list(_ENTRIES.values())[: len(_batch(index).names)]
    return Step(
        index,
        PROTOCOL,
        scenes,
        network,
        teacher,
        torch.device("cpu"),
        nullcontext,
        lambda name, compute: compute(_batch(index)),
    )


def _outputs(step: Step) -> tuple[Output, Output | None]:
    voxels = SparseTensor(_batch(step.index).features, _batch(step.index).coordinates)
    return step.network(voxels), step.old_output(voxels)


def _batch(index: int) -> Batch:
    """Two scenes of about 60 voxels."""
    draw = torch.Generator().manual_seed(index)
    scenes = [torch.randint(0, 5, (80, 3), generator=draw).unique(dim=0) for _ in range(2)]
    coordinates = torch.cat([F.pad(cells, (1, 0), value=n) for n, cells in enumerate(scenes)]).int()
    labels = torch.tensor(LABELS[index])
    labels = labels[torch.randint(0, len(labels), (len(coordinates),), generator=draw)]
    features = torch.randn(len(coordinates), 3, generator=draw)
    return Batch([f"scene{n}" for n in range(len(scenes))], features, coordinates, labels, [], [])


_CLASSES = (*PROTOCOL.classes, *PROTOCOL.background)
_ENTRIES = {
    f"scene{n}": SceneEntry(f"scene{n}", "train", f"scene{n}", "", 80, 60, (1,) * len(_CLASSES), 0, {}, True)
    for n in range(SCENES)
}
