"""What decides a run's result besides its method, and the folder that belongs to it."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import scannet_css
from scannet_css import distributed
from scannet_css.errors import InputError
from scannet_css.files import digest_file, locked, remove_temporary_files, write_json
from scannet_css.network import MinkUNet, build_network
from scannet_css.network.weights import initialise, read_weights
from scannet_css.protocols import Protocol
from scannet_css.scenes import Manifest, SceneEntry
from scannet_css.scenes.loader import derived_seed, input_channels, plan_batches
from scannet_css.training.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Weights from a file."""

    path: Path
    sha256: str
    weights: dict[str, Tensor]

    @classmethod
    def from_file(cls, path: Path) -> "Start":
        """Raises InputError as read_weights."""
        return cls(path, digest_file(path) if path.is_file() else "", read_weights(path))


@dataclass(frozen=True)
class Setting:
    """Everything besides the method that decides a run's result."""

    manifest: Manifest
    protocol: Protocol
    recipe: Recipe
    seed: int
    start: Start | None = None  # weights that step 0 starts from instead of random ones

    def training_scenes(self, step: int) -> list[SceneEntry]:
        """Those of a step that have a vertex. Raises InputError where there is none."""
        found = self.protocol.scenes(step, self.manifest)
        scenes = [entry for entry in found if entry.voxels]
        if len(scenes) < len(found):
            empty = ", ".join(entry.name for entry in found if not entry.voxels)
            log.warning("warning: step %d leaves out scenes without a vertex: %s", step, empty)
        if not scenes:
            raise InputError(f"{self.manifest.folder}: no scene of step {step} has a vertex")
        return scenes

    def validation_scenes(self) -> list[SceneEntry]:
        """What every step is evaluated on."""
        return self.manifest.split("val")

    def first_network(self) -> MinkUNet:
        """The network that step 0 starts with, on the CPU."""
        torch.manual_seed(derived_seed(self.seed, "network"))
        recipe = self.recipe
        network = build_network(recipe.network, input_channels(recipe.inputs), self.protocol.channels(0))
        if self.start is not None:
            unused = initialise(network, self.start.weights, self.start.path)
            log.info("weights from %s; not used: %s", self.start.path, ", ".join(unused) or "none")
        if recipe.batch_norm == "sync" and distributed.processes() > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return network

    def identity(self) -> dict[str, Any]:
        """The setting as JSON."""
        return {
            "package": scannet_css.__version__,
            "data": self.manifest.hash,
            "protocol": self.protocol.hash,
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "start": None if self.start is None else self.start.sha256,
        }

    def offline(self) -> "Setting":
        """Joint training of the same classes, the upper bound: a single step with as many updates as all
        steps of the sequence together, to the nearest epoch."""

        def updates(protocol: Protocol, step: int) -> int:
            scenes = [entry for entry in protocol.scenes(step, self.manifest) if entry.voxels]
            return max(1, len(plan_batches(scenes, self.recipe.batch_voxels)))

        steps, protocol = range(1, len(self.protocol.steps)), self.protocol.offline()
        total = self.recipe.base_epochs * updates(self.protocol, 0)
        total += self.recipe.epochs * sum(updates(self.protocol, step) for step in steps)
        epochs = max(1, round(total / updates(protocol, 0)))
        return replace(self, protocol=protocol, recipe=replace(self.recipe, base_epochs=epochs))

    def base_identity(self, base: str = "") -> dict[str, Any]:
        """What step 0 depends on: of the recipe nothing that only later steps use, of the method its
        `base`."""
        identity = {**self.identity(), **({"base": base} if base else {})}
        recipe = {name: value for name, value in identity["recipe"].items() if name not in _LATER_STEPS_ONLY}
        # Of the protocol only what step 0 sees, so that 15-5 and 15-1 share their base.
        protocol = {
            "classes": self.protocol.steps[0],
            "unannotated": self.protocol.unannotated,
            "scenes": [entry.name for entry in self.protocol.scenes(0, self.manifest)],
            "predicts_background": self.protocol.predicts_background(0),
        }
        return {**identity, "recipe": recipe, "protocol": protocol}


_LATER_STEPS_ONLY = ("epochs", "learning_rate")


def claim_folder(folder: Path, wanted: dict[str, Any]) -> None:
    """Writes down in `folder` what is run there. Raises InputError if that is something else already."""
    path = folder / "settings.json"
    if not path.exists():
        write_json(path, wanted)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON; is this a run folder?") from error
    differences = _differences(found, wanted)
    if differences:
        raise InputError(
            f"{folder}: holds a run with other settings ({'; '.join(differences)}); "
            "choose another --run folder or delete this one"
        )


@contextmanager
def alone_in(folder: Path, while_busy: Callable[[Path, str], None]) -> Iterator[None]:
    """Inside, this run alone writes to `folder`, in which nothing half-written is left; `while_busy(folder,
    holder)` is called as long as another one does."""
    if not distributed.is_first():
        yield
        return
    with locked(folder, lambda holder: while_busy(folder, holder)):
        remove_temporary_files(folder)
        yield


def _differences(found: Any, wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """ "name found, now wanted" for every value that differs."""
    if not isinstance(found, dict):
        return ["settings.json is not an object"]
    differences = []
    for name in sorted(found.keys() | wanted.keys()):
        old, new = found.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            differences += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            differences.append(f"{prefix}{name} {_short(old)}, now {_short(new)}")
    return differences


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 20 else f"{text[:12]}...{text[-4:]}"
