"""Sparse convolution in plain torch, on any device.

Output rows are cut into chunks that fit the cache. Per chunk the existing pairs are gathered once, ordered
by kernel offset; each offset is one matrix product into a shared buffer; one embedding bag then adds up each
output row's products, in the order of the offsets. No product with an absent neighbour, no read-modify-write,
and sums that always run in the same order.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.sparse.tensor import KernelMap

CHUNK_ROWS = 2048


@dataclass
class Chunk:
    """The pairs of the output rows [start, stop), P of them, ordered by (offset, output row)."""

    start: int
    stop: int
    counts: list[int]  # (O,) pairs per offset
    sources: Tensor  # (P,) input row of each pair
    targets: Tensor  # (P,) output row of each pair
    members: Tensor  # (P,) the same pairs ordered by (output row, offset), as positions in that order
    starts: Tensor  # (stop - start,) where each output row's members begin


def chunks_of(kernel_map: KernelMap, rows: int) -> list[Chunk]:
    """The map cut into chunks of so many output rows; kept with the map."""
    if ("chunks", rows) not in kernel_map.plans:
        kernel_map.plans["chunks", rows] = _cut(kernel_map.table, rows)
    return kernel_map.plans["chunks", rows]


def _cut(table: Tensor, rows: int) -> list[Chunk]:
    offsets, outputs = table.shape
    chunks = []
    for start in range(0, outputs, rows):
        part = table[:, start : start + rows]
        exists = part >= 0
        counts = exists.sum(1).tolist()
        target = exists.nonzero()[:, 1].to(torch.int32)
        position = torch.zeros_like(part)
        position[exists] = torch.arange(len(target), dtype=torch.int32, device=table.device)
        per_row = exists.sum(0)
        chunks.append(
            Chunk(
                start=start,
                stop=start + part.shape[1],
                counts=counts,
                sources=part[exists],
                targets=target + start,
                members=position.t()[exists.t()],
                starts=(per_row.cumsum(0) - per_row).to(torch.int32),
            )
        )
    return chunks


def convolve(features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    """features (N, Cin), kernel (O, Cin, Cout) -> (M, Cout)."""
    out = features.new_empty(kernel_map.outputs, kernel.shape[2])
    weights = kernel.unbind(0)
    for chunk in chunks_of(kernel_map, CHUNK_ROWS):
        gathered = features.index_select(0, chunk.sources)
        _sum_products(gathered, weights, chunk, out)
    return out


def gradients(
    features: Tensor,
    kernel: Tensor,
    gradient: Tensor,
    kernel_map: KernelMap,
    needs_features: bool,
    needs_kernel: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of features and kernel from that of the output (M, Cout); None for what is not needed."""
    grad_features = torch.empty_like(features) if needs_features else None
    grad_kernel = torch.zeros_like(kernel, dtype=_sum_type(kernel)) if needs_kernel else None
    weights = kernel.transpose(1, 2).contiguous().unbind(0) if needs_features else ()
    for chunk in chunks_of(kernel_map.reverse, CHUNK_ROWS):
        gathered = gradient.index_select(0, chunk.sources)
        if needs_features:
            _sum_products(gathered, weights, chunk, grad_features)
        if needs_kernel:
            own = features.index_select(0, chunk.targets).split(chunk.counts)
            for total, left, right in zip(grad_kernel, own, gathered.split(chunk.counts), strict=True):
                if len(left):
                    _add_product(total, left.t(), right)
    return grad_features, None if grad_kernel is None else grad_kernel.to(kernel.dtype)


def _sum_products(gathered: Tensor, weights: tuple[Tensor, ...], chunk: Chunk, out: Tensor) -> None:
    products = gathered.new_empty(len(gathered), out.shape[1])
    parts = zip(gathered.split(chunk.counts), weights, products.split(chunk.counts), strict=True)
    for part, weight, product in parts:
        if len(part):
            torch.mm(part, weight, out=product)
    out[chunk.start : chunk.stop] = F.embedding_bag(chunk.members, products, chunk.starts, mode="sum")


def _sum_type(kernel: Tensor) -> torch.dtype:
    return torch.float32 if kernel.dtype in (torch.float16, torch.bfloat16) else kernel.dtype


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
