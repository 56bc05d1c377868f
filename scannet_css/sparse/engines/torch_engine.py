"""Sparse convolution in plain torch, on any device: two ways to run a map, both in chunks of output rows.

wide: gather every neighbour, zeros where there is none, and multiply once by the whole kernel. For stems, and
for fairly full maps with few channels.
paired: gather the pairs that exist, ordered by offset; one product per offset into a shared buffer; one
embedding bag adds up each output row's products. No product with an absent neighbour, no read-modify-write.

In both, sums run in an order that depends on the coordinates alone. Products are oneDNN's where torch has it:
on AVX-512 it is up to twice as fast as torch.mm's MKL, on AMD above all.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.sparse.maps import KernelMap

# A map of which so much exists runs wide; with oneDNN the more channels, the more is needed.
WIDE_SHARE, WIDE_SHARE_PER_CHANNEL = 0.30, 1 / 450
WIDE_SHARE_PLAIN = 0.8  # without oneDNN
STEM_CHANNELS = 4  # up to so many input channels, always wide
WIDE_NUMBERS = 1 << 20  # numbers gathered at a time, by a CPU's cache
GPU_NUMBERS = 1 << 28  # by a GPU's memory
WIDE_ROWS = 256  # at least so many output rows at a time: smaller products are slow
PAIRED_ROWS = 4096  # output rows at a time on a CPU, for each thread
# oneDNN compiles a product for each shape that it meets, so rows are filled up to a multiple.
WIDE_STEP, PAIRED_STEP = 256, 128
# From so many channels on, oneDNN is ahead in the kernel's gradient too. It takes a transposed copy, and
# torch transposes with one thread only.
ONEDNN_SUM_CHANNELS, ONEDNN_SUM_CHANNELS_PARALLEL = 64, 256

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
    finish = partial(_finish, bias=bias, residual=residual, relu=relu)
    return _run(kernel_map, features, kernel, finish=finish)


def _finish(out: Tensor, rows: slice, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
    """What follows the sum, on a chunk that is still in the cache."""
    if bias is not None:
        out = out.add_(bias)
    if residual is not None:
        out = out.add_(residual[rows])
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
    channels = others.shape[1]
    narrow = min(channels, own.shape[1] if kernel is None else kernel.shape[2])
    wanted = WIDE_SHARE + WIDE_SHARE_PER_CHANNEL * narrow if _has_onednn(others) else WIDE_SHARE_PLAIN
    is_wide = channels <= STEM_CHANNELS or kernel_map.share >= wanted
    return (_run_wide if is_wide else _run_paired)(kernel_map, others, kernel, is_turned, own, total, finish)


def _run_wide(kernel_map: KernelMap, others: Tensor, kernel, is_turned, own, total, finish) -> Tensor | None:
    offsets, channels = kernel_map.offsets, others.shape[1]
    neighbours = _wide_plan(kernel_map)
    out = products = None
    if kernel is not None:
        kernel = kernel.flip(0) if is_turned else kernel
        weight = kernel.permute(2, 0, 1).reshape(kernel.shape[2], -1)
        out = others.new_empty(kernel_map.outputs, len(weight))
    if own is not None:
        products = own.new_zeros(own.shape[1], offsets * channels, dtype=total.dtype)
    padded = torch.cat([others, others.new_zeros(1, channels)])
    numbers = GPU_NUMBERS if others.is_cuda else WIDE_NUMBERS * torch.get_num_threads()
    rows_that_fit = max(1, numbers // (offsets * channels))
    step = max(WIDE_ROWS, 1 << rows_that_fit.bit_length() - 1)
    for start in range(0, len(neighbours), step):
        rows = slice(start, min(start + step, kernel_map.outputs))
        gathered = _gather(padded, neighbours[start : start + step].view(-1), "gathered")
        gathered = gathered.view(-1, offsets * channels)
        if out is not None:
            out[rows] = finish(_linear(gathered, weight)[: rows.stop - start], rows)
        if products is not None:
            own_columns = own.new_zeros(own.shape[1], len(gathered))
            own_columns[:, : rows.stop - start] = own[rows].t()
            products += _linear(own_columns, gathered.t())
    if products is not None:
        products = products.view(-1, offsets, channels).transpose(0, 1)
        total += products.flip(0) if is_turned else products
    return out


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


def _run_paired(
    kernel_map: KernelMap, others: Tensor, kernel, is_turned, own, total, finish
) -> Tensor | None:
    out = None if kernel is None else others.new_empty(kernel_map.outputs, kernel.shape[2])
    direction = -1 if is_turned else 1
    weights, sums = (None if x is None else x.unbind(0)[::direction] for x in (kernel, total))
    for pairs in _paired_plan(kernel_map, others):
        gathered = _gather(others, pairs.sources, "gathered")
        if out is not None:
            products = _products(gathered.split(pairs.sizes), weights)
            bag = F.embedding_bag(pairs.members, products, pairs.starts, mode="sum")
            out[pairs.rows] = finish(bag, pairs.rows)
        if own is not None:
            targets = _gather(own, pairs.targets, "products")  # whose memory is free again
            _add_products(sums, gathered.split(pairs.sizes), targets.split(pairs.sizes), pairs.counts)
    return out


def _products(parts: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Each offset's rows (R, A) times its weight (A, B), below one another."""
    present = [(part, weight) for part, weight in zip(parts, weights, strict=True) if len(part)]
    products = _buffer("products", sum(map(len, parts)), weights[0].shape[1], parts[0])
    use_onednn, start = _has_onednn(parts[0]), 0
    for part, weight in present:
        place = products[start : start + len(part)]
        if use_onednn:
            place.copy_(_linear(part, weight.t()))  # at once, while it is in the cache
        else:
            torch.mm(part, weight, out=place)
        start += len(part)
    return products


def _add_products(
    sums: Sequence[Tensor], parts: Sequence[Tensor], targets: Sequence[Tensor], counts: list[int]
) -> None:
    """To each offset's sum (B, A) its outputs (R, B) transposed times its inputs (R, A), R = count."""
    least = ONEDNN_SUM_CHANNELS if torch.get_num_threads() == 1 else ONEDNN_SUM_CHANNELS_PARALLEL
    use_onednn = _has_onednn(parts[0]) and min(sums[0].shape) >= least
    for sum_of_offset, part, target, count in zip(sums, parts, targets, counts, strict=True):
        if count == 0:
            continue
        if use_onednn:
            target[count:] = 0
            sum_of_offset += _linear(target.t().contiguous(), part.t())
        elif sum_of_offset.dtype == target.dtype:
            sum_of_offset.addmm_(target[:count].t(), part[:count])
        else:
            sum_of_offset += target[:count].t().to(sum_of_offset.dtype) @ part[:count].to(sum_of_offset.dtype)


@dataclass
class Pairs:
    """The pairs of a slice of output rows, by (offset, output row); each offset filled up, P in all."""

    rows: slice
    counts: list[int]  # (O,) pairs per offset
    sizes: list[int]  # (O,) the same filled up to a multiple of PAIRED_STEP
    sources: Tensor  # (P,) input row of each pair; any row where filled up
    targets: Tensor  # (P,) output row of each pair; any row where filled up
    members: Tensor  # (pairs,) the pairs ordered by (output row, offset), as positions in the order above
    starts: Tensor  # (R,) where each output row's members begin


def _paired_plan(kernel_map: KernelMap, others: Tensor) -> list[Pairs]:
    """The map's pairs in even chunks of output rows."""
    step = PAIRED_STEP if _has_onednn(others) else 1
    rows = PAIRED_ROWS * torch.get_num_threads()
    if others.is_cuda:
        rows = int(GPU_NUMBERS / max(1.0, kernel_map.share * kernel_map.offsets * others.shape[1]))
    chunks = max(1, round(kernel_map.outputs / max(1, rows)))
    name = ("paired", chunks, step)
    if name not in kernel_map.plans:
        kernel_map.plans[name] = list(_cut(kernel_map.table, -(-kernel_map.outputs // chunks), step))
    return kernel_map.plans[name]


def _cut(table: Tensor, rows: int, step: int) -> Iterator[Pairs]:
    for start in range(0, table.shape[1], rows):
        part = table[:, start : start + rows]
        exists = part >= 0
        counts = exists.sum(1)
        sizes = (counts + step - 1) // step * step
        offset, target = exists.nonzero(as_tuple=True)
        shift = (sizes - counts).cumsum(0) - (sizes - counts)  # how far filling up moves an offset's pairs
        place = torch.arange(len(offset), device=table.device) + shift[offset]
        sizes = sizes.tolist()
        sources, targets = table.new_zeros(sum(sizes)), table.new_full((sum(sizes),), start)
        sources[place], targets[place] = part[exists], target.to(torch.int32) + start
        position = torch.zeros_like(part)
        position[exists] = place.to(torch.int32)
        per_row = exists.sum(0)
        yield Pairs(
            rows=slice(start, start + part.shape[1]),
            counts=counts.tolist(),
            sizes=sizes,
            sources=sources,
            targets=targets,
            members=position.t()[exists.t()],
            starts=(per_row.cumsum(0) - per_row).to(torch.int32),
        )


def _has_onednn(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (R, A) times weight (B, A) transposed."""
    if _has_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return x @ weight.t()


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
