"""A trained network with what its weights do not say of it: how a run leaves it behind, and how it is loaded.

    RUN                                    a run's folder: its last finished step, or another by number
    RUN/step1, RUN/step1/finished.pt       that step; runs/base/<digest> is a step 0
    RUN/weights/step1.safetensors          exported, for anyone who has nothing else of the run

Loading runs no code that a file brings.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from scannet_css.errors import InputError
from scannet_css.files import write_json
from scannet_css.methods.method import Method, find_method, method_names, options_of
from scannet_css.network import MinkUNet, Output, build_network
from scannet_css.network.branched_head import with_branches_of
from scannet_css.network.head import RESERVE
from scannet_css.network.weights import HEADER, read_weights, save_weights
from scannet_css.scenes.loader import input_channels
from scannet_css.strict_json import Name, Prose, named, read
from scannet_css.training.checkpoint import TITLE, load_checkpoint
from scannet_css.training.recipe import Recipe
from scannet_css.training.setting import Setting

ABOUT = "about"  # where finished.pt keeps it
_BASE = "base.json"  # in RUN/step0: where the shared base step lies
_STATE = "method."  # before the names of what an exported method needs to answer


@dataclass(frozen=True)
class About:
    """What predicting needs to know beside the weights."""

    network: Name
    inputs: Name
    precision: Name
    voxel_size: float  # metres
    dataset: Name
    classes: list[Name]  # of the data set
    channels: list[Name]  # names, "background" first
    predicts_background: bool  # whether channel 0 is an answer
    step: int
    method: Prose  # whose read-out is used; "": the logits are
    settings: dict[str, Any]  # of the method

    @classmethod
    def of(cls, setting: Setting, method: Method, step: int) -> "About":
        """After `step` of a run; it names no method where all read it alike, at most step 0."""
        protocol, manifest = setting.protocol, setting.manifest
        is_own = method.reads_step(step)
        return cls(
            network=setting.recipe.network,
            inputs=setting.recipe.inputs,
            precision=setting.recipe.precision,
            voxel_size=manifest.voxel_size,
            dataset=manifest.dataset,
            classes=list(manifest.classes),
            channels=list(protocol.channel_names(step)),
            predicts_background=protocol.predicts_background(step),
            step=step,
            method=method.name if is_own else "",
            settings=method.settings() if is_own else {},
        )

    @classmethod
    def from_json(cls, path: Path, value: Any) -> "About":
        """Raises InputError naming the file if something is missing or cannot be."""
        value = value if isinstance(value, dict) else {}
        missing = [field.name for field in fields(cls) if field.name not in value]
        if missing:
            raise InputError(
                f"{path}: does not say {', '.join(missing)}; made by an older version: the command of its run"
                " adds that (to exported weights: once they are removed, with --export)"
            )
        with named(path):
            about = read(cls, {field.name: value[field.name] for field in fields(cls)}, "")
            about._check()
        return about

    def _check(self) -> None:
        names = self.channels[1:]
        if self.channels[:1] != ["background"] or not 0 < len(names) == len({*names} & {*self.classes}):
            raise InputError(f"channels are {self.channels}, expected background and classes")
        if self.step < 0:
            raise InputError(f"step is {self.step}, expected at least 0")
        if not 0.001 <= self.voxel_size <= 1:
            raise InputError(f"voxel_size is {self.voxel_size}, expected 0.001 to 1 metre")
        Recipe(network=self.network, inputs=self.inputs, precision=self.precision)


@dataclass(frozen=True)
class Trained:
    """A network on the CPU, in evaluation mode, and how its output is read: (N, C) scores by channel."""

    path: Path  # the file it comes from
    about: About
    network: MinkUNet
    predict: Callable[[Output], Tensor]


def load_trained(path: str | Path, step: int | None = None, method: str | None = None) -> Trained:
    """What lies at `path` (see above). `step` picks one of a run's; of a file it has to be the one.

    `method` is "path/to/file.py:Class" for a method that does not come with the suite. Raises InputError,
    one line with the file and what is wrong or missing.
    """
    file = _find_file(Path(path), step)
    about, weights, state = _read_export(file) if file.suffix == ".safetensors" else _read_finished(file)
    if step not in (None, about.step):
        raise InputError(f"{file}: holds step {about.step}, not {step}")
    network = build_network(about.network, input_channels(about.inputs), len(about.channels))
    weights = {name: value for name, value in weights.items() if not name.startswith(f"{RESERVE}.")}
    with_branches_of(network, weights)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{file}: not the weights of {about.network} that it names ({reason})") from None
    return Trained(file, about, network.eval(), _reader(file, about, state, method))


def link_base(folder: Path, base: Path) -> None:
    """Writes down in RUN/step0 where the base step lies, as seen from there."""
    if not (folder / _BASE).exists():
        write_json(folder / _BASE, {"folder": os.path.relpath(base, folder)})


def export(path: Path, network: MinkUNet, method: Method, about: About, **origin: str) -> None:
    """Writes a network as safetensors, with `about`, `origin` and the tensors that the method reads."""
    read = method.reads if about.step else ()
    save_weights(
        path, network, {**asdict(about), **origin}, {f"{_STATE}{name}": method.state[name] for name in read}
    )


def _find_file(path: Path, step: int | None) -> Path:
    """The file at `path`, or of the step of the run at `path`."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected a run's folder, a step's or its weights")
    if path.is_file():
        return path
    if (path / "finished.pt").is_file():
        return path / "finished.pt"
    found = (re.fullmatch(r"step(\d{1,9})", folder.name) for folder in path.iterdir())
    numbers = sorted(int(name[1]) for name in found if name)
    finished = [number for number in numbers if (path / f"step{number}" / "finished.pt").is_file()]
    if not numbers:
        raise InputError(f"{path}: no run here; expected a run's folder, with step0, step1, ...")
    wanted = (finished or [0])[-1] if step is None else step
    if wanted in finished:
        return path / f"step{wanted}" / "finished.pt"
    if wanted:
        known = ", ".join(str(number) for number in [0, *finished])
        raise InputError(f"{path}: step {wanted} is not finished here; finished are {known}")
    return _base_file(path / "step0" / _BASE)


def _base_file(link: Path) -> Path:
    if not link.is_file():
        raise InputError(
            f"{link}: no such file, which leads to the shared step 0; give the command of the run again, or"
            " the folder runs/base/<digest>"
        )
    try:
        folder = json.loads(link.read_bytes())["folder"]
        file = Path(os.path.normpath(link.parent / folder)) / "finished.pt"
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{link}: damaged ({type(error).__name__}); expected the folder of step 0") from None
    if not file.is_file():
        raise InputError(f"{file}: no such file; {link} names it as the shared step 0")
    return file


_Parts = tuple[About, dict[str, Tensor], dict[str, Any]]


def _read_finished(path: Path) -> _Parts:
    with open(path, "rb") as file:
        if file.read(len(TITLE)) != TITLE:
            raise InputError(
                f"{path}: not a checkpoint of this suite; expected a run's folder, RUN/step<t>/finished.pt or"
                " RUN/weights/step<t>.safetensors"
            )
    content = load_checkpoint(path)
    if "result" not in content or "network" not in content:
        raise InputError(f"{path}: not a finished step; expected the finished.pt beside it")
    return About.from_json(path, content.get(ABOUT)), content["network"], content.get("method", {})


def _read_export(path: Path) -> _Parts:
    tensors = read_weights(path)
    with safetensors.safe_open(path, framework="pt") as file:
        header = (file.metadata() or {}).get(HEADER, "null")
    try:
        about = json.loads(header)
    except ValueError:
        about = None
    if about is None:
        raise InputError(f"{path}: weights, but not exported by this suite: nothing says what they predict")
    state = {name.removeprefix(_STATE): value for name, value in tensors.items() if name.startswith(_STATE)}
    weights = {name: value for name, value in tensors.items() if not name.startswith(_STATE)}
    return About.from_json(path, about), weights, state


def _reader(path: Path, about: About, state: dict[str, Any], own: str | None) -> Callable[[Output], Tensor]:
    """How the method reads the network's output, with what it remembers."""
    if not about.method:
        return Method().base_predict
    if not own and about.method not in method_names():  # a name alone: a file must not say which code to run
        raise InputError(
            f"{path}: made by method {about.method!r}, which is unknown; give --method path/to/file.py:Class"
        )
    kind = find_method(own or about.method)
    if kind.name != about.method:
        raise InputError(f"{path}: made by method {about.method!r}, not by {kind.name!r}")
    unknown = about.settings.keys() - {option.name for option in options_of(kind)}
    if unknown:
        raise InputError(f"{path}: method {kind.name!r} has no setting {min(unknown)!r} in this version")
    try:
        method = kind(**about.settings)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    method.state = state
    read = method.predict if about.step else method.base_predict

    def predict(output: Output) -> Tensor:
        try:
            return read(output)
        except KeyError as error:
            raise InputError(
                f"{path}: lacks {error}, which method {kind.name!r} remembers; exported weights hold what its"
                " `reads` names, RUN/step<t>/finished.pt holds all"
            ) from None

    return predict
