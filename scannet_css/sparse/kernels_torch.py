"""Sparse convolution in plain torch, on any device: two ways to run a map, both in chunks of output rows.

wide: gather every neighbour, zeros where there is none, and multiply once by the whole kernel. oneDNN's
product of that shape is so fast on a CPU that fairly full maps run best like this, and stems too.
paired: gather the pairs that exist, ordered by offset; one product per offset into a shared buffer; one
embedding bag adds up each output row's products. No product with an absent neighbour, no read-modify-write.

In both, sums run in an order that depends on the coordinates alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.sparse.maps import KernelMap

WIDE_SHARE = 0.42  # a map of which so much exists runs wide with oneDNN
WIDE_SHARE_PLAIN = 0.8  # and without
WIDE_CHANNELS = 4  # up to so many channels, always wide
CPU_NUMBERS, GPU_NUMBERS = 1 << 20, 1 << 28  # numbers gathered at a time: by a CPU's cache, by a GPU's memory
WIDE_ROWS, PAIRED_ROWS = 256, 1024  # at least so many output rows at a time: smaller products are slow
WIDE_STEP = 256  # rows are filled up to a multiple: oneDNN compiles a product for each shape that it meets


def unavailable(device: torch.device, dtype: torch.dtype) -> None:
    """Runs everywhere."""


def convolve(
    features: Tensor,
    kernel: Tensor,
    kernel_map: KernelMap,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """features (N, Cin), kernel (O, Cin, Cout) -> relu(sum + bias + residual) (M, Cout)."""
    out = _run(kernel_map, features, kernel=kernel)[0]
    if bias is not None:
        out += bias
    if residual is not None:
        out += residual
    return out.relu_() if relu else out


def gradients(
    features: Tensor,
    kernel: Tensor,
    gradient: Tensor,
    kernel_map: KernelMap,
    needs_features: bool,
    needs_kernel: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of features and kernel from that of the output (M, Cout); None for what is not needed.

    The features' gradient is the convolution of `gradient` over the reverse map; what that gathers serves the
    kernel's gradient too.
    """
    if needs_features:
        turned = kernel_map.reverse_offsets(kernel).transpose(1, 2)
        own = features if needs_kernel else None
        grad_features, total = _run(kernel_map.reverse, gradient, kernel=turned, own=own)
        if needs_kernel:
            total = kernel_map.reverse_offsets(total.transpose(1, 2))
    else:
        grad_features, total = _run(kernel_map, features, own=gradient)
    return grad_features, total


def _run(
    kernel_map: KernelMap, others: Tensor, kernel: Tensor | None = None, own: Tensor | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """What one gathering of the input rows `others` (N, A) under all offsets gives:

    with `kernel` (O, A, B) the convolution (M, B); with the output rows `own` (M, B) their products with the
    inputs under each offset, (O, A, B) in float32 or float64.
    """
    share = WIDE_SHARE if _has_onednn(others) else WIDE_SHARE_PLAIN
    is_wide = others.shape[1] <= WIDE_CHANNELS or kernel_map.share >= share
    return (_run_wide if is_wide else _run_paired)(kernel_map, others, kernel, own)


def _run_wide(
    kernel_map: KernelMap, others: Tensor, kernel: Tensor | None, own: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    offsets, channels = kernel_map.offsets, others.shape[1]
    neighbours = _wide_plan(kernel_map)
    out = total = None
    if kernel is not None:
        weight = kernel.permute(2, 0, 1).reshape(kernel.shape[2], -1)
        out = others.new_empty(len(neighbours), kernel.shape[2])
    if own is not None:
        total = own.new_zeros(own.shape[1], offsets * channels, dtype=_sum_type(own))
    padded = torch.cat([others, others.new_zeros(1, channels)])
    rows = _power_of_two(max(WIDE_ROWS, _numbers(others) / (offsets * channels)))
    for start in range(0, len(neighbours), rows):
        part = slice(start, start + rows)
        gathered = padded.index_select(0, neighbours[part].view(-1)).view(-1, offsets * channels)
        if out is not None:
            out[part] = _linear(gathered, weight)
        if total is not None:
            own_columns = own.new_zeros(own.shape[1], len(gathered))
            own_columns[:, : len(own) - start] = own[part].t()
            total += _linear(own_columns, gathered.t())
    out = None if out is None else out[: kernel_map.outputs]
    return out, None if total is None else total.view(-1, offsets, channels).permute(1, 2, 0)


def _wide_plan(kernel_map: KernelMap) -> Tensor:
    """(M, O) int32, M filled up: the input rows, or the row of zeros that follows the last one."""
    if "wide" not in kernel_map.plans:
        table = kernel_map.table.t()
        plan = table.new_full(
            (-(-len(table) // WIDE_STEP) * WIDE_STEP, kernel_map.offsets), kernel_map.inputs
        )
        plan[: len(table)] = torch.where(table < 0, kernel_map.inputs, table)
        kernel_map.plans["wide"] = plan
    return kernel_map.plans["wide"]


def _has_onednn(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (R, A) times weight (B, A) transposed. On AVX-512 oneDNN is up to twice as fast as torch.mm's MKL."""
    if _has_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return x @ weight.t()


def _run_paired(
    kernel_map: KernelMap, others: Tensor, kernel: Tensor | None, own: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    out = total = None
    if kernel is not None:
        weights = kernel.contiguous().unbind(0)
        out = others.new_empty(kernel_map.outputs, kernel.shape[2])
    if own is not None:
        shape = kernel_map.offsets, others.shape[1], own.shape[1]
        total = own.new_zeros(shape, dtype=_sum_type(own))
    for pairs in _paired_plan(kernel_map, others):
        gathered = others.index_select(0, pairs.sources)
        parts = gathered.split(pairs.counts)
        if out is not None:
            products = gathered.new_empty(len(gathered), out.shape[1])
            for part, weight, product in zip(parts, weights, products.split(pairs.counts), strict=True):
                if len(part):
                    torch.mm(part, weight, out=product)
            out[pairs.rows] = F.embedding_bag(pairs.members, products, pairs.starts, mode="sum")
        if total is not None:
            targets = own.index_select(0, pairs.targets).split(pairs.counts)
            for sum_of_offset, part, target in zip(total, parts, targets, strict=True):
                if len(part):
                    _add_product(sum_of_offset, part.t(), target)
    return out, total


@dataclass
class Pairs:
    """The pairs of a slice of output rows, P of them, ordered by (offset, output row)."""

    rows: slice
    counts: list[int]  # (O,) pairs per offset
    sources: Tensor  # (P,) input row of each pair
    targets: Tensor  # (P,) output row of each pair
    members: Tensor  # (P,) the pairs ordered by (output row, offset), as positions in the order above
    starts: Tensor  # (R,) where each output row's members begin


def _paired_plan(kernel_map: KernelMap, others: Tensor) -> list[Pairs]:
    """The map's pairs in chunks of a power of two of output rows, so that different widths share plans."""
    neighbours = kernel_map.share * kernel_map.offsets
    rows = _power_of_two(max(PAIRED_ROWS, _numbers(others) / max(1.0, neighbours * others.shape[1])))
    if ("paired", rows) not in kernel_map.plans:
        kernel_map.plans["paired", rows] = list(_cut(kernel_map.table, rows))
    return kernel_map.plans["paired", rows]


def _cut(table: Tensor, rows: int) -> Iterator[Pairs]:
    for start in range(0, table.shape[1], rows):
        part = table[:, start : start + rows]
        exists = part >= 0
        target = exists.nonzero()[:, 1].to(torch.int32)
        position = torch.zeros_like(part)
        position[exists] = torch.arange(len(target), dtype=torch.int32, device=table.device)
        per_row = exists.sum(0)
        yield Pairs(
            rows=slice(start, start + part.shape[1]),
            counts=exists.sum(1).tolist(),
            sources=part[exists],
            targets=target + start,
            members=position.t()[exists.t()],
            starts=(per_row.cumsum(0) - per_row).to(torch.int32),
        )


def _numbers(x: Tensor) -> int:
    return GPU_NUMBERS if x.is_cuda else CPU_NUMBERS


def _power_of_two(limit: float) -> int:
    return 1 << int(limit).bit_length() - 1


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
