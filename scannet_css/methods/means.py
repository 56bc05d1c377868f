"""Means over a batch that is computed in parts: by several processes, or in pieces where memory is short.

A loss that averages over the voxels of a batch must divide by their number in the whole batch, not in the
part at hand. So every mean is written `mean_over(sum, count)`, a large sum as `ordered_sum(values)`. Where a
batch has several parts, the loss is computed once to learn the counts, these are added up over parts and
processes, and then it is computed to be differentiated; the loop averages the parts' losses, and what comes
out is the whole batch's loss.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from scannet_css import distributed

_active: "Denominators | None" = None


def mean_over(values_sum: Tensor, count: Tensor | int) -> Tensor:
    """values_sum / count, 0 where the count is 0: a mean over whatever the batch has `count` of.

    Exact also for a batch in parts, where a plain `.mean()` gives the mean of the parts' means.
    """
    if _active is not None:
        return values_sum / _active.denominator(torch.as_tensor(count, device=values_sum.device))
    return values_sum / (max(count, 1) if isinstance(count, int) else count.clamp(min=1))


SERIAL_NUMBERS = 1 << 14  # torch adds up fewer than 32,768 numbers on one thread
ROW_NUMBERS = 1 << 10


def ordered_sum(values: Tensor) -> Tensor:
    """The sum of all values, on a CPU in an order that does not depend on the number of threads.

    torch's own `.sum()` cuts a large tensor into as many pieces as there are threads, so its last bits, and
    with them a whole run's, would change with the machine. Sums along a dimension do not.
    """
    return _OrderedSum.apply(values)


class _OrderedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        ctx.shape = values.shape
        values = values.reshape(-1)
        while values.device.type == "cpu" and len(values) > SERIAL_NUMBERS:
            whole = len(values) // ROW_NUMBERS * ROW_NUMBERS
            rows = values[:whole].view(-1, ROW_NUMBERS).sum(1)
            values = torch.cat([rows, values[whole:]])
        return values.sum()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.expand(ctx.shape)


def over_batch(count: Tensor | int) -> Tensor:
    """`count` of the whole batch, where its parts have some each: for losses that weigh terms by counts."""
    count = torch.as_tensor(count)
    return count if _active is None else _active.total(count)


class Denominators:
    """The counts of all means in a batch's loss, in the order in which the loss takes them."""

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(0, dtype=torch.int64, device=device)
        self._call = 0
        self._parts = 0  # of the whole batch, over all processes; 0 while counting

    @contextmanager
    def counting(self) -> Iterator[None]:
        """In here the loss of one part is computed for its counts."""
        self._found: list[Tensor] = []
        with self._listening(), torch.no_grad():
            yield
        found = torch.stack(self._found) if self._found else self.counts[:0]
        self.counts = self.counts + found if len(self.counts) else found

    def share(self, parts: int, calls: int) -> None:
        """The batch has so many parts over all processes, in each of which the loss takes `calls` means."""
        if len(self.counts) == 0:  # this process has no part
            self.counts = self.counts.new_zeros(calls)
        self.counts, self._parts = distributed.total(self.counts), parts

    @contextmanager
    def applied(self) -> Iterator[None]:
        """In here the loss of one part is computed with the counts of the whole batch."""
        with self._listening():
            yield

    def denominator(self, count: Tensor) -> Tensor:
        """What the next mean of the loss is divided by."""
        if not self._parts:
            self._found.append(count.to(torch.int64))
            return count.clamp(min=1)
        self._call += 1
        # The parts' losses are averaged, so each counts for its share only.
        return self.counts[self._call - 1].clamp(min=1).double() / self._parts

    def total(self, count: Tensor) -> Tensor:
        """The next count of the loss, over all parts."""
        if not self._parts:
            self._found.append(count.to(self.counts))
            return count
        self._call += 1
        return self.counts[self._call - 1]

    @contextmanager
    def _listening(self) -> Iterator[None]:
        global _active
        _active, self._call = self, 0
        try:
            yield
        finally:
            _active = None
