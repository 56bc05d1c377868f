"""All steps of one run, each resumed where it was: train, evaluate, store, grow, go on.

Step 0 is shared with other runs (base_step.py); RUN/step1, RUN/step2, ... are this run's own.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scannet_css import distributed
from scannet_css.errors import InputError
from scannet_css.methods.method import Method, Step
from scannet_css.metrics import summarise
from scannet_css.network import MinkUNet, frozen_copy, grow
from scannet_css.scenes import SceneEntry
from scannet_css.scenes.loader import (
    Batch,
    BatchSet,
    batches_of,
    derived_seed,
    plan_batches,
)
from scannet_css.training.base_step import BaseMethod, BaseStep
from scannet_css.training.checkpoint import Checkpoints, load_finished, save_checkpoint
from scannet_css.training.epochs import StepTrainer
from scannet_css.training.evaluate import evaluate, save_predictions
from scannet_css.training.log import Tracker
from scannet_css.training.machine import Machine
from scannet_css.training.setting import Setting, alone_in, claim_folder
from scannet_css.training.sums import add_up, forget_sums
from scannet_css.training.trained import ABOUT, About, export

log = logging.getLogger(__name__)


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
    deterministic: bool


@dataclass
class RunResult:
    """What a run gave: a result for each step, and the size of the network in the end."""

    steps: list[StepResult]
    parameters: int


class ContinualRun:
    """One method on one setting. `folder` holds the run, `bases` the base steps that methods share."""

    def __init__(
        self,
        setting: Setting,
        method: Method,
        folder: Path,
        bases: Path,
        machine: Machine,
        tracker: Tracker | None = None,
        keep_predictions: bool = False,
        export: bool = False,
    ) -> None:
        if method.offline:
            setting = setting.offline()
        setting.protocol.check_dataset(setting.manifest.classes)
        method.check(setting.protocol, setting.manifest)
        self.setting, self.method, self.folder, self.machine = setting, method, folder, machine
        self.tracker, self.keep_predictions, self.export = tracker, keep_predictions, export
        self.base = BaseStep(setting, method, bases, machine)

    def run(self) -> RunResult:
        """Runs what is missing and returns the results of all steps. Raises InputError, and Stop where a
        signal says so: the run then goes on when it is started again."""
        network = self.setting.first_network()
        self.method.prepare(network, self.setting.protocol)
        network = network.to(self.machine.device)
        wanted = {**self.setting.identity(), "method": self.method.name, "settings": self.method.settings()}
        distributed.first_process_first(lambda: claim_folder(self.folder, wanted))
        with alone_in(self.folder, _refuse):
            results = self._run_steps(network)
        return RunResult(results, sum(parameter.numel() for parameter in network.parameters()))

    def _run_steps(self, network: MinkUNet) -> list[StepResult]:
        steps, results = self.setting.protocol.steps, []
        for index in range(len(steps)):
            if index == 0:
                results.append(self._run_base(self._make_step(0, network, None)))
            else:
                teacher = frozen_copy(network) if self.method.needs_teacher else None
                torch.manual_seed(derived_seed(self.setting.seed, index, "head"))
                grow(network, len(steps[index]), start=self.method.head_start)
                results.append(self._run_step(self._make_step(index, network, teacher)))
            numbers = summarise([result.vertices for result in results], len(steps[0]))
            shown = (
                f"{name} {numbers[name]:.2f}" for name in ("old", "new", "all") if numbers[name] is not None
            )
            log.info("step %d  mIoU in %%: %s", index, "  ".join(shown))
        return results

    def _run_base(self, step: Step) -> StepResult:
        """Step 0: trained in the shared folder, unless another run has, and then looked at."""
        method = BaseMethod(self.method)
        with self.base.alone():
            content, result = self._load_or_train(step, method, self.base.folder)
        self.base.visit(step, content["method"], self._folder_of(0))
        self._leave_files(step, method)
        return result

    def _run_step(self, step: Step) -> StepResult:
        folder = self._folder_of(step.index)
        content, result = self._load_or_train(step, self.method, folder)
        self.method.state = content["method"]
        if step.index > 1 and distributed.is_first():
            Checkpoints(self._folder_of(step.index - 1)).keep(0)
        self._leave_files(step, self.method)
        return result

    def _load_or_train(self, step: Step, method: Method, folder: Path) -> tuple[dict[str, Any], StepResult]:
        content = distributed.first_process_first(lambda: load_finished(folder))
        if content is None:
            content, result = self._train(step, method, folder)
        else:
            if ABOUT not in content and distributed.is_first():  # of an older version
                save_checkpoint(folder / "finished.pt", {**content, ABOUT: self._about(step)})
            step.network.load_state_dict(content["network"])
            result = StepResult(**content["result"])
            log.info("step %d: already done, taken from %s", step.index, folder)
        if distributed.is_first():
            forget_sums(folder)
            Checkpoints(folder).keep(1)  # to go back to, should finished.pt be damaged
        return content, result

    def _train(self, step: Step, method: Method, folder: Path) -> tuple[dict[str, Any], StepResult]:
        setting = self.setting
        trainer = StepTrainer(
            step, method, setting.recipe, setting.manifest, setting.seed, self.machine, folder, self.tracker
        )
        progress = trainer.run()
        step.network.eval()
        torch.manual_seed(derived_seed(setting.seed, step.index, "end"))
        method.end(step)
        step.network.requires_grad_(True)  # what the method froze
        confusion = evaluate(step, method, setting, partial(self._add_up, "evaluation", folder))
        result = StepResult(
            classes=list(setting.protocol.channel_names(step.index)),
            vertices=confusion["vertices"].tolist(),
            voxels=confusion["voxels"].tolist(),
            scenes=len(step.scenes),
            epochs=progress.epochs,
            iterations=progress.iterations,
            seconds=round(progress.seconds, 1),
            peak_memory_bytes=progress.peak_memory_bytes,
            deterministic=progress.deterministic,
        )
        content = {
            "network": step.network.state_dict(),
            "method": method.state,
            "result": asdict(result),
            ABOUT: self._about(step),
        }
        if distributed.is_first():
            save_checkpoint(folder / "finished.pt", content)
        return content, result

    def _about(self, step: Step) -> dict[str, Any]:
        return asdict(About.of(self.setting, self.method, step.index))

    def _make_step(self, index: int, network: nn.Module, teacher: nn.Module | None) -> Step:
        setting, scenes = self.setting, self.setting.training_scenes(index)
        table = setting.protocol.training_table(index, setting.manifest.classes)
        return Step(
            index,
            setting.protocol,
            scenes,
            network,
            teacher,
            self.machine.device,
            lambda: self.machine.autocast(setting.recipe.precision),
            lambda name, compute: self._add_up(name, self._folder_of(index), scenes, table, compute),
        )

    def _folder_of(self, index: int) -> Path:
        """Where this run keeps what belongs to a step; the base step itself lies in `base.folder`."""
        return self.folder / f"step{index}"

    def _add_up(
        self,
        name: str,
        folder: Path,
        scenes: list[SceneEntry],
        table: Tensor,
        compute: Callable[[Batch], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """See Step.add_up; over `scenes` with their labels by `table`."""
        manifest, recipe, machine = self.setting.manifest, self.setting.recipe, self.machine

        def load(batches: list[list[SceneEntry]]) -> Iterator[Batch]:
            return batches_of(
                BatchSet(manifest, batches, table, recipe.inputs), machine.workers, machine.device
            )

        return add_up(name, plan_batches(scenes, recipe.batch_voxels), load, compute, folder, machine)

    def _leave_files(self, step: Step, method: Method) -> None:
        """What was asked for beside the results."""
        if self.keep_predictions:
            folder = self.folder / "predictions" / f"step{step.index}"
            save_predictions(step, method, self.setting, folder, partial(self._add_up, "predictions", folder))
        path = self.folder / "weights" / f"step{step.index}.safetensors"
        if self.export and distributed.is_first() and not path.exists():
            about = About.of(self.setting, self.method, step.index)
            origin = {"protocol": self.setting.protocol.name, "data": self.setting.manifest.hash}
            export(path, step.network, self.method, about, **origin)


def _refuse(folder: Path, holder: str) -> None:
    raise InputError(f"{folder}: {holder} is at work on this run")
