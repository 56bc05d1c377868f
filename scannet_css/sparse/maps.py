"""The levels of a batch and the kernel maps between them: built once per batch, for all layers and networks.

Rows are in the order of their keys inside the engine, the *canonical* order; `order` takes the caller's rows
there and `inverse` back, so no result depends on the order in which the rows came.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scannet_css.errors import InputError
from scannet_css.sparse.coordinates import (
    AXIS_LIMIT,
    kernel_offsets,
    octant_of,
    pack,
    pack_unchecked,
    parents_of,
    scene_of,
    unpack,
)

SEARCHED_ROWS = 4096  # levels up to this size are searched, larger ones ask their parents
COARSEST_STRIDE = 2 * AXIS_LIMIT  # above it, the key's bits belong to the scene
DESCENT_REACH = 2  # voxels: so far away, a voxel's neighbours are children of its parent's 27 neighbours

_building: Callable[[], AbstractContextManager] = nullcontext


@contextmanager
def timed_building(timer: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """In here, `timer()` surrounds the building of every map, whoever asks for it: for benchmarks."""
    global _building
    before, _building = _building, timer
    try:
        yield
    finally:
        _building = before


@dataclass(frozen=True)
class Geometry:
    """Which voxels a map joins, by their sorted keys; a transposed map leads to the smaller stride."""

    input_keys: Tensor
    output_keys: Tensor
    input_stride: int
    output_stride: int
    kernel_size: int
    dilation: int = 1

    @property
    def reverse(self) -> "Geometry":
        strides = self.output_stride, self.input_stride
        return Geometry(self.output_keys, self.input_keys, *strides, self.kernel_size, self.dilation)


@dataclass
class KernelMap:
    """Which input row meets which output row under which kernel offset.

    table (O, M) int32: the input row under each offset and output row, -1 where there is none. An input row
    meets at most one output row per offset.
    """

    table: Tensor
    inputs: int
    is_centred: bool  # an odd kernel of stride 1: rows keep their number, k is the opposite of O - 1 - k
    geometry: Geometry
    plans: dict[Any, Any] = field(default_factory=dict)  # what engines prepared for this map, by their names
    _reverse: "KernelMap | None" = field(default=None, init=False, repr=False)
    _original: "weakref.ref[KernelMap] | None" = field(default=None, init=False, repr=False)

    @property
    def offsets(self) -> int:
        return self.table.shape[0]

    @property
    def outputs(self) -> int:
        return self.table.shape[1]

    @cached_property
    def pairs(self) -> int:
        """How many entries of the table exist."""
        return int((self.table >= 0).sum())

    @property
    def share(self) -> float:
        """How much of the table exists."""
        return self.pairs / self.table.numel()

    @cached_property
    def output_scenes(self) -> Tensor:
        """The scene (M,) int64 of each output row; ascending."""
        return scene_of(self.geometry.output_keys)

    @property
    def reverse(self) -> "KernelMap":
        """The same meetings seen from the input rows, under the offsets as `reverse_offsets` orders them."""
        if self.is_centred:
            return self
        original = self._original() if self._original is not None else None
        if original is not None:
            return original
        if self._reverse is None:
            with _building():
                table = invert(self.table, self.inputs)
            self._reverse = KernelMap(table, self.outputs, False, self.geometry.reverse)
            # Weak: a circle of maps would keep a batch's memory until Python looks for circles.
            self._reverse._original = weakref.ref(self)
        return self._reverse

    def reverse_offsets(self, kernel: Tensor) -> Tensor:
        """A kernel (O, ...) in the order of the reverse map: a centred map is its own reverse, turned."""
        return kernel.flip(0) if self.is_centred else kernel


def invert(table: Tensor, inputs: int) -> Tensor:
    """(O, M) output -> input becomes (O, inputs) input -> output."""
    reverse = table.new_full((table.shape[0], inputs + 1), -1)
    rows = torch.arange(table.shape[1], dtype=table.dtype, device=table.device).expand_as(table)
    # Absent entries are written to one row too many, which is cut off: no waiting for a count.
    reverse.scatter_(1, torch.where(table < 0, inputs, table).long(), rows)
    return reverse[:, :inputs].contiguous()


class CoordinateManager:
    """All levels of one batch and all maps between them, each built when first asked for and then kept.

    `built` counts what was built, under the same names as the caches.
    """

    def __init__(self, coordinates: Tensor):
        keys = pack(coordinates)
        sorted_keys, order = torch.sort(keys)
        _refuse_duplicates(sorted_keys, order, coordinates)
        is_canonical = bool((order[1:] > order[:-1]).all())
        self.order = None if is_canonical else order  # row in canonical order -> the caller's row
        self.inverse = None if is_canonical else _inverse(order)
        self.built: dict[tuple, int] = {}
        self._keys: dict[int, Tensor] = {1: sorted_keys}
        self._parents: dict[int, Tensor] = {}
        self._coordinates: dict[int, Tensor] = {}
        self._maps: dict[tuple[int, int, int, int], KernelMap] = {}

    def keys(self, stride: int) -> Tensor:
        """The sorted keys of the level; a voxel of a coarser level has its corner's coordinates."""
        if stride not in self._keys:
            if stride > COARSEST_STRIDE:
                raise InputError(
                    f"stride {stride} is not supported; the coarsest level has {COARSEST_STRIDE}"
                )
            fine = self.keys(stride // 2)
            self._keys[stride], self._parents[stride // 2] = torch.unique_consecutive(
                parents_of(fine, stride // 2), return_inverse=True
            )
            self._count("keys", stride)
        return self._keys[stride]

    def parents(self, stride: int) -> Tensor:
        """For each row of the level `stride` the row (M,) int64 of its parent."""
        self.keys(2 * stride)
        return self._parents[stride]

    def coordinates(self, stride: int) -> Tensor:
        """(M, 4) int32 in canonical order."""
        if stride not in self._coordinates:
            self._coordinates[stride] = unpack(self.keys(stride))
            self._count("coordinates", stride)
        return self._coordinates[stride]

    def map(self, stride: int, kernel_size: int, kernel_stride: int, dilation: int = 1) -> KernelMap:
        """The map of a convolution from the level `stride` to `stride * kernel_stride`."""
        name = (stride, kernel_size, kernel_stride, dilation)
        if name not in self._maps:
            if kernel_size == 1:  # the rows themselves are nothing to build
                keys = self.keys(stride)
                table = torch.arange(len(keys), dtype=torch.int32, device=keys.device)[None]
            else:
                with _building():
                    table = self._table(stride, kernel_size, kernel_stride, dilation)
                self._count("map", *name)
            output_stride = stride * kernel_stride
            inputs, outputs = self.keys(stride), self.keys(output_stride)
            geometry = Geometry(inputs, outputs, stride, output_stride, kernel_size, dilation)
            is_centred = kernel_stride == 1
            self._maps[name] = KernelMap(table, len(inputs), is_centred, geometry)
        return self._maps[name]

    def _count(self, *name: Any) -> None:
        self.built[name] = self.built.get(name, 0) + 1

    def _table(self, stride: int, kernel_size: int, kernel_stride: int, dilation: int) -> Tensor:
        if kernel_stride == kernel_size == 2:
            return self._children_table(stride)
        if kernel_stride == 1:
            return self._neighbour_table(stride, kernel_size, dilation)
        return self._strided_table(stride, kernel_size, kernel_stride)

    def _neighbour_table(self, stride: int, kernel_size: int, dilation: int) -> Tensor:
        reach = kernel_size // 2 * dilation
        if reach * stride >= AXIS_LIMIT:
            raise InputError(
                f"kernel_size {kernel_size}, dilation {dilation} at stride {stride} reaches {reach * stride}"
                f" voxels; the limit is {AXIS_LIMIT - 1}"
            )
        is_small = len(self.keys(stride)) <= SEARCHED_ROWS
        if is_small or reach > DESCENT_REACH or 4 * stride >= AXIS_LIMIT:
            return self._searched_table(stride, kernel_size, dilation)
        return self._descended_table(stride, kernel_size, dilation)

    def _searched_table(self, stride: int, kernel_size: int, dilation: int) -> Tensor:
        """Half of the offsets is searched; the opposite half is the same meetings read backwards."""
        keys, coordinates = self.keys(stride), self.coordinates(stride).long()
        offsets = kernel_offsets(kernel_size, stride * dilation)
        half = len(offsets) // 2
        table = torch.full((len(offsets), len(keys)), -1, dtype=torch.int32, device=keys.device)
        table[half] = torch.arange(len(keys), device=keys.device)
        for index in range(half):
            step = torch.tensor((0, *offsets[index]), device=keys.device)
            position, found = _find(keys, pack_unchecked(coordinates + step))
            row = found.nonzero()[:, 0]
            neighbour = position[row]
            table[index, row] = neighbour.int()
            table[-1 - index, neighbour] = row.int()
        return table

    def _descended_table(self, stride: int, kernel_size: int, dilation: int) -> Tensor:
        """No search: a neighbour is a child of one of the parent's 27 neighbours; look it up there."""
        keys, parents = self.keys(stride), self.parents(stride).int()
        parent_table = self.map(2 * stride, 3, 1).table
        rows = parent_table.shape[1]
        # Where there is no such parent, the children of row `rows` are looked up: there are none.
        parent_table = torch.where(parent_table < 0, rows, parent_table).view(-1)
        children = torch.nn.functional.pad(self.map(stride, 2, 2).table, (0, 1), value=-1).view(-1)

        parent_offset, child = (part.to(keys.device) for part in _descent(kernel_size, dilation))
        octant = octant_of(keys, stride)
        table = torch.empty(len(child), len(keys), dtype=torch.int32, device=keys.device)
        for start in range(0, len(child), kernel_size**2):
            part = slice(start, start + kernel_size**2)
            place = (parent_offset[part] * rows).index_select(1, octant).add_(parents)
            neighbour = parent_table.index_select(0, place.view(-1)).view_as(place)
            neighbour += (child[part] * (rows + 1)).index_select(1, octant)
            torch.index_select(children, 0, neighbour.view(-1), out=table[part].view(-1))
        return table

    def _children_table(self, stride: int) -> Tensor:
        """A voxel's octant is its number among its parent's children: no search."""
        keys, outputs = self.keys(stride), self.keys(2 * stride)
        table = torch.full((8, len(outputs)), -1, dtype=torch.int32, device=keys.device)
        rows = torch.arange(len(keys), dtype=torch.int32, device=keys.device)
        table[octant_of(keys, stride), self.parents(stride)] = rows
        return table

    def _strided_table(self, stride: int, kernel_size: int, kernel_stride: int) -> Tensor:
        keys, outputs = self.keys(stride), self.coordinates(stride * kernel_stride).long()
        offsets = kernel_offsets(kernel_size, stride)
        table = torch.full((len(offsets), len(outputs)), -1, dtype=torch.int32, device=keys.device)
        for index, offset in enumerate(offsets):
            step = torch.tensor((0, *offset), device=keys.device)
            position, found = _find(keys, pack_unchecked(outputs + step))
            table[index] = torch.where(found, position, -1)
        return table


def _descent(kernel_size: int, dilation: int) -> tuple[Tensor, Tensor]:
    """For each offset and octant (O, 8) int32: the parent's neighbour to ask, and its child to take."""
    offsets = torch.tensor(kernel_offsets(kernel_size, dilation))
    octants = torch.tensor(kernel_offsets(2, 1))
    target = offsets[:, None] + octants
    parent = target.div(2, rounding_mode="floor") + 1
    weights = torch.tensor((1, 3, 9)), torch.tensor((1, 2, 4))
    return (parent * weights[0]).sum(2).int(), (target % 2 * weights[1]).sum(2).int()


def _find(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (M,) int64 of `wanted` in the sorted `keys`, and whether each is there."""
    position = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return position, keys[position] == wanted


def _inverse(order: Tensor) -> Tensor:
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return inverse


def _refuse_duplicates(sorted_keys: Tensor, order: Tensor, coordinates: Tensor) -> None:
    repeated = (sorted_keys[1:] == sorted_keys[:-1]).nonzero()
    if len(repeated):
        row = order[repeated[0, 0]]
        raise InputError(
            f"coordinates: {coordinates[row].tolist()} occurs more than once; rows must be distinct"
            f" ({len(repeated)} rows too many)"
        )
