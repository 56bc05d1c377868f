"""One update of the weights by one batch: the training step, from top to bottom.

The batch of an iteration is shared out to the processes; where memory is short, a process cuts its share into
parts of whole scenes (memory_retry.py). The loss is that of the whole batch either way (means.py): gradients
of the parts are added up, over parts and processes, before the optimiser moves. Nothing that is not finite
gets that far (not_finite.py).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from scannet_css import distributed
from scannet_css.errors import InputError
from scannet_css.methods.method import LossTerms, Method, Step
from scannet_css.network import Output
from scannet_css.scenes.loader import Batch
from scannet_css.sparse import SparseTensor
from scannet_css.training.machine import Machine
from scannet_css.training.recipe import Recipe
from scannet_css.training.step.memory_retry import MemoryRetry, Parts, where
from scannet_css.training.step.not_finite import FiniteGuard, NotFinite, terms_with_a_bad_gradient


class Updater:
    """Computes and applies the updates of one step. `timed(name)` surrounds each piece of work, for
    benchmarks."""

    def __init__(
        self, step: Step, method: Method, recipe: Recipe, machine: Machine, optimizer: torch.optim.Optimizer
    ) -> None:
        self.step, self.method, self.recipe, self.machine = step, method, recipe, machine
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(enabled=machine.half_type(recipe.precision) is torch.float16)
        self.memory = MemoryRetry(step.index, method.name, recipe.batch_norm, machine.device)
        self.guard = FiniteGuard()
        self.timed: Callable[[str], AbstractContextManager] = lambda name: nullcontext()
        self._parameters = [each for each in step.network.parameters() if each.requires_grad]
        self._statistics = [buffer for buffer in step.network.buffers() if buffer.numel()]
        self._statistics_before = [buffer.clone() for buffer in self._statistics]

    def run(self, batch: Batch, rate: float, seed: int) -> dict[str, float]:
        """One update with learning rate `rate` by this process' share of a batch (it may be empty).

        Gives the whole batch's loss terms and, as "gradient_norm", the norm of the gradient before it was
        scaled down. `seed` decides what the method draws. Raises InputError, with weights and statistics as
        before, if a loss term or the gradient is not finite, or a single scene does not fit into the memory.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        terms, parts = self._gradient(batch, seed)
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
                self._refuse_detached(parts)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.method.updated(self.step)
        return values

    def _gradient(self, batch: Batch, seed: int) -> tuple[dict[str, Tensor], list[Batch]]:
        """Leaves the gradient of this process' parts of the batch (one, where it fits) in the parameters;
        gives their share of the loss terms, and the parts."""
        torch._foreach_copy_(self._statistics_before, self._statistics)
        self.optimizer.zero_grad(set_to_none=True)

        def begin() -> None:  # an attempt: the first one, as long as the memory suffices
            torch.manual_seed(seed)
            self.method.before_batch(self.step)

        return self.memory.until_it_fits(batch, begin, self._count, self._differentiate, self._undo)

    def _differentiate(self, parts: Parts) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for part in parts:
            new, old = parts.outputs.pop() if parts.outputs else self._forward(part)
            with parts.means_of_the_whole():
                found = self._terms(part, new, old)
            loss = sum(found.values()) / parts.number
            if loss.requires_grad:
                with self.timed("backward"):
                    self.scaler.scale(loss).backward()
            for name, value in found.items():
                share = value.detach().to(self.machine.device, torch.float64) / parts.number
                terms[name] = terms.get(name, 0.0) + share
        return terms

    def _forward(self, part: Batch) -> tuple[Output, Output | None]:
        with self.timed("maps"):
            voxels = SparseTensor(part.features, part.coordinates)
        with self.timed("forward"), self.step.autocast():
            new = self.step.network(voxels)
        with self.timed("teacher"):
            return new, self.step.old_output(voxels)

    def _terms(self, part: Batch, new: Output, old: Output | None) -> LossTerms:
        """In float32: outside of autocast, which would take products to half precision."""
        with self.timed("loss"):
            terms = self.method.loss(self.step, part, new, old)
        return self._named_scalars(terms)

    # What stands beside the step

    def probe_memory(self, batch: Batch) -> bool:
        """Everything but the update, to see whether the batch fits into the memory as a whole; changes
        nothing but what `memory` knows. Raises InputError if a single scene of it does not fit."""
        self._gradient(batch, seed=0)
        self._undo()
        return self.memory.takes_whole(batch)

    def _undo(self) -> None:
        """Gradients and statistics are as before; weights were not touched."""
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_copy_(self._statistics, self._statistics_before)

    def _count(self, parts: Parts) -> None:
        """Learns the counts of the loss' means; of a single part the outputs are kept, of several there is
        no room for them."""
        is_single = len(parts.batches) == 1
        with nullcontext() if is_single else torch.no_grad():
            for part in parts:
                found = self._forward(part)
                with parts.means.counting():
                    self._terms(part, *found)
                if is_single:
                    parts.outputs.append(found)
        if len(parts.batches) > 1:
            torch._foreach_copy_(self._statistics, self._statistics_before)

    def _checked(
        self, mine: dict[str, Tensor], whole: dict[str, Tensor], norm: Tensor, parts: list[Batch]
    ) -> dict[str, float]:
        """The numbers for the log. Raises InputError, naming the loss term, if one is not finite."""
        try:
            return self.guard.check(mine, whole, norm, may_skip=self.scaler.is_enabled())
        except NotFinite as found:
            message = f"{found} at {where(self.step.index, parts)}"
            self._undo()
            if found.is_gradient:
                culprits = terms_with_a_bad_gradient(
                    (self._terms(part, *self._forward(part)) for part in parts), self._parameters
                )
                self._undo()
                message += f": loss term {' and '.join(map(repr, culprits)) or 'of another process'}"
            raise InputError(message) from None

    def _refuse_detached(self, parts: list[Batch]) -> None:
        raise InputError(
            f"method {self.method.name!r}: no loss term is attached to the network at"
            f" {where(self.step.index, parts)}; expected terms computed from new.logits, new.features or"
            " new.levels"
        )

    def _named_scalars(self, terms: object) -> LossTerms:
        if isinstance(terms, dict) and all(isinstance(t, Tensor) and t.dim() == 0 for t in terms.values()):
            return terms
        raise InputError(
            f"method {self.method.name!r}: its loss gave {type(terms).__name__}; expected LossTerms,"
            " names with scalar tensors"
        )
