"""Features at the voxels of a batch."""

import torch
from torch import Tensor

from scannet_css.errors import InputError
from scannet_css.sparse.maps import CoordinateManager


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
        if features.device != self.features.device:
            raise InputError(f"features are on {features.device}, but the voxels on {self.features.device}")
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
