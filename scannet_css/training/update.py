"""One update of the weights by one batch, whatever happens: not a finite number, or not enough memory.

The batch of an iteration is shared out to the processes; where memory is short, a process cuts its share into
parts of whole scenes. The loss is that of the whole batch either way (means.py): gradients of the parts are
added up, over parts and processes, before the optimiser moves. Nothing that is not finite gets that far.
"""

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from scannet_css import distributed
from scannet_css.errors import InputError
from scannet_css.methods.means import Denominators
from scannet_css.methods.method import Method, Step
from scannet_css.network import Output
from scannet_css.scenes.loader import Batch
from scannet_css.sparse import SparseTensor
from scannet_css.training.machine import Machine
from scannet_css.training.recipe import Recipe

MOST_SKIPS = 10  # updates in a row that float16's loss scale may skip until it fits
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "alloc_failed")

log = logging.getLogger(__name__)


class Updater:
    """Computes and applies the updates of one step.

    `too_many_voxels`: batches of at least so many voxels are cut from the start, since one did not fit; it is
    part of the checkpoint. `timed(name)` surrounds each piece of work, for benchmarks.
    """

    def __init__(
        self, step: Step, method: Method, recipe: Recipe, machine: Machine, optimizer: torch.optim.Optimizer
    ) -> None:
        self.step, self.method, self.recipe, self.machine = step, method, recipe, machine
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(enabled=machine.half_type(recipe.precision) is torch.float16)
        self.too_many_voxels: int | None = None
        self.timed: Callable[[str], AbstractContextManager] = lambda name: nullcontext()
        self._parameters = [each for each in step.network.parameters() if each.requires_grad]
        self._statistics = [buffer for buffer in step.network.buffers() if buffer.numel()]
        self._statistics_before = [buffer.clone() for buffer in self._statistics]
        self._skips = 0
        self._part_at_work: Batch | None = None

    def run(self, batch: Batch, rate: float, seed: int) -> dict[str, float]:
        """One update with learning rate `rate` by this process' share of a batch (it may be empty).

        Gives the whole batch's loss terms and, as "gradient_norm", the norm of the gradient before it was
        scaled down. `seed` decides what the method draws. Raises InputError, with weights and statistics as
        before, if a loss term or the gradient is not finite, or a single scene does not fit into the memory.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        terms, parts = self._compute(batch, seed)
        distributed.add_gradients(self._parameters)
        # The first process knows the names of all terms: its share is never empty.
        whole = distributed.total_of(terms, self.machine.device)
        has_gradient = any(parameter.grad is not None for parameter in self._parameters)
        with self.timed("optimiser"):
            if has_gradient:
                self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self._parameters, self.recipe.max_gradient_norm)
            values = self._checked(terms, whole, norm, parts)
            if not has_gradient:
                raise InputError(
                    f"method {self.method.name!r}: no loss term is attached to the network at"
                    f" {self._where(parts)}; expected terms computed from new.logits, new.features or"
                    " new.levels"
                )
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.step.index or self.method.base:
                self.method.updated(self.step)
        return values

    def rehearse(self, batch: Batch) -> None:
        """Everything but the update, to see whether the batch fits into the memory; changes nothing but
        `too_many_voxels`. Raises InputError if a single scene of it does not fit."""
        self._compute(batch, seed=0)
        self._undo()

    def _compute(self, batch: Batch, seed: int) -> tuple[dict[str, Tensor], list[Batch]]:
        """Leaves the gradient of this process' parts of the batch in the parameters; gives their share of the
        loss terms, and the parts."""
        torch._foreach_copy_(self._statistics_before, self._statistics)
        self.optimizer.zero_grad(set_to_none=True)
        parts, failed = self._cut(batch), []
        while True:
            torch.manual_seed(seed)
            self.method.before_batch(self.step)
            terms = self._attempt(parts)
            if terms is not None:
                return terms, parts
            self._undo()
            if self.machine.device.type == "cuda":
                torch.cuda.empty_cache()
            parts = self._smaller(parts, failed)

    def _cut(self, batch: Batch) -> list[Batch]:
        if not batch.names:
            return []
        if self.too_many_voxels is None or batch.voxels < self.too_many_voxels:
            return [batch]
        return batch.split(-(-batch.voxels // self.too_many_voxels) + 1)

    def _attempt(self, parts: list[Batch]) -> dict[str, Tensor] | None:
        """The loss terms, averaged over this process' parts and differentiated; None where memory ran out in
        any process."""
        outputs: list[tuple[Output, Output | None]] = []
        means, number = None, len(parts)
        if len(parts) != 1 or distributed.processes() > 1:
            means = Denominators(self.machine.device)
            if self._runs_out_of_memory(lambda: self._count(parts, means, outputs)):
                return None
            number = self._share(means, parts)
        terms: dict[str, Tensor] = {}
        if self._runs_out_of_memory(lambda: self._differentiate(parts, means, outputs, number, terms)):
            return None
        return terms

    def _count(self, parts: list[Batch], means: Denominators, outputs: list) -> None:
        """Learns the counts of the loss' means; of a single part the outputs are kept, of several there is
        no room for them."""
        with nullcontext() if len(parts) == 1 else torch.no_grad():
            for part in parts:
                found = self._forward(part)
                with means.counting():
                    self._terms(part, *found)
                if len(parts) == 1:
                    outputs.append(found)
        if len(parts) > 1:
            torch._foreach_copy_(self._statistics, self._statistics_before)

    def _share(self, means: Denominators, parts: list[Batch]) -> int:
        """Adds up the counts over all processes; gives the number of all parts."""
        said = distributed.gathered([len(parts), len(means.counts)])
        calls = {calls for number, calls in said if number}
        if len(calls) != 1:
            raise InputError(f"method {self.method.name!r}: its loss takes {calls} means on different parts")
        means.share(sum(number for number, _ in said), calls.pop())
        return sum(number for number, _ in said)

    def _differentiate(
        self,
        parts: list[Batch],
        means: Denominators | None,
        outputs: list,
        number: int,
        terms: dict[str, Tensor],
    ) -> None:
        for part in parts:
            new, old = outputs.pop() if outputs else self._forward(part)
            with nullcontext() if means is None else means.applied():
                found = self._terms(part, new, old)
            loss = sum(found.values()) / number
            if loss.requires_grad:
                with self.timed("backward"):
                    self.scaler.scale(loss).backward()
            for name, value in found.items():
                terms[name] = (
                    terms.get(name, 0.0) + value.detach().to(self.machine.device, torch.float64) / number
                )

    def _forward(self, part: Batch) -> tuple[Output, Output | None]:
        self._part_at_work = part
        with self.timed("maps"):
            voxels = SparseTensor(part.features, part.coordinates)
        with self.timed("forward"), self.step.autocast():
            new = self.step.network(voxels)
        with self.timed("teacher"):
            return new, self.step.old_output(voxels) if self.step.index else None

    def _terms(self, part: Batch, new: Output, old: Output | None) -> dict[str, Tensor]:
        with self.timed(
            "loss"
        ):  # in float32: outside of autocast, which would take products to half precision
            if self.step.index == 0:
                terms = self.method.base_loss(self.step, part, new)
            else:
                terms = self.method.loss(self.step, part, new, old)
        if not isinstance(terms, dict) or not all(map(_is_term, terms.values())):
            raise InputError(
                f"method {self.method.name!r}: its loss gave {type(terms).__name__}; expected LossTerms,"
                " names with scalar tensors"
            )
        return terms

    def _runs_out_of_memory(self, work: Callable[[], None]) -> bool:
        """Does the work; whether memory ran out, in any process."""
        failed = False
        try:
            work()
        except (RuntimeError, MemoryError) as error:
            failed = isinstance(error, MemoryError) or _is_out_of_memory(error)
            if not failed:
                raise
        if not failed:
            self._part_at_work = None
        return any(told for (told,) in distributed.gathered([int(failed)]))

    def _smaller(self, parts: list[Batch], failed: list[str]) -> list[Batch]:
        """The parts for the next attempt: the one that did not fit is cut in two. `failed`: single scenes
        that did not fit before."""
        part, self._part_at_work = self._part_at_work, None
        if part is None:  # it was another process'
            return parts
        if self.recipe.batch_norm == "sync" and distributed.processes() > 1:
            raise InputError(
                f"{self._where([part])}: out of memory, and --batch-norm sync cannot cut a batch"
            )
        if len(part.names) == 1:
            if part.names[0] in failed:
                raise InputError(
                    f"{self._where([part])}: out of memory twice with this scene alone, {part.voxels} voxels;"
                    " a smaller network or larger voxels would fit"
                )
            failed.append(part.names[0])  # once more, now that memory has been freed
            return parts
        self.too_many_voxels = min(part.voxels, self.too_many_voxels or part.voxels)
        log.warning(
            "warning: out of memory on %d scenes, %d voxels; going on in parts, from now on for every batch"
            " of that size",
            len(part.names),
            part.voxels,
        )
        place = next(index for index, each in enumerate(parts) if each is part)
        return [*parts[:place], *part.split(2), *parts[place + 1 :]]

    def _undo(self) -> None:
        """Gradients and statistics are as before; weights were not touched."""
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_copy_(self._statistics, self._statistics_before)

    def _checked(
        self, mine: dict[str, Tensor], whole: dict[str, Tensor], norm: Tensor, parts: list[Batch]
    ) -> dict[str, float]:
        """The numbers for the log; all of them in one wait for the GPU. Raises InputError."""
        numbers = torch.stack([*whole.values(), norm.double(), *mine.values()]).tolist()
        values = dict(zip([*whole, "gradient_norm"], numbers, strict=False))
        for name, value in [*zip(mine, numbers[len(values) :], strict=True), *values.items()]:
            if not math.isfinite(value) and name != "gradient_norm":
                self._undo()
                raise InputError(f"loss term {name!r} is {value} at {self._where(parts)}")
        if math.isfinite(values["gradient_norm"]):
            self._skips = 0
        elif self.scaler.is_enabled() and self._skips < MOST_SKIPS:
            self._skips += 1  # the loss was scaled up too far: the scaler skips this update and scales less
        else:
            self._undo()
            culprits = self._terms_with_a_bad_gradient(parts)
            self._undo()
            raise InputError(
                f"gradient norm is {values['gradient_norm']} at {self._where(parts)}: loss term"
                f" {' and '.join(map(repr, culprits)) or 'of another process'}"
            )
        return values

    def _terms_with_a_bad_gradient(self, parts: list[Batch]) -> list[str]:
        names = []
        for part in parts:
            for name, term in self._terms(part, *self._forward(part)).items():
                if name not in names and term.requires_grad:
                    gradients = torch.autograd.grad(
                        term, self._parameters, retain_graph=True, allow_unused=True
                    )
                    if not all(g is None or bool(g.isfinite().all()) for g in gradients):
                        names.append(name)
        return names

    def _where(self, parts: list[Batch]) -> str:
        names = [name for part in parts for name in part.names]
        return f"step {self.step.index}, scenes {', '.join(names) or 'of another process'}"


def _is_term(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _OUT_OF_MEMORY)
