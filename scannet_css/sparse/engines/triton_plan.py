"""What the Triton kernels need to know of a kernel map, built once: rows in tiles, and pairs in chunks.

Everything is made by torch on the map's device; only the number of pairs is brought to the host.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.sparse.maps import KernelMap

MASK_BITS = 48  # of a row's neighbour mask; with more offsets several share a bit
GROUP_ROWS = 1 << 16  # scenes that begin within so many rows are sorted together
CHUNKS = 1024  # of about so many the weight gradient is made: enough to fill a GPU, few enough to add up
CHUNK_PAIRS = 512, 16384  # at least and at most


@dataclass
class Tiles:
    """The output rows in T tiles of B rows whose neighbours lie under similar offsets.

    A tile is computed for the offsets that any of its rows has: sorting by neighbour mask makes these few.
    """

    rows: Tensor  # (T, B) int32 the output row of each slot, -1 where the last tile has none
    neighbours: (
        Tensor  # (T, O, B) int32 the input row of each slot under the offsets as `active` orders them, or -1
    )
    active: Tensor  # (T, O) int32 the offsets, first those that the tile has, ascending
    counts: Tensor  # (T,) int32 how many it has


@dataclass
class Chunks:
    """All pairs of the map, P of them, by (offset, output row), in chunks of one offset each.

    Empty chunks may follow the last one: how many chunks there are stays on the device.
    """

    sources: Tensor  # (P,) int32 input rows
    targets: Tensor  # (P,) int32 output rows
    starts: Tensor  # (chunks,) int32 the first pair of each chunk
    ends: Tensor  # (chunks,) int32
    first_chunks: Tensor  # (O + 1,) int32 the first chunk of each offset, and the end


def tiles(kernel_map: KernelMap, block_rows: int) -> Tiles:
    """The map's tiles of `block_rows`."""
    name = "triton", "tiles", block_rows
    if name not in kernel_map.plans:
        kernel_map.plans[name] = _tile(kernel_map.table, _row_order(kernel_map), block_rows)
    return kernel_map.plans[name]


def chunks(kernel_map: KernelMap) -> Chunks:
    """The map's pairs in chunks."""
    name = "triton", "chunks"
    if name not in kernel_map.plans:
        kernel_map.plans[name] = _cut(kernel_map.table)
    return kernel_map.plans[name]


def _row_order(kernel_map: KernelMap) -> Tensor:
    """(M,) int64: the output rows by (group of scenes, neighbour mask in Gray order, row).

    Neighbours in Gray order differ in few bits. Groups, because tiles that run together then gather from few
    scenes, whose features fit the cache. Backwards: the tiles with the most work run first.
    """
    name = "triton", "order"
    if name not in kernel_map.plans:
        scenes = kernel_map.output_scenes
        group = torch.searchsorted(scenes, scenes) // GROUP_ROWS
        key = _gray_rank(_masks(kernel_map.table)) | (group << MASK_BITS)
        kernel_map.plans[name] = torch.sort(key, descending=True, stable=True).indices
    return kernel_map.plans[name]


def _masks(table: Tensor) -> Tensor:
    """(M,) int64: which offsets a row has, a bit for each; each few, if there are more than MASK_BITS.

    The rarest offset has the highest bit: the few rows that have it then share tiles, which saves a tenth of
    the work against any fixed order.
    """
    offsets = table.shape[0]
    per_bit = -(-offsets // MASK_BITS)
    bits = -(-offsets // per_bit)
    exists = table >= 0
    if per_bit > 1:
        exists = F.pad(exists, (0, 0, 0, bits * per_bit - offsets)).view(bits, per_bit, -1).any(1)
    rank = torch.argsort(torch.argsort(exists.sum(1), descending=True, stable=True))
    return torch.where(exists, (1 << rank)[:, None], 0).sum(0)


def _gray_rank(code: Tensor) -> Tensor:
    """The place of each Gray code (M,) in the sequence of codes."""
    for shift in (1, 2, 4, 8, 16, 32):
        code = code ^ (code >> shift)
    return code


def _tile(table: Tensor, order: Tensor, block_rows: int) -> Tiles:
    offsets, outputs = table.shape
    count = -(-outputs // block_rows)
    missing = count * block_rows - outputs
    rows = F.pad(order.int(), (0, missing), value=-1).view(count, block_rows)
    sorted_table = F.pad(table.index_select(1, order), (0, missing), value=-1)
    by_tile = sorted_table.view(offsets, count, block_rows).transpose(0, 1)
    is_active = (by_tile >= 0).any(2)
    active = torch.sort(is_active.to(torch.uint8), dim=1, descending=True, stable=True).indices
    neighbours = by_tile.gather(1, active[:, :, None].expand(-1, -1, block_rows))
    return Tiles(rows, neighbours, active.int(), is_active.sum(1, dtype=torch.int32))


def _cut(table: Tensor) -> Chunks:
    offsets, outputs = table.shape
    entries = (table.reshape(-1) >= 0).nonzero()[:, 0]
    limit = chunk_pairs(len(entries))
    per_offset = (table >= 0).sum(1)
    ends_of_offsets = per_offset.cumsum(0)
    chunks_of_offsets = (per_offset + limit - 1) // limit
    first_chunks = F.pad(chunks_of_offsets.cumsum(0), (1, 0))

    # No offset ends with more than one chunk that is not full.
    chunk = torch.arange(len(entries) // limit + offsets, device=table.device)
    offset = torch.searchsorted(first_chunks[1:], chunk, right=True).clamp_(max=offsets - 1)
    starts = ends_of_offsets[offset] - per_offset[offset] + (chunk - first_chunks[offset]) * limit
    ends = torch.minimum(starts + limit, ends_of_offsets[offset])
    is_empty = chunk >= first_chunks[-1]
    return Chunks(
        sources=table.reshape(-1)[entries],
        targets=(entries % outputs).int(),
        starts=starts.masked_fill_(is_empty, 0).int(),
        ends=ends.masked_fill_(is_empty, 0).int(),
        first_chunks=first_chunks.int(),
    )


def chunk_pairs(pairs: int) -> int:
    """How many of so many pairs make a chunk: a power of two."""
    least, most = CHUNK_PAIRS
    return min(max(1 << (pairs // CHUNKS).bit_length(), least), most)
