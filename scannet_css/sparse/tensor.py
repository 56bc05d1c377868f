"""Sparse tensors, and the coordinates and kernel maps they share: built once per batch, for all layers.

A voxel's coordinates (scene, x, y, z) are packed into one int64 key, whose order is the coordinates' own
(lexicographic). Inside the engine rows are in that *canonical* order; `order` takes the caller's rows there
and `inverse` back, so no result depends on the order in which the rows came.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scannet_css.errors import InputError

AXIS_BITS = 18  # a key is scene (9 bits) | x (18) | y (18) | z (18): the sign bit stays free
AXIS_LIMIT = 1 << (
    AXIS_BITS - 2
)  # half of an axis' range is margin, so that no neighbour's key can spill over
SCENE_LIMIT = 1 << (63 - 3 * AXIS_BITS)
AXIS_SHIFTS = (2 * AXIS_BITS, AXIS_BITS, 0)
AXIS_MASK = (1 << AXIS_BITS) - 1
AXIS_BIAS = 1 << (AXIS_BITS - 1)


def pack(coordinates: Tensor) -> Tensor:
    """Coordinates (N, 4) of any integer type -> keys (N,) int64; InputError names what does not fit."""
    scene, *axes = coordinates.to(torch.int64).unbind(1)
    _check_range(scene, "scene", 0, SCENE_LIMIT)
    key = scene << (3 * AXIS_BITS)
    for axis, shift, name in zip(axes, AXIS_SHIFTS, "xyz", strict=True):
        _check_range(axis, name, -AXIS_LIMIT, AXIS_LIMIT)
        key |= (axis + AXIS_BIAS) << shift
    return key


def unpack(keys: Tensor) -> Tensor:
    """The coordinates (N, 4) int32 of keys (N,)."""
    axes = [((keys >> shift) & AXIS_MASK) - AXIS_BIAS for shift in AXIS_SHIFTS]
    return torch.stack([keys >> (3 * AXIS_BITS), *axes], dim=1).to(torch.int32)


def _check_range(values: Tensor, name: str, lowest: int, limit: int) -> None:
    smallest, largest = (int(value) for value in torch.aminmax(values))
    if smallest < lowest or largest >= limit:
        wrong = smallest if smallest < lowest else largest
        raise InputError(f"coordinates: {name} = {wrong} is outside of [{lowest}, {limit - 1}]")


def kernel_offsets(kernel_size: int, step: int) -> list[tuple[int, int, int]]:
    """The kernel's taps (x, y, z) in units of the finest voxel, x fastest, as MinkowskiEngine numbers them.

    Odd kernels are centred, even ones start at 0.
    """
    first = -(kernel_size // 2) if kernel_size % 2 else 0
    taps = [step * tap for tap in range(first, first + kernel_size)]
    return [(x, y, z) for z in taps for y in taps for x in taps]


def _key_step(offset: tuple[int, int, int]) -> int:
    return sum(tap << shift for tap, shift in zip(offset, AXIS_SHIFTS, strict=True))


@dataclass
class KernelMap:
    """Which input row meets which output row under which kernel offset.

    table (O, M) int32: the input row under each offset and output row, -1 where there is none. An input row
    meets at most one output row per offset.
    """

    table: Tensor
    inputs: int
    is_centred: (
        bool  # an odd kernel of stride 1: rows keep their number, offset k is the opposite of O - 1 - k
    )
    plans: dict[Any, Any] = field(
        default_factory=dict
    )  # what a kernel prepared for this map; see kernels_torch

    @property
    def offsets(self) -> int:
        return self.table.shape[0]

    @property
    def outputs(self) -> int:
        return self.table.shape[1]

    @cached_property
    def share(self) -> float:
        """How much of the table exists."""
        return float((self.table >= 0).sum()) / self.table.numel()

    @cached_property
    def reverse(self) -> "KernelMap":
        """The same meetings seen from the input rows, under the offsets as `reverse_offsets` orders them."""
        if self.is_centred:
            return self
        return KernelMap(invert(self.table, self.inputs), self.outputs, False)

    def reverse_offsets(self, kernel: Tensor) -> Tensor:
        """A kernel (O, ...) in the order of the reverse map: a centred map is its own reverse, turned."""
        return kernel.flip(0) if self.is_centred else kernel


def invert(table: Tensor, inputs: int) -> Tensor:
    """(O, M) output -> input becomes (O, inputs) input -> output."""
    reverse = table.new_full((table.shape[0], inputs), -1)
    offset, row = (table >= 0).nonzero(as_tuple=True)
    reverse[offset, table[offset, row].long()] = row.to(table.dtype)
    return reverse


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
        self.inverse = None if is_canonical else torch.argsort(order)
        self.built: dict[tuple, int] = {}
        self._keys: dict[int, Tensor] = {1: sorted_keys}
        self._parents: dict[int, Tensor] = {}
        self._coordinates: dict[int, Tensor] = {}
        self._maps: dict[tuple[int, int, int, int], KernelMap] = {}

    def keys(self, stride: int) -> Tensor:
        """The sorted keys of the level; a voxel of a coarser level has its corner's coordinates."""
        if stride not in self._keys:
            fine = self.keys(stride // 2)
            corner_bits = _key_step((stride - 1,) * 3)
            self._keys[stride], self._parents[stride // 2] = torch.unique(
                fine & ~corner_bits, return_inverse=True
            )
            self._count("keys", stride)
        return self._keys[stride]

    def coordinates(self, stride: int) -> Tensor:
        """(M, 4) int32 in canonical order."""
        if stride not in self._coordinates:
            self._coordinates[stride] = unpack(self.keys(stride))
            self._count("coordinates", stride)
        return self._coordinates[stride]

    def has(self, stride: int) -> bool:
        return stride in self._keys

    def map(self, stride: int, kernel_size: int, kernel_stride: int, dilation: int = 1) -> KernelMap:
        """The map of a convolution from the level `stride` to `stride * kernel_stride`."""
        name = (stride, kernel_size, kernel_stride, dilation)
        if name not in self._maps:
            if kernel_stride == kernel_size == 2:
                self._maps[name] = self._children_map(stride)
            elif kernel_stride == 1:
                self._maps[name] = self._neighbour_map(stride, kernel_size, dilation)
            else:
                self._maps[name] = self._strided_map(stride, kernel_size, kernel_stride)
            self._count("map", *name)
        return self._maps[name]

    def _count(self, *name: Any) -> None:
        self.built[name] = self.built.get(name, 0) + 1

    def _neighbour_map(self, stride: int, kernel_size: int, dilation: int) -> KernelMap:
        """Half of the offsets is searched; the opposite half is the same meetings read backwards.

        A voxel's neighbours in one column follow each other in key order, so a column takes one search
        (unless dilation leaves gaps), and the voxel's own column none: there the next row is the candidate.
        """
        keys, step = self.keys(stride), stride * dilation
        radius = kernel_size // 2
        if radius * step >= AXIS_LIMIT:
            raise InputError(
                f"kernel_size {kernel_size}, dilation {dilation} at stride {stride} reaches {radius * step}"
                f" voxels; the limit is {AXIS_LIMIT - 1}"
            )
        offsets = kernel_offsets(kernel_size, step)
        rows = torch.arange(len(keys), device=keys.device)
        table = torch.full((len(offsets), len(keys)), -1, dtype=torch.int32, device=keys.device)
        table[len(offsets) // 2] = rows
        position = None
        for offset in sorted(offset for offset in offsets if offset > (0, 0, 0)):
            wanted = keys + _key_step(offset)
            is_own_column = offset == (0, 0, step)
            if is_own_column and dilation == 1:
                position = rows + 1
            elif dilation > 1 or offset[2] == -radius * step:
                position = torch.searchsorted(keys, wanted)
            candidate = position.clamp(max=len(keys) - 1)
            found = keys.index_select(0, candidate) == wanted
            position = position + found
            row = found.nonzero()[:, 0]
            neighbour = candidate[row]
            index = offsets.index(offset)
            table[index, row] = neighbour.int()
            table[-1 - index, neighbour] = row.int()
        return KernelMap(table, len(keys), is_centred=True)

    def _children_map(self, stride: int) -> KernelMap:
        """A voxel's corner bits are its number among its parent's children: no search."""
        parent_keys = self.keys(2 * stride)
        keys, parents = self._keys[stride], self._parents[stride]
        bits = [((keys >> shift) // stride) & 1 for shift in AXIS_SHIFTS]
        child = bits[0] + 2 * bits[1] + 4 * bits[2]
        table = torch.full((8, len(parent_keys)), -1, dtype=torch.int32, device=keys.device)
        table[child, parents] = torch.arange(len(keys), dtype=torch.int32, device=keys.device)
        return KernelMap(table, len(keys), is_centred=False)

    def _strided_map(self, stride: int, kernel_size: int, kernel_stride: int) -> KernelMap:
        outputs, keys = self.keys(stride * kernel_stride), self.keys(stride)
        offsets = kernel_offsets(kernel_size, stride)
        table = torch.full((len(offsets), len(outputs)), -1, dtype=torch.int32, device=keys.device)
        for index, offset in enumerate(offsets):
            position, found = _find(keys, outputs + _key_step(offset))
            table[index, found] = position[found].int()
        return KernelMap(table, len(keys), is_centred=False)


def _find(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (M,) int64 of `wanted` in the sorted `keys`, and whether each is there."""
    position = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return position, keys[position] == wanted


def _refuse_duplicates(sorted_keys: Tensor, order: Tensor, coordinates: Tensor) -> None:
    repeated = (sorted_keys[1:] == sorted_keys[:-1]).nonzero()
    if len(repeated):
        row = order[repeated[0, 0]]
        raise InputError(
            f"coordinates: {coordinates[row].tolist()} occurs more than once; rows must be distinct"
            f" ({len(repeated)} rows too many)"
        )


class SparseTensor:
    """Features (N, C) at the voxels of a batch.

    features: float. coordinates (N, 4): integer scene, x, y, z in units of the finest voxel; distinct rows,
    in any order. On coarser levels they are multiples of `stride`. Raises InputError for anything else.
    """

    def __init__(self, features: Tensor, coordinates: Tensor):
        _check_input(features, coordinates)
        self.features = features
        self.stride = 1
        self.manager = CoordinateManager(coordinates)
        self._input_coordinates = coordinates
        self._keeps_input_order = self.manager.order is not None

    def _derive(self, features: Tensor, stride: int, keeps_input_order: bool) -> "SparseTensor":
        other = object.__new__(SparseTensor)
        other.__dict__.update(self.__dict__)
        other.features, other.stride, other._keeps_input_order = features, stride, keeps_input_order
        return other

    @property
    def coordinates(self) -> Tensor:
        """(M, 4), row by row those of `features`."""
        if self.stride == 1 and self._keeps_input_order:
            return self._input_coordinates
        return self.manager.coordinates(self.stride)

    def with_features(self, features: Tensor) -> "SparseTensor":
        """Other features at the same voxels; all coordinate work is shared."""
        if len(features) != len(self.features):
            raise InputError(f"features: {len(features)} rows for {len(self.features)} voxels")
        return self._derive(features, self.stride, self._keeps_input_order)

    def at_stride(self, features: Tensor, stride: int) -> "SparseTensor":
        """Canonical features at another level of the batch; the finest level gets its own order back."""
        if stride == 1 and self._keeps_input_order:
            features = Permute.apply(features, self.manager.inverse, self.manager.order)
        return self._derive(features, stride, self._keeps_input_order)

    def canonical_features(self) -> Tensor:
        """The features in canonical row order."""
        if self.stride == 1 and self._keeps_input_order:
            return Permute.apply(self.features, self.manager.order, self.manager.inverse)
        return self.features

    def in_canonical_order(self) -> "SparseTensor":
        """The same voxels with their rows in canonical order, also on the way back from coarser levels."""
        return self._derive(self.canonical_features(), self.stride, False)

    def in_order_of(self, other: "SparseTensor") -> "SparseTensor":
        """The finest level's rows as `other`, of the same batch, has them."""
        return other.at_stride(self.canonical_features(), self.stride)

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        return f"SparseTensor({tuple(self.features.shape)}, stride={self.stride}, {self.features.dtype})"


class Permute(torch.autograd.Function):
    """Rows in another order; the gradient is a gather too, where indexing would add into zeros."""

    @staticmethod
    def forward(ctx, features: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return features.index_select(0, order)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        order, inverse = ctx.saved_tensors
        return Permute.apply(gradient, inverse, order), None, None


def _check_input(features: Tensor, coordinates: Tensor) -> None:
    if coordinates.dim() != 2 or coordinates.shape[1] != 4:
        raise InputError(f"coordinates: shape {tuple(coordinates.shape)}, expected (N, 4): scene, x, y, z")
    if coordinates.is_floating_point() or coordinates.is_complex() or coordinates.dtype == torch.bool:
        raise InputError(f"coordinates: {coordinates.dtype}, expected integers (voxelise the points first)")
    if features.dim() != 2 or not features.is_floating_point():
        raise InputError(f"features: {features.dtype} {tuple(features.shape)}, expected float (N, C)")
    if len(features) != len(coordinates):
        raise InputError(f"features: {len(features)} rows, but coordinates: {len(coordinates)} rows")
    if len(coordinates) == 0:
        raise InputError("coordinates: 0 rows, expected at least one voxel")
    if features.device != coordinates.device:
        raise InputError(f"features are on {features.device}, but coordinates on {coordinates.device}")
