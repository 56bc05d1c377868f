"""All steps of one run, each resumed where it was: train, evaluate, store, grow, go on.

Step 0 depends only on the setting (data, protocol, network, recipe, seed), never on the method, so it lives
in a folder of its own, named by the setting's digest, and every method starts from it.
"""

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

import scannet_css
from scannet_css.errors import InputError
from scannet_css.files import digest, write_atomic, write_json
from scannet_css.learning.checkpoint import load_checkpoint, save_checkpoint
from scannet_css.learning.evaluate import evaluate
from scannet_css.learning.method import Method, Step
from scannet_css.learning.train import Machine, Recipe, StepTrainer, pass_over
from scannet_css.network import build_network
from scannet_css.network.head import grow
from scannet_css.protocols import Protocol
from scannet_css.scenes import Manifest
from scannet_css.scenes.loader import derived_seed, input_channels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """Everything besides the method that decides a run's result."""

    manifest: Manifest
    protocol: Protocol
    recipe: Recipe
    seed: int

    def identity(self) -> dict[str, Any]:
        """The setting as JSON."""
        return {
            "package": scannet_css.__version__,
            "data": self.manifest.hash,
            "protocol": self.protocol.hash,
            "recipe": asdict(self.recipe),
            "seed": self.seed,
        }

    def base_identity(self) -> dict[str, Any]:
        """What step 0 depends on: of the recipe nothing that only later steps use."""
        identity = self.identity()
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


@dataclass
class StepResult:
    """What one step gave and cost. Confusion matrices (C, C): rows ground truth, columns prediction."""

    classes: list[str]  # channel names, "background" first
    vertices: list[list[int]]
    voxels: list[list[int]]
    scenes: int
    epochs: int
    iterations: int
    seconds: float
    peak_memory_bytes: int | None


class ContinualRun:
    """One method on one setting. `folder` holds the run, `bases` the base steps shared by all methods."""

    def __init__(
        self,
        setting: Setting,
        method: Method,
        folder: Path,
        bases: Path,
        machine: Machine,
        keep_predictions: bool = False,
    ) -> None:
        if method.offline:
            setting = replace(setting, protocol=setting.protocol.offline())
        setting.protocol.check_dataset(setting.manifest.classes)
        self.setting, self.method, self.folder, self.machine = setting, method, folder, machine
        self.keep_predictions = keep_predictions
        self.base_folder = bases / digest(setting.base_identity())[:16]
        self.parameters = 0

    def run(self) -> list[StepResult]:
        """Runs what is missing and returns the results of all steps."""
        setting, protocol = self.setting, self.setting.protocol
        torch.manual_seed(derived_seed(setting.seed, "network"))
        network = build_network(
            setting.recipe.network, input_channels(setting.recipe.inputs), protocol.channels(0)
        )
        network.to(self.machine.device)
        self._claim_folder()
        results = []
        for index in range(len(protocol.steps)):
            teacher = None
            if index:
                if self.method.needs_teacher:
                    teacher = frozen_copy(network)
                torch.manual_seed(derived_seed(setting.seed, index, "head"))
                grow(network, len(protocol.steps[index]), start=self.method.head_start)
            results.append(self._run_step(self._make_step(index, network, teacher)))
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        return results

    def _claim_folder(self) -> None:
        wanted = {**self.setting.identity(), "method": self.method.name, "settings": self.method.settings()}
        path = self.folder / "settings.json"
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
                f"{self.folder}: holds a run with other settings ({'; '.join(differences)}); "
                "choose another --run folder or delete this one"
            )

    def _make_step(self, index: int, network: nn.Module, teacher: nn.Module | None) -> Step:
        setting = self.setting
        scenes = setting.protocol.scenes(index, setting.manifest)
        table = setting.protocol.training_table(index, setting.manifest.classes)
        batches = pass_over(setting.manifest, scenes, table, setting.recipe, self.machine.workers)
        device = self.machine.device
        return Step(
            index,
            setting.protocol,
            scenes,
            network,
            teacher,
            device,
            lambda: (b.to(device) for b in batches()),
        )

    def _run_step(self, step: Step) -> StepResult:
        folder = self.folder / f"step{step.index}" if step.index else self.base_folder
        finished = folder / "finished.pt"
        if finished.exists():
            content = load_checkpoint(finished)
            step.network.load_state_dict(content["network"])
            result = StepResult(**content["result"])
            log.info("step %d: already done, taken from %s", step.index, folder)
        else:
            content, result = self._train(step, folder)
        if step.index == 0:
            self._visit_base(step)
        else:
            self.method.state = content["method"]
        if self.keep_predictions:
            self._save_predictions(step, self.folder / "predictions" / f"step{step.index}")
        return result

    def _train(self, step: Step, folder: Path) -> tuple[dict[str, Any], StepResult]:
        setting = self.setting
        if step.index == 0:
            write_json(folder / "settings.json", setting.base_identity())
        trainer = StepTrainer(
            step, self.method, setting.recipe, setting.manifest, setting.seed, self.machine, folder
        )
        progress = trainer.run()
        if step.index:
            self.method.end(step)
        vertices, voxels = self._evaluate(step)
        result = StepResult(
            classes=list(setting.protocol.channel_names(step.index)),
            vertices=vertices.tolist(),
            voxels=voxels.tolist(),
            scenes=len(step.scenes),
            epochs=progress.epochs,
            iterations=progress.iterations,
            seconds=round(progress.seconds, 1),
            peak_memory_bytes=progress.peak_memory_bytes,
        )
        content = {
            "network": step.network.state_dict(),
            "method": self.method.state if step.index else {},
            "result": asdict(result),
        }
        save_checkpoint(folder / "finished.pt", content)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        return content, result

    def _visit_base(self, step: Step) -> None:
        """Lets the method look at the shared base step; what it remembers is its own, so it is stored
        here."""
        path = self.folder / "step0" / "method.pt"
        if path.exists():
            self.method.state = load_checkpoint(path)
            return
        self.method.begin(step)
        self.method.end(step)
        save_checkpoint(path, self.method.state)

    def _evaluate(
        self, step: Step, on_prediction: Callable[[str, Tensor], None] | None = None
    ) -> tuple[Tensor, Tensor]:
        setting, protocol = self.setting, self.setting.protocol
        scenes = setting.manifest.split("val")
        table = protocol.evaluation_table(step.index, setting.manifest.classes)
        batches = pass_over(setting.manifest, scenes, table, setting.recipe, self.machine.workers)
        return evaluate(
            step.network,
            batches(),
            protocol.channels(step.index),
            protocol.predicts_background(step.index),
            self.machine.device,
            lambda: self.machine.autocast(setting.recipe.precision),
            on_prediction,
            title=f"step {step.index} evaluation",
        )

    def _save_predictions(self, step: Step, folder: Path) -> None:
        channels = json.dumps(self.setting.protocol.channel_names(step.index))

        def save(name: str, prediction: Tensor) -> None:
            metadata = {"channels": channels, "scene": name}
            content = safetensors.torch.save({"prediction": prediction.contiguous()}, metadata)
            write_atomic(folder / f"{name}.safetensors", content)

        missing = [
            e for e in self.setting.manifest.split("val") if not (folder / f"{e.name}.safetensors").exists()
        ]
        if missing:
            self._evaluate(step, save)


def frozen_copy(network: nn.Module) -> nn.Module:
    """The teacher: a copy in eval mode that takes no gradient."""
    return copy.deepcopy(network).eval().requires_grad_(False)


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
