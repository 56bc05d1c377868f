"""A kernel map's pairs by offset, in slices of output rows, for engines made of torch's operations."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scannet_css.sparse.maps import KernelMap


@dataclass
class Pairs:
    """The pairs of a slice of R output rows, P of them, by (offset, output row)."""

    rows: slice
    counts: Tensor  # (O,) int64 pairs per offset
    sources: Tensor  # (P,) int32 input row of each pair
    targets: Tensor  # (P,) int32 output row of each pair
    members: Tensor  # (P,) int32 the pairs ordered by (output row, offset), as positions in the order above
    starts: Tensor  # (R,) int32 where each output row's members begin


def pairs_of(kernel_map: KernelMap, rows: int) -> list[Pairs]:
    """The map's pairs in even slices of about `rows` output rows; kept with the map."""
    chunks = max(1, round(kernel_map.outputs / max(1, rows)))
    if ("pairs", chunks) not in kernel_map.plans:
        rows = max(1, -(-kernel_map.outputs // chunks))
        kernel_map.plans["pairs", chunks] = list(_cut(kernel_map.table, rows))
    return kernel_map.plans["pairs", chunks]


def _cut(table: Tensor, rows: int) -> Iterator[Pairs]:
    for start in range(0, table.shape[1], rows):
        part = table[:, start : start + rows]
        exists = part >= 0
        row, per_row = exists.nonzero()[:, 1], exists.sum(0)
        position = torch.zeros_like(part)
        position[exists] = torch.arange(len(row), dtype=torch.int32, device=table.device)
        yield Pairs(
            rows=slice(start, start + part.shape[1]),
            counts=exists.sum(1),
            sources=part[exists],
            targets=(row + start).int(),
            members=position.t()[exists.t()],
            starts=(per_row.cumsum(0) - per_row).int(),
        )
