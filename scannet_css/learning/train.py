"""One step of a protocol: optimiser, schedule, precision, guards and checkpoints around a method's loss."""

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scannet_css.errors import InputError
from scannet_css.files import write_atomic
from scannet_css.learning.checkpoint import load_checkpoint, save_checkpoint
from scannet_css.learning.losses import cross_entropy
from scannet_css.learning.method import Method, Step, option
from scannet_css.scenes import Manifest
from scannet_css.scenes.loader import (
    Batch,
    BatchSet,
    batches_of,
    derived_seed,
    input_channels,
    plan_batches,
    shuffled,
)
from scannet_css.sparse import SparseTensor


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: the same for every method. Defaults: MinkUNets on ScanNet, one GPU."""

    network: str = option("minkunet34c", "network, one of those in scannet_css.network")
    inputs: str = option("colour", "what a voxel brings: some of colour, normal, height, joined by +")
    base_epochs: int = option(100, "epochs of step 0 (and of the joint upper bound)")
    epochs: int = option(100, "epochs of every later step")
    base_learning_rate: float = option(0.1, "learning rate of step 0")
    learning_rate: float = option(0.01, "learning rate of every later step")
    optimizer: str = option("sgd", "sgd (momentum 0.9, Nesterov) or adamw")
    weight_decay: float = option(1e-4, "weight decay")
    schedule: str = option("poly", "poly (power 0.9) or cosine, per iteration down to 0")
    batch_voxels: int = option(1_200_000, "most voxels in a batch; a larger scene stands alone")
    max_gradient_norm: float = option(10.0, "gradients are scaled down to this norm")
    elastic: bool = option(True, "elastic distortion in the augmentation")
    precision: str = option("auto", "auto (bfloat16 on CUDA where it exists), float32, bfloat16 or float16")

    def __post_init__(self) -> None:
        input_channels(self.inputs)
        allowed = {
            "optimizer": ("sgd", "adamw"),
            "schedule": ("poly", "cosine"),
            "precision": ("auto", "float32", "bfloat16", "float16"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise InputError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(values)}")
        for name in ("base_epochs", "epochs", "batch_voxels", "base_learning_rate", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)}: expected more than 0")


@dataclass
class Progress:
    """What a step has cost so far; kept in the checkpoint."""

    epochs: int = 0
    iterations: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Machine:
    """Where and how arithmetic is done; does not belong to what is computed."""

    device: torch.device
    workers: int = 0

    def autocast(self, precision: str) -> AbstractContextManager:
        """Mixed precision on CUDA, nothing elsewhere (half precision on CPUs is slower than float32)."""
        dtype = self.half_type(precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def half_type(self, precision: str) -> torch.dtype | None:
        """The half type in use, None for float32."""
        if self.device.type != "cuda" or precision == "float32":
            return None
        if precision == "auto":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return getattr(torch, precision)


class StepTrainer:
    """Trains `step.network` for one step, checkpointing into `folder` after every epoch."""

    def __init__(
        self,
        step: Step,
        method: Method,
        recipe: Recipe,
        manifest: Manifest,
        seed: int,
        machine: Machine,
        folder: Path,
    ) -> None:
        self.step, self.method, self.recipe, self.manifest = step, method, recipe, manifest
        self.seed, self.machine, self.folder = seed, machine, folder
        base = step.index == 0
        self.epochs = recipe.base_epochs if base else recipe.epochs
        self.peak_rate = recipe.base_learning_rate if base else recipe.learning_rate
        self.optimizer = make_optimizer(step.network, recipe, self.peak_rate)
        self.scaler = torch.amp.GradScaler(enabled=machine.half_type(recipe.precision) is torch.float16)
        self.progress, self.history = Progress(), []

    def run(self) -> Progress:
        """Trains to the last epoch, from the checkpoint if there is one; calls method.begin before the
        first."""
        if (self.folder / "checkpoint.pt").exists():
            self._restore(load_checkpoint(self.folder / "checkpoint.pt"))
        elif self.step.index > 0:
            self.method.begin(self.step)
        scenes = self.method.scenes(self.step) if self.step.index > 0 else self.step.scenes
        title = f"step {self.step.index}"
        total = self.epochs * len(scenes)
        with tqdm(total=total, desc=title, unit="scene", leave=False, disable=None) as bar:
            bar.update(self.progress.epochs * len(scenes))
            for epoch in range(self.progress.epochs, self.epochs):
                self._run_epoch(epoch, scenes, bar)
        return self.progress

    def _run_epoch(self, epoch: int, scenes: list, bar: tqdm) -> None:
        started = time.perf_counter()
        # Whatever a method draws at random must not depend on where the run was interrupted.
        torch.manual_seed(derived_seed(self.seed, self.step.index, epoch, "epoch"))
        identity = (self.seed, self.step.index, epoch)
        batches = plan_batches(shuffled(scenes, *identity, "order"), self.recipe.batch_voxels)
        table = self.step.protocol.training_table(self.step.index, self.manifest.classes)
        batch_set = BatchSet(self.manifest, batches, table, self.recipe.inputs, identity, self.recipe.elastic)
        sums: dict[str, float] = {}
        self.step.network.train()
        for number, batch in enumerate(batches_of(batch_set, self.machine.workers)):
            fraction = (epoch + number / len(batches)) / self.epochs
            rate = self.peak_rate * schedule(self.recipe.schedule, fraction)
            terms = self._run_batch(batch, rate)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / len(batches)
            bar.set_postfix({name: f"{value:.3f}" for name, value in terms.items()} | self._memory_note())
            bar.update(len(batch.names))
        self.progress.epochs = epoch + 1
        self.progress.iterations += len(batches)
        self.progress.seconds += time.perf_counter() - started
        if self.machine.device.type == "cuda":
            self.progress.peak_memory_bytes = torch.cuda.max_memory_allocated(self.machine.device)
        self.history.append({"step": self.step.index, "epoch": epoch, "learning_rate": rate, **sums})
        self._checkpoint()

    def _run_batch(self, batch: Batch, rate: float) -> dict[str, float]:
        names = ", ".join(batch.names)
        batch = batch.to(self.machine.device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        terms = self._loss_terms(batch)
        total = sum(terms.values())
        values = {name: value.item() for name, value in terms.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise InputError(f"loss term {name!r} is {value} at step {self.step.index}, scenes {names}")
        if not total.requires_grad:  # no term reaches the network: nothing to learn from this batch
            return values
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.step.network.parameters(), self.recipe.max_gradient_norm)
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            raise InputError(f"gradient norm is {norm.item()} at step {self.step.index}, scenes {names}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return values

    def _loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        voxels = SparseTensor(batch.features, batch.coordinates)
        with self.machine.autocast(self.recipe.precision):
            new = self.step.network(voxels)
            if self.step.index == 0:
                return {"ce": cross_entropy(new.logits, batch.labels)}
            old = None
            if self.step.teacher is not None:
                with torch.no_grad():
                    old = self.step.teacher(voxels)
            return self.method.loss(self.step, batch, new, old)

    def _memory_note(self) -> dict[str, str]:
        if self.machine.device.type != "cuda":
            return {}
        return {"GiB": f"{torch.cuda.max_memory_allocated(self.machine.device) / 2**30:.1f}"}

    def _checkpoint(self) -> None:
        content: dict[str, Any] = {
            "network": self.step.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "method": self.method.state,
            "progress": asdict(self.progress),
            "history": self.history,
        }
        save_checkpoint(self.folder / "checkpoint.pt", content)
        log = "".join(json.dumps(row) + "\n" for row in self.history)
        write_atomic(self.folder / "log.jsonl", log)

    def _restore(self, content: dict[str, Any]) -> None:
        self.step.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.method.state = content["method"]
        self.progress = Progress(**content["progress"])
        self.history = content["history"]


def make_optimizer(network: nn.Module, recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW over all parameters of the network."""
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )


def schedule(name: str, fraction: float) -> float:
    """Factor of the learning rate after `fraction` (0..1) of a step: "poly" (power 0.9) or "cosine"."""
    return (1 - fraction) ** 0.9 if name == "poly" else 0.5 * (1 + math.cos(math.pi * fraction))


def pass_over(
    manifest: Manifest, scenes: list, table: Tensor, recipe: Recipe, workers: int
) -> Callable[[], Any]:
    """A function that starts one pass over the scenes: not augmented, in order, with labels by `table`."""
    batches = plan_batches(scenes, recipe.batch_voxels)
    return lambda: batches_of(BatchSet(manifest, batches, table, recipe.inputs), workers)
