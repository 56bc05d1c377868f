"""Layers on sparse tensors. Names and layouts of the parameters are MinkowskiEngine's."""

import math

import torch
from torch import Tensor, nn

from scannet_css.errors import InputError
from scannet_css.sparse.conv import convolve
from scannet_css.sparse.tensor import SparseTensor

CONVOLUTIONS = ((1, 1), (3, 1), (5, 1), (2, 2), (3, 2))  # (kernel size, stride)


class _Convolution(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, bias: bool, fan: int
    ):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = kernel_size, stride
        shape = (
            (in_channels, out_channels) if kernel_size == 1 else (kernel_size**3, in_channels, out_channels)
        )
        bound = 1 / math.sqrt(fan * kernel_size**3)
        self.kernel = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(1, out_channels).uniform_(-bound, bound)) if bias else None

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )

    def _check_channels(self, x: SparseTensor) -> None:
        if x.features.shape[1] != self.kernel.shape[-2]:
            raise InputError(
                f"features: {x.features.shape[1]} channels, the layer takes {self.kernel.shape[-2]}"
            )

    def _with_bias(self, features: Tensor) -> Tensor:
        return features if self.bias is None else features + self.bias


class Conv3d(_Convolution):
    """Sparse 3D convolution: kernel sizes 1, 3, 5 with stride 1 and any dilation, 2 and 3 with stride 2.

    kernel (O, Cin, Cout), (Cin, Cout) for size 1; bias (1, Cout) or None. Stride 1 keeps the rows and their
    order; stride 2 gives one row per occupied coarser voxel, in the engine's canonical order.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
    ):
        if (kernel_size, stride) not in CONVOLUTIONS:
            raise InputError(
                f"kernel_size {kernel_size} with stride {stride} is not supported;"
                f" (size, stride) must be one of {', '.join(map(str, CONVOLUTIONS))}"
            )
        if dilation < 1 or (stride > 1 and dilation > 1):
            raise InputError(
                f"dilation {dilation} with stride {stride} is not supported; expected 1, or stride 1"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, bias, fan=in_channels)
        self.dilation = dilation

    def forward(self, x: SparseTensor) -> SparseTensor:
        self._check_channels(x)
        if self.kernel_size == 1:
            return x.with_features(self._with_bias(x.features @ self.kernel))
        kernel_map = x.manager.map(x.stride, self.kernel_size, self.stride, self.dilation)
        out = convolve(x.canonical_features(), self.kernel, kernel_map)
        return x.at_stride(self._with_bias(out), x.stride * self.stride)


class ConvTranspose3d(_Convolution):
    """The transpose of a 2^3 convolution of stride 2: back to the rows of the finer level of the same batch.

    kernel (8, Cin, Cout), bias (1, Cout) or None. Raises InputError where the batch has no finer level.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 2, stride: int = 2, bias: bool = False
    ):
        if (kernel_size, stride) != (2, 2):
            raise InputError(
                f"a transposed convolution has kernel_size 2 and stride 2, not {kernel_size} and {stride}"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, bias, fan=out_channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        self._check_channels(x)
        if x.stride == 1:
            raise InputError("the transposed convolution needs a finer level, but its input has stride 1")
        stride = x.stride // 2
        kernel_map = x.manager.map(stride, 2, 2).reverse
        return x.at_stride(self._with_bias(convolve(x.features, self.kernel, kernel_map)), stride)


class BatchNorm(nn.Module):
    """Batch normalisation over all voxels of a batch; its parameters are `bn.weight` and `bn.bias`."""

    def __init__(self, channels: int, momentum: float = 0.1):
        super().__init__()
        self.bn = nn.BatchNorm1d(channels, momentum=momentum)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(self.bn(x.features))
