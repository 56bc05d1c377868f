"""Sparse convolution in plain torch, on any device: two ways to run a map, both in chunks of output rows.

wide: gather every neighbour, zeros where there is none, and multiply once by the whole kernel. For stems, and
for nearly full maps.
paired: gather the pairs that exist, ordered by offset; one product per offset into a shared buffer; one
embedding bag adds up each output row's products. No product with an absent neighbour, no read-modify-write.

In both, sums run in an order that depends on the coordinates alone.
"""

import threading
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.sparse.maps import KernelMap
from scannet_css.sparse.pairs import pairs_of
from scannet_css.sparse.tail import finished

WIDE_SHARE = 0.8  # a map of which so much exists runs wide
STEM_CHANNELS = 4  # up to so many input channels, always wide
WIDE_NUMBERS = 1 << 20  # numbers gathered at a time, by a CPU's cache
GPU_NUMBERS = 1 << 28  # by a GPU's memory
WIDE_ROWS = 256  # at least so many output rows at a time: smaller products are slow
PAIRED_ROWS = 2048  # output rows at a time on a CPU, for each thread

_buffers = threading.local()  # of the largest chunk's size: fresh memory costs a page fault every 4 KiB


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

    def finish(chunk: Tensor, rows: slice) -> Tensor:  # which is still in the cache
        return finished(chunk, bias, None if residual is None else residual[rows], relu)

    return _run(kernel_map, features, kernel, finish=finish)


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
    total = None
    if needs_kernel:
        total = torch.zeros(kernel.shape, dtype=_sum_type(features), device=features.device)
    if not needs_features:
        _run(kernel_map, features, own=gradient, total=total.transpose(1, 2))
        return None, total
    # A centred map is its own reverse, turned round.
    turned = kernel.transpose(1, 2), kernel_map.is_centred
    own = features if needs_kernel else None
    return _run(kernel_map.reverse, gradient, *turned, own, total), total


def _run(
    kernel_map: KernelMap,
    others: Tensor,
    kernel: Tensor | None = None,
    is_turned: bool = False,
    own: Tensor | None = None,
    total: Tensor | None = None,
    finish=lambda out, rows: out,
) -> Tensor | None:
    """What one gathering of the input rows `others` (N, A) under all offsets gives:

    with `kernel` (O, A, B) the convolution (M, B), each chunk of it finished by `finish(chunk, rows)`; with
    the output rows `own` (M, B) their products with the inputs, added to `total` (O, B, A) in float32 or
    float64. is_turned: offset k of the map is O - 1 - k of kernel and total.
    """
    is_wide = others.shape[1] <= STEM_CHANNELS or kernel_map.share >= WIDE_SHARE
    return (_run_wide if is_wide else _run_paired)(kernel_map, others, kernel, is_turned, own, total, finish)


def _run_wide(kernel_map: KernelMap, others: Tensor, kernel, is_turned, own, total, finish) -> Tensor | None:
    offsets, channels = kernel_map.offsets, others.shape[1]
    neighbours = _wide_plan(kernel_map)
    out = products = None
    if kernel is not None:
        weight = (kernel.flip(0) if is_turned else kernel).reshape(offsets * channels, -1)
        out = others.new_empty(kernel_map.outputs, weight.shape[1])
    if own is not None:
        products = own.new_zeros(own.shape[1], offsets * channels, dtype=total.dtype)
    padded = torch.cat([others, others.new_zeros(1, channels)])
    numbers = GPU_NUMBERS if others.is_cuda else WIDE_NUMBERS * torch.get_num_threads()
    rows_that_fit = max(1, numbers // (offsets * channels))
    step = max(WIDE_ROWS, 1 << rows_that_fit.bit_length() - 1)
    for start in range(0, kernel_map.outputs, step):
        rows = slice(start, min(start + step, kernel_map.outputs))
        gathered = _gather(padded, neighbours[rows].view(-1), "gathered").view(-1, offsets * channels)
        if out is not None:
            out[rows] = finish(gathered @ weight, rows)
        if products is not None:
            products += own[rows].t() @ gathered
    if products is not None:
        products = products.view(-1, offsets, channels).transpose(0, 1)
        total += products.flip(0) if is_turned else products
    return out


def _wide_plan(kernel_map: KernelMap) -> Tensor:
    """(M, O) int32: the input rows, or the row of zeros that follows the last one."""
    if "wide" not in kernel_map.plans:
        table = kernel_map.table.t()
        kernel_map.plans["wide"] = torch.where(table < 0, kernel_map.inputs, table).contiguous()
    return kernel_map.plans["wide"]


def _run_paired(
    kernel_map: KernelMap, others: Tensor, kernel, is_turned, own, total, finish
) -> Tensor | None:
    out = None if kernel is None else others.new_empty(kernel_map.outputs, kernel.shape[2])
    direction = -1 if is_turned else 1
    weights, sums = (None if x is None else x.unbind(0)[::direction] for x in (kernel, total))
    rows = PAIRED_ROWS * torch.get_num_threads()
    if others.is_cuda:
        rows = int(GPU_NUMBERS / max(1.0, kernel_map.share * kernel_map.offsets * others.shape[1]))
    for pairs in pairs_of(kernel_map, rows):
        counts = pairs.counts.tolist()
        gathered = _gather(others, pairs.sources, "gathered")
        if out is not None:
            products = _products(gathered.split(counts), weights)
            bag = F.embedding_bag(pairs.members, products, pairs.starts, mode="sum")
            out[pairs.rows] = finish(bag, pairs.rows)
        if own is not None:
            targets = _gather(own, pairs.targets, "products")  # whose memory is free again
            _add_products(sums, gathered.split(counts), targets.split(counts))
    return out


def _products(parts: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Each offset's rows (R, A) times its weight (A, B), below one another."""
    products = _buffer("products", sum(map(len, parts)), weights[0].shape[1], parts[0])
    for part, weight, place in zip(parts, weights, products.split(list(map(len, parts))), strict=True):
        if len(part):
            torch.mm(part, weight, out=place)
    return products


def _add_products(sums: Sequence[Tensor], parts: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """To each offset's sum (B, A) its outputs (R, B) transposed times its inputs (R, A)."""
    for sum_of_offset, part, target in zip(sums, parts, targets, strict=True):
        if len(part):
            kind = sum_of_offset.dtype
            sum_of_offset.addmm_(target.t().to(kind), part.to(kind))


def _gather(x: Tensor, rows: Tensor, name: str) -> Tensor:
    return torch.index_select(x, 0, rows, out=_buffer(name, len(rows), x.shape[1], x))


def _buffer(name: str, rows: int, columns: int, like: Tensor) -> Tensor:
    """Memory (rows, columns) that the next call of the same name may overwrite."""
    if like.device.type != "cpu":
        return like.new_empty(rows, columns)
    name = f"{name} {like.dtype}"
    memory = getattr(_buffers, name, None)
    if memory is None or memory.numel() < rows * columns:
        with torch.inference_mode(False):  # training may write here after an evaluation
            memory = torch.empty(rows * columns, dtype=like.dtype)
        setattr(_buffers, name, memory)
    return memory[: rows * columns].view(rows, columns)


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
