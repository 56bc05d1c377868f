"""Layers on sparse tensors. Names and layouts of the parameters are MinkowskiEngine's."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scannet_css.errors import InputError
from scannet_css.sparse.conv import convolve, convolve_without_gradient, runs_pointwise
from scannet_css.sparse.maps import KernelMap
from scannet_css.sparse.norm import batch_norm
from scannet_css.sparse.tail import finished
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

    def _check_input(self, x: SparseTensor) -> None:
        if x.features.shape[1] != self.kernel.shape[-2]:
            raise InputError(
                f"features: {x.features.shape[1]} channels, the layer takes {self.kernel.shape[-2]}"
            )
        if x.features.device != self.kernel.device:
            raise InputError(f"features are on {x.features.device}, but the layer on {self.kernel.device}")

    def _run(
        self,
        features: Tensor,
        kernel_map: KernelMap | None,
        norm: "BatchNorm | None",
        residual: SparseTensor | None,
        relu: bool,
    ) -> Tensor:
        """relu(norm(convolution + bias) + residual), all but the convolution optional; without a map, a 1^3
        convolution is a matrix product."""
        residual = None if residual is None else residual.canonical_features()
        if norm is not None and norm.is_folded:
            norm = None
        if not torch.is_grad_enabled() and not (norm is not None and norm.training):
            return self._run_in_one_pass(features, kernel_map, norm, residual, relu)
        if kernel_map is None:
            out = features @ self.kernel
        else:
            out = convolve(
                features, self.kernel.view(kernel_map.offsets, *self.kernel.shape[-2:]), kernel_map
            )
        if self.bias is not None:
            out = out + self.bias
        if norm is not None:
            return norm.normalise(out, residual, relu)
        return finished(out, None, residual, relu)

    def _run_in_one_pass(
        self,
        features: Tensor,
        kernel_map: KernelMap | None,
        norm: "BatchNorm | None",
        residual: Tensor | None,
        relu: bool,
    ) -> Tensor:
        """The same at inference, where a batch norm is a factor on the kernel and a bias."""
        kernel, bias = self.kernel, self.bias
        if norm is not None:
            kernel, bias = norm.folded(kernel, bias)
        bias = None if bias is None else bias[0]
        if kernel_map is not None:
            kernel = kernel.view(kernel_map.offsets, *kernel.shape[-2:])
            return convolve_without_gradient(features, kernel, kernel_map, bias, residual, relu)
        out = features @ kernel if bias is None else torch.addmm(bias, features, kernel)
        if residual is not None:
            out += residual
        return out.relu_() if relu else out


class Conv3d(_Convolution):
    """Sparse 3D convolution: kernel sizes 1, 3, 5 with stride 1 and any dilation, 2 and 3 with stride 2.

    kernel (O, Cin, Cout), (Cin, Cout) for size 1; bias (1, Cout) or None. Stride 1 keeps the rows and their
    order; stride 2 gives one row per occupied coarser voxel, in the engine's canonical order. Called with a
    batch norm, a residual (of the output's voxels and channels) or relu=True it gives
    relu(norm(convolution) + residual), which at inference is a single pass.
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

    def forward(
        self,
        x: SparseTensor,
        norm: "BatchNorm | None" = None,
        residual: SparseTensor | None = None,
        relu: bool = False,
    ) -> SparseTensor:
        self._check_input(x)
        kernel_map = None
        if self.kernel_size > 1 or runs_pointwise(x.features):
            kernel_map = x.manager.map(x.stride, self.kernel_size, self.stride, self.dilation)
        out = self._run(x.canonical_features(), kernel_map, norm, residual, relu)
        return x.at_stride(out, x.stride * self.stride)


class ConvTranspose3d(_Convolution):
    """The transpose of a 2^3 convolution of stride 2: back to the rows of the finer level of the same batch.

    kernel (8, Cin, Cout), bias (1, Cout) or None; norm, residual and relu as in Conv3d. Raises InputError
    where the batch has no finer level.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 2, stride: int = 2, bias: bool = False
    ):
        if (kernel_size, stride) != (2, 2):
            raise InputError(
                f"a transposed convolution has kernel_size 2 and stride 2, not {kernel_size} and {stride}"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, bias, fan=out_channels)

    def forward(
        self,
        x: SparseTensor,
        norm: "BatchNorm | None" = None,
        residual: SparseTensor | None = None,
        relu: bool = False,
    ) -> SparseTensor:
        self._check_input(x)
        if x.stride == 1:
            raise InputError("the transposed convolution needs a finer level, but its input has stride 1")
        stride = x.stride // 2
        kernel_map = x.manager.map(stride, 2, 2).reverse
        return x.at_stride(self._run(x.features, kernel_map, norm, residual, relu), stride)


class BatchNorm(nn.Module):
    """Batch normalisation over all voxels of a batch; its parameters are `bn.weight` and `bn.bias`."""

    def __init__(self, channels: int, momentum: float = 0.1):
        super().__init__()
        self.bn = nn.BatchNorm1d(channels, momentum=momentum)
        self.is_folded = False  # into the convolution before it

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(self.normalise(x.features))

    def normalise(self, features: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """relu(layer + residual) on features (N, C). A single row has no variance: also in training it is
        normalised with the running statistics, and leaves them as they are."""
        bn = self.bn
        if len(features) == 1 and not isinstance(bn, nn.SyncBatchNorm):  # which sees other processes' rows
            running = bn.running_mean, bn.running_var
            out = F.batch_norm(features, *running, bn.weight, bn.bias, training=False, eps=bn.eps)
            return finished(out, None, residual, relu)
        if not self.training or features.device.type != "cpu":
            return finished(bn(features), None, residual, relu)
        out, mean, variance = batch_norm(features, bn.weight, bn.bias, bn.eps, residual, relu)
        unbiased = variance * (len(features) / (len(features) - 1))
        bn.running_mean.lerp_(mean.to(bn.running_mean.dtype), bn.momentum)
        bn.running_var.lerp_(unbiased.to(bn.running_var.dtype), bn.momentum)
        bn.num_batches_tracked += 1
        return out

    def folded(self, kernel: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """kernel (..., Cout) and bias (1, Cout) of the convolution that gives, without this layer, what it
        gives at inference with this layer behind it."""
        factor = self.bn.weight * torch.rsqrt(self.bn.running_var + self.bn.eps)
        shift = self.bn.bias - self.bn.running_mean * factor
        return kernel * factor, shift[None] if bias is None else shift + bias * factor

    @torch.no_grad()
    def fold_into(self, convolution: "Conv3d | ConvTranspose3d") -> None:
        """Takes the layer into the convolution before it, for good; behind that it then does nothing."""
        kernel, bias = self.folded(convolution.kernel, convolution.bias)
        convolution.kernel, convolution.bias = nn.Parameter(kernel), nn.Parameter(bias)
        self.is_folded = True
