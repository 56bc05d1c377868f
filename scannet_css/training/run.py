"""All steps of one run, each resumed where it was: train, evaluate, store, grow, go on.

Step 0 depends only on the setting (data, protocol, network, recipe, seed) and on the method's `base`, which
is the same for most, so it lives in a folder of its own, named by their digest, and all methods of a base
start from it.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from scannet_css import distributed
from scannet_css.errors import InputError
from scannet_css.files import digest, locked, remove_temporary_files, write_atomic, write_json
from scannet_css.methods.method import Method, Step
from scannet_css.metrics import summarise
from scannet_css.network import MinkUNet, build_network, frozen_copy, grow
from scannet_css.network.weights import initialise
from scannet_css.scenes import SceneEntry
from scannet_css.scenes.loader import (
    Batch,
    BatchSet,
    batches_of,
    derived_seed,
    input_channels,
    plan_batches,
)
from scannet_css.training.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from scannet_css.training.epochs import StepTrainer
from scannet_css.training.evaluate import count_batch
from scannet_css.training.log import Tracker
from scannet_css.training.machine import Machine
from scannet_css.training.setting import Setting, claim_folder
from scannet_css.training.sums import add_up, forget_sums
from scannet_css.training.trained import ABOUT, About, export, link_base

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
        self.base_folder = bases / digest(setting.base_identity(method.base))[:16]
        self.parameters = 0
        self.is_rehearsal = False  # one scene a step
        self._waited_for: set[str] = set()

    def run(self) -> list[StepResult]:
        """Runs what is missing and returns the results of all steps. Raises InputError, and Stop where a
        signal says so: the run then goes on when it is started again."""
        network = self._first_network()
        wanted = {**self.setting.identity(), "method": self.method.name, "settings": self.method.settings()}
        distributed.first_process_first(lambda: claim_folder(self.folder, wanted))
        with self._alone_in(self.folder, self._refuse):
            return self._run_steps(network)

    def _run_steps(self, network: MinkUNet) -> list[StepResult]:
        steps, results = self.setting.protocol.steps, []
        for index in range(len(steps)):
            teacher = None
            if index:
                if self.method.needs_teacher:
                    teacher = frozen_copy(network)
                torch.manual_seed(derived_seed(self.setting.seed, index, "head"))
                grow(network, len(steps[index]), start=self.method.head_start)
            results.append(self._run_step(self._make_step(index, network, teacher)))
            numbers = summarise([result.vertices for result in results], len(steps[0]))
            shown = (
                f"{name} {numbers[name]:.2f}" for name in ("old", "new", "all") if numbers[name] is not None
            )
            log.info("step %d  mIoU in %%: %s", index, "  ".join(shown))
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        return results

    def _first_network(self) -> MinkUNet:
        setting = self.setting
        torch.manual_seed(derived_seed(setting.seed, "network"))
        network = build_network(
            setting.recipe.network, input_channels(setting.recipe.inputs), setting.protocol.channels(0)
        )
        if setting.start is not None:
            unused = initialise(network, setting.start.weights, setting.start.path)
            log.info("weights from %s; not used: %s", setting.start.path, ", ".join(unused) or "none")
        if setting.recipe.batch_norm == "sync" and distributed.processes() > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.method.prepare(network, setting.protocol)
        return network.to(self.machine.device)

    @contextmanager
    def _alone_in(self, folder: Path, while_busy: Callable[[Path, str], None]) -> Iterator[None]:
        """Inside, this run alone writes to `folder`, in which nothing half-written is left."""
        if not distributed.is_first():
            yield
            return
        with locked(folder, lambda holder: while_busy(folder, holder)):
            remove_temporary_files(folder)
            yield

    def _refuse(self, folder: Path, holder: str) -> None:
        raise InputError(f"{folder}: {holder} is at work on this run")

    def _wait(self, folder: Path, holder: str) -> None:
        """Another run trains the same base step; its result serves here too."""
        if holder not in self._waited_for:
            log.info("waiting for %s, which trains the base step in %s", holder, folder)
        self._waited_for.add(holder)
        if self.machine.stop.requested:
            self.machine.stop.leave()
        time.sleep(0.5)

    def _make_step(self, index: int, network: nn.Module, teacher: nn.Module | None) -> Step:
        setting = self.setting
        found = setting.protocol.scenes(index, setting.manifest)
        scenes = [entry for entry in found if entry.voxels]
        if len(scenes) < len(found):
            empty = ", ".join(entry.name for entry in found if not entry.voxels)
            log.warning("warning: step %d leaves out scenes without a vertex: %s", index, empty)
        if not scenes:
            raise InputError(f"{setting.manifest.folder}: no scene of step {index} has a vertex")
        if self.is_rehearsal:
            scenes = [min(scenes, key=lambda entry: entry.voxels)]
        table = setting.protocol.training_table(index, setting.manifest.classes)
        return Step(
            index,
            setting.protocol,
            scenes,
            network,
            teacher,
            self.machine.device,
            lambda: self.machine.autocast(setting.recipe.precision),
            lambda name, compute: self._add_up(name, scenes, table, compute, self._folder_of(index)),
        )

    def _folder_of(self, index: int) -> Path:
        """Where this run keeps what belongs to a step; the base step itself lies in `base_folder`."""
        return self.folder / f"step{index}"

    def _add_up(
        self,
        name: str,
        scenes: list[SceneEntry],
        table: Tensor,
        compute: Callable[[Batch], dict[str, Tensor]],
        folder: Path,
    ) -> dict[str, Tensor]:
        """See Step.add_up; over `scenes` with their labels by `table`."""
        manifest, recipe, machine = self.setting.manifest, self.setting.recipe, self.machine

        def load(batches: list[list[SceneEntry]]) -> Iterator[Batch]:
            return batches_of(
                BatchSet(manifest, batches, table, recipe.inputs), machine.workers, machine.device
            )

        return add_up(name, plan_batches(scenes, recipe.batch_voxels), load, compute, folder, machine)

    def _run_step(self, step: Step) -> StepResult:
        if step.index:
            content, result = self._load_or_train(step, self._folder_of(step.index))
        else:
            with self._alone_in(self.base_folder, self._wait):
                content, result = self._load_or_train(step, self.base_folder)
        if step.index == 0:
            self._visit_base(step, content["method"])
        else:
            self.method.state = content["method"]
        if self.keep_predictions:
            self._save_predictions(step, self.folder / "predictions" / f"step{step.index}")
        if self.export and distributed.is_first():
            self._export(step, self.folder / "weights" / f"step{step.index}.safetensors")
        return result

    def _load_or_train(self, step: Step, folder: Path) -> tuple[dict[str, Any], StepResult]:
        content = distributed.first_process_first(lambda: self._load_finished(folder / "finished.pt"))
        if content is None:
            content, result = self._train(step, folder)
        else:
            if ABOUT not in content and distributed.is_first():  # of an older version
                save_checkpoint(folder / "finished.pt", {**content, ABOUT: self._about(step)})
            step.network.load_state_dict(content["network"])
            result = StepResult(**content["result"])
            log.info("step %d: already done, taken from %s", step.index, folder)
        if distributed.is_first():
            forget_sums(folder)
            Checkpoints(folder).keep(1)  # to go back to, should finished.pt be damaged
            if step.index > 1:
                Checkpoints(self._folder_of(step.index - 1)).keep(0)
        return content, result

    def _load_finished(self, path: Path) -> dict[str, Any] | None:
        """The finished step, None if it has to be trained. A damaged file is as if it were not there if the
        step's last checkpoint is; else it raises InputError."""
        if not path.exists():
            return None
        try:
            return load_checkpoint(path)
        except InputError as error:
            if not Checkpoints(path.parent).paths():
                raise
            log.warning("warning: %s; going on from the checkpoint before it", error)
            path.unlink()
            return None

    def _train(self, step: Step, folder: Path) -> tuple[dict[str, Any], StepResult]:
        setting, recipe = self.setting, self.setting.recipe
        if step.index == 0 and distributed.is_first():
            write_json(folder / "settings.json", setting.base_identity(self.method.base))
        trainer = StepTrainer(
            step, self.method, recipe, setting.manifest, setting.seed, self.machine, folder, self.tracker
        )
        progress = trainer.run()
        step.network.eval()
        if step.index:
            torch.manual_seed(derived_seed(setting.seed, step.index, "end"))
            self.method.end(step)
            step.network.requires_grad_(True)  # what the method froze
        confusion = self._evaluate(step, "evaluation", folder)
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
            "method": self.method.state if step.index or self.method.base else {},
            "result": asdict(result),
            ABOUT: self._about(step),
        }
        if distributed.is_first():
            save_checkpoint(folder / "finished.pt", content)
        return content, result

    def _about(self, step: Step) -> dict[str, Any]:
        return asdict(About.of(self.setting, self.method, step.index))

    def _visit_base(self, step: Step, state: dict[str, Any]) -> None:
        """Lets the method look at the shared base step; what it remembers is its own, so it is stored here.
        `state`: what the methods of this base have in common."""
        folder = self._folder_of(0)
        path = folder / "method.pt"
        if distributed.is_first():
            link_base(folder, self.base_folder)
        if distributed.first_process_first(path.exists):
            self.method.state = load_checkpoint(path)
            return
        self.method.state = state
        step.network.eval()
        torch.manual_seed(derived_seed(self.setting.seed, 0, "visit"))
        self.method.begin(step)
        self.method.end(step)
        if distributed.is_first():
            save_checkpoint(path, self.method.state)
            forget_sums(folder)

    def _evaluate(
        self,
        step: Step,
        name: str,
        folder: Path,
        on_prediction: Callable[[str, Tensor], None] | None = None,
    ) -> dict[str, Tensor]:
        """Confusion matrices over the validation split, on the CPU."""
        protocol, scenes = self.setting.protocol, self.setting.manifest.split("val")
        if self.is_rehearsal:
            scenes = [min((entry for entry in scenes if entry.voxels), key=lambda entry: entry.voxels)]
        channels, background = protocol.channels(step.index), protocol.predicts_background(step.index)
        table = protocol.evaluation_table(step.index, self.setting.manifest.classes)
        predict = self.method.predict if step.index else self.method.base_predict
        step.network.eval()

        def count(batch: Batch) -> dict[str, Tensor]:
            return count_batch(
                step.network, predict, batch, channels, background, step.autocast, on_prediction
            )

        found = self._add_up(name, scenes, table, count, folder)
        return {key: value.cpu() for key, value in found.items()}

    def _save_predictions(self, step: Step, folder: Path) -> None:
        channels = json.dumps(self.setting.protocol.channel_names(step.index))

        def save(name: str, prediction: Tensor) -> None:
            metadata = {"channels": channels, "scene": name}
            content = safetensors.torch.save({"prediction": prediction.contiguous()}, metadata)
            write_atomic(folder / f"{name}.safetensors", content)

        names = [entry.name for entry in self.setting.manifest.split("val") if entry.voxels]
        if distributed.first_process_first(
            lambda: all((folder / f"{name}.safetensors").exists() for name in names)
        ):
            return
        self._evaluate(step, "predictions", folder, save)
        if distributed.is_first():
            forget_sums(folder)

    def _export(self, step: Step, path: Path) -> None:
        """The network after a step as safetensors, for others."""
        if not path.exists():
            setting = self.setting
            about = About.of(setting, self.method, step.index)
            origin = {"protocol": setting.protocol.name, "data": setting.manifest.hash}
            export(path, step.network, self.method, about, **origin)
