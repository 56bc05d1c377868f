"""What a continual-learning method is, and how it is found by name.

The loop (training/) owns optimisation: it runs teacher and student, adds the loss terms up, scales, clips
and steps. A method owns the loss of the incremental steps, and what it needs to remember. Step 0 is trained
with plain cross-entropy, so that its result can be shared; the few methods that need another step 0 say so
by `base`, and share it among themselves.

    @dataclass
    class MyMethod(Method):
        name = "my-method"
        weight: float = option(1.0, "weight of the distance between the features")

        def loss(self, step, batch, new, old):
            terms = super().loss(step, batch, new, old)
            squares = (new.features.float() - old.features.float()).square()
            terms["features"] = self.weight * mean_over(ordered_sum(squares), squares.numel())
            return terms
"""

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scannet_css.errors import InputError, did_you_mean
from scannet_css.methods.losses import cross_entropy
from scannet_css.network import Output
from scannet_css.options import check_options, option, options_of
from scannet_css.protocols import Protocol
from scannet_css.scenes import Manifest, SceneEntry
from scannet_css.scenes.loader import Batch
from scannet_css.sparse import SparseTensor

__all__ = ["LossTerms", "Method", "Step", "find_method", "method_names", "option", "options_of"]

_METHODS: dict[str, type["Method"]] = {}


class LossTerms(dict):
    """Named loss terms (str -> scalar tensor). A name may be set once: combined methods cannot overwrite."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        if name in self:
            raise InputError(f"loss term {name!r} is set twice; every term needs a name of its own")
        super().__setitem__(name, value)


@dataclass
class Step:
    """One increment of a protocol, as the loop shows it to a method."""

    index: int
    protocol: Protocol
    scenes: list[SceneEntry]  # of the training split, those that belong to this step
    network: nn.Module  # the student
    teacher: nn.Module | None  # frozen, its norms folded; None at step 0 and if the method needs none
    device: torch.device
    autocast: Callable[[], AbstractContextManager]  # the run's mixed precision
    add_up: Callable[[str, Callable[[Batch], dict[str, Tensor]]], dict[str, Tensor]]
    # add_up(name, compute): the sums of the tensors that `compute(batch)` gives, over the step's scenes as
    # prepared (not augmented, fixed order) and over all processes. Survives being killed. For Fisher terms,
    # prototypes, histograms: whatever a method finds out in `begin` or `end`.
    tune: Callable[[nn.Module, "Method", int], None] | None = None
    # tune(module, method, epochs): trains `module`, which gives an Output for a batch's input, by
    # `method.loss(step, batch, output, None)` for some epochs of the step's batches. For `begin`; killed, it
    # starts anew and ends the same.

    @property
    def channels(self) -> int:
        """C: outputs of the student, background included."""
        return self.protocol.channels(self.index)

    @property
    def old_channels(self) -> int:
        """K: outputs of the teacher, background included; 1 at step 0."""
        return self.protocol.channels(self.index - 1) if self.index else 1

    @property
    def has_background(self) -> bool:
        """Whether background is an answer after this step; else it has no part in 3DPC-CISS's training."""
        return self.protocol.predicts_background(self.index)

    def old_output(self, voxels: SparseTensor) -> Output | None:
        """The teacher's output on `voxels`, None without a teacher; ordinary tensors without gradient."""
        if self.teacher is None:
            return None
        with torch.inference_mode(), self.autocast():
            old = self.teacher(voxels)
        return old.clone()  # autograd refuses to keep what was made in inference mode


@dataclass
class Method:
    """Base class. As it stands: cross-entropy on the labels a step shows."""

    name: ClassVar[str] = "without a name"  # who sets it is registered under it
    needs_teacher: ClassVar[bool] = True
    head_start: ClassVar[str] = "background"  # how new outputs begin; see network.grow
    offline: ClassVar[bool] = False  # trained on all classes in a single step: the upper bound
    base: ClassVar[str] = ""  # methods with the same word share their step 0; "": plain cross-entropy
    trains: ClassVar[bool] = True  # False: later steps have no epochs, `end` does the work
    freezes_norms: ClassVar[bool] = False  # batch norms keep their statistics in later steps
    shows_rest: ClassVar[bool] = False  # what a memory shows no class of is channel 0, not ignored
    reads: ClassVar[
        tuple[str, ...]
    ] = ()  # tensors of `state` that `predict` needs; exported with the weights
    state: dict = field(default_factory=dict, init=False, repr=False)  # what it remembers between steps

    def __init_subclass__(cls) -> None:
        if "name" in cls.__dict__:
            _METHODS[cls.name] = cls

    def __post_init__(self) -> None:
        """Raises InputError for a setting out of its option's limits."""
        check_options(self, f"method {self.name!r}: ")

    def check(self, protocol: Protocol, manifest: Manifest) -> None:
        """Raises InputError if the method cannot run on these data; called before anything is trained."""

    def scenes(self, step: Step) -> list[SceneEntry]:
        """The scenes to train on in this step; replay adds some."""
        return step.scenes

    def remembered(self, step: Step) -> dict[str, list[str]]:
        """Scene name -> old classes whose labels this step may show in it: what a memory has kept. A scene
        that is not of this step shows nothing else; the rest of it is ignored, or channel 0 with
        `shows_rest`."""
        return {}

    def change(
        self, step: Step, tensors: dict[str, Tensor], table: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """A training scene from step 1 on, before it is augmented and made into a batch, maybe in a worker
        process: its tensors by their names in Scene, and the channel of each of the data set's labels (256,).
        Both come back, changed or not; labels that the data set does not have are free for more points."""
        return tensors, table

    def base_loss(self, step: Step, batch: Batch, new: Output) -> LossTerms:
        """The terms of step 0. Whoever changes them, or uses `updated` in step 0, sets `base`."""
        return LossTerms(ce=cross_entropy(new.logits, batch.labels))

    def base_predict(self, output: Output) -> Tensor:
        """(N, C) scores after step 0, the same for all methods of a `base`; see predict. Who changes it, sets
        `base`."""
        return output.logits

    def reads_step(self, index: int) -> bool:
        """Whether scores after step `index` are this method's own: from step 1 on, and where base_predict is
        its own."""
        return index > 0 or type(self).base_predict is not Method.base_predict

    def prepare(self, network: nn.Module, protocol: Protocol) -> None:
        """Called on the fresh network, before the optimiser of step 0 is made: for what step 0 trains beside
        it. Whoever adds something sets `base`."""

    def adapt(self, step: Step) -> None:
        """Called from step 1 on before the optimiser is made, also when a step is resumed: freezes
        parameters of step.network or exchanges modules. `end` must take back exchanged modules."""

    def begin(self, step: Step) -> None:
        """Called once before a step's first epoch; what it finds out goes into `state`. Of step 0 only where
        the method has a `base`, and once more when it visits that step, which others may have trained."""

    def classification(self, step: Step, batch: Batch, new: Output, old: Output | None) -> Tensor:
        """The term named "ce": by default cross-entropy on batch.labels (N,)."""
        return cross_entropy(new.logits, batch.labels)

    def loss(self, step: Step, batch: Batch, new: Output, old: Output | None) -> LossTerms:
        """Named terms for one batch; the loop adds them up. Called from step 1 on.

        `new` and `old` are the student's and the teacher's outputs on the same voxels, row by row (`old` is
        None without a teacher); batch.labels (N,) int64 holds channels, 255 ignored.
        """
        terms = LossTerms()
        terms["ce"] = self.classification(step, batch, new, old)
        return terms

    def before_batch(self, step: Step) -> None:
        """Called before the loss of a batch is computed, all its parts; again where memory ran out. Of step 0
        only where the method has a `base`."""

    def updated(self, step: Step) -> None:
        """Called after every update of the weights; the parameters still hold their gradients."""

    def predict(self, output: Output) -> Tensor:
        """(N, C) scores whose largest is the answer, from step 1 on."""
        return output.logits

    def end(self, step: Step) -> None:
        """Called once after a step's last epoch; what it finds out goes into `state`."""

    def settings(self) -> dict[str, Any]:
        """The hyper-parameters, as they go into the record."""
        return {parameter.name: getattr(self, parameter.name) for parameter in options_of(self)}


def method_names() -> list[str]:
    """Names of all registered methods."""
    return sorted(_METHODS)


def find_method(name: str) -> type[Method]:
    """The class of a registered name, or of "path/to/file.py:Class". Raises InputError with a suggestion."""
    if ".py:" in name:
        path, _, class_name = name.rpartition(":")
        return _load_class(Path(path), class_name)
    if name not in _METHODS:
        known = ", ".join(method_names())
        raise InputError(f"method {name!r} is not known{did_you_mean(name, _METHODS)}; expected {known}")
    return _checked_class(_METHODS[name], name)


def _checked_class(found: type[Method], where: str) -> type[Method]:
    """Raises InputError for a class that contradicts itself."""
    if found.offline and found.needs_teacher:
        raise InputError(
            f"{where}: offline (all classes in a single step) and needs_teacher exclude each other; a single"
            " step has no teacher"
        )
    if found.offline and found.loss is not Method.loss:
        raise InputError(f"{where}: offline and a loss of its own exclude each other; step 0 has base_loss")
    return found


def _load_class(path: Path, class_name: str) -> type[Method]:
    if not path.is_file():
        raise InputError(f"{path}: no such file (expected path/to/file.py:Class)")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError(f"{path}: has no subclass of Method named {class_name!r}")
    if "name" not in found.__dict__:
        raise InputError(f"{path}: {class_name} has no `name`")
    return _checked_class(found, f"{path}: {class_name}")
