"""Where a batch does not fit into the memory: it is cut into parts of whole scenes and computed again.

The parts give the whole batch's loss and gradient: where there are several, or several processes, each part's
loss is computed once to count what its means divide by (means.py), and then to be differentiated. Processes
agree after each of the two whether it went well in all of them.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from scannet_css import distributed
from scannet_css.errors import InputError
from scannet_css.methods.means import Denominators
from scannet_css.network import Output
from scannet_css.scenes.loader import Batch

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "alloc_failed")

log = logging.getLogger(__name__)


class Parts:
    """A process' share of a batch: as a whole, or in parts; one goes through it part by part."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.number = len(batches)  # of the whole batch, over all processes
        self.means: Denominators | None = None  # of the whole batch, where that has more than this one part
        self.outputs: list[tuple[Output, Output | None]] = []  # of a single part, kept from counting
        self.at_work: Batch | None = None

    def __iter__(self) -> Iterator[Batch]:
        for part in self.batches:
            self.at_work = part
            yield part

    def means_of_the_whole(self) -> AbstractContextManager:
        """In here the loss' means divide by the counts of the whole batch."""
        return nullcontext() if self.means is None else self.means.applied()


class MemoryRetry:
    """Computes batches in as many parts as it takes.

    `too_many_voxels`: batches of at least so many voxels are cut from the start, since one did not fit; it is
    part of the checkpoint.
    """

    def __init__(self, step: int, method: str, batch_norm: str, device: torch.device) -> None:
        self._step, self._method, self._batch_norm, self._device = step, method, batch_norm, device
        self.too_many_voxels: int | None = None

    def until_it_fits(
        self,
        batch: Batch,
        begin: Callable[[], None],
        count: Callable[[Parts], None],
        differentiate: Callable[[Parts], dict[str, Tensor]],
        undo: Callable[[], None],
    ) -> tuple[dict[str, Tensor], list[Batch]]:
        """What `differentiate` gives, and the parts that it was computed in. `begin` precedes every attempt,
        `undo` follows one that ran out of memory. Raises InputError if a single scene does not fit."""
        parts, failed = Parts(self.cut(batch)), []
        while True:
            begin()
            terms = self._attempt(parts, count, differentiate)
            if terms is not None:
                return terms, parts.batches
            undo()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            parts = Parts(self._smaller(parts, failed))

    def takes_whole(self, batch: Batch) -> bool:
        """Whether it will be computed as a whole."""
        return self.too_many_voxels is None or batch.voxels < self.too_many_voxels

    def cut(self, batch: Batch) -> list[Batch]:
        """The parts to begin with; none of a batch without scenes."""
        if not batch.names:
            return []
        if self.takes_whole(batch):
            return [batch]
        return batch.split(-(-batch.voxels // self.too_many_voxels) + 1)

    def _attempt(
        self,
        parts: Parts,
        count: Callable[[Parts], None],
        differentiate: Callable[[Parts], dict[str, Tensor]],
    ) -> dict[str, Tensor] | None:
        """None where memory ran out in any process."""
        terms: dict[str, Tensor] = {}
        if len(parts.batches) != 1 or distributed.processes() > 1:
            parts.means = Denominators(self._device)
            if self._runs_out_of_memory(parts, lambda: count(parts)):
                return None
            self._share_counts(parts)
        if self._runs_out_of_memory(parts, lambda: terms.update(differentiate(parts))):
            return None
        return terms

    def _runs_out_of_memory(self, parts: Parts, work: Callable[[], None]) -> bool:
        """Does the work; whether memory ran out, in any process."""
        failed = False
        try:
            work()
        except (RuntimeError, MemoryError) as error:
            failed = isinstance(error, MemoryError) or _is_out_of_memory(error)
            if not failed:
                raise
        if not failed:
            parts.at_work = None
        failed_anywhere = any(told for (told,) in distributed.gathered([int(failed)]))
        if failed_anywhere:
            parts.outputs.clear()  # frees them before the next attempt
        return failed_anywhere

    def _share_counts(self, parts: Parts) -> None:
        """Adds up the counts, and the number of parts, over all processes."""
        said = distributed.gathered([len(parts.batches), len(parts.means.counts)])
        calls = {calls for number, calls in said if number}
        if len(calls) != 1:
            raise InputError(f"method {self._method!r}: its loss takes {calls} means on different parts")
        parts.number = sum(number for number, _ in said)
        parts.means.share(parts.number, calls.pop())

    def _smaller(self, parts: Parts, failed: list[str]) -> list[Batch]:
        """The parts for the next attempt: the one that did not fit is cut in two. `failed`: single scenes
        that did not fit before."""
        part = parts.at_work
        if part is None:  # it was another process'
            return parts.batches
        if self._batch_norm == "sync" and distributed.processes() > 1:
            raise InputError(
                f"{where(self._step, [part])}: out of memory, and --batch-norm sync cannot cut a batch"
            )
        if len(part.names) == 1:
            if part.names[0] in failed:
                raise InputError(
                    f"{where(self._step, [part])}: out of memory twice with this scene alone, {part.voxels}"
                    " voxels; a smaller network or larger voxels would fit"
                )
            failed.append(part.names[0])  # once more, now that memory has been freed
            return parts.batches
        self.too_many_voxels = min(part.voxels, self.too_many_voxels or part.voxels)
        log.warning(
            "warning: out of memory on %d scenes, %d voxels; going on in parts, from now on for every batch"
            " of that size",
            len(part.names),
            part.voxels,
        )
        place = next(index for index, each in enumerate(parts.batches) if each is part)
        return [*parts.batches[:place], *part.split(2), *parts.batches[place + 1 :]]


def where(step: int, parts: list[Batch]) -> str:
    """The place of these parts in training, for a message."""
    names = [name for part in parts for name in part.names]
    return f"step {step}, scenes {', '.join(names) or 'of another process'}"


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _OUT_OF_MEMORY)
