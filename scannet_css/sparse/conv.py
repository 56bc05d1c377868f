"""Sparse convolution as an autograd function: forward, gradients of the features and of the kernel."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scannet_css.sparse.engines.choice import engine_for
from scannet_css.sparse.maps import KernelMap


class SparseConvolution(torch.autograd.Function):
    """out[m] = sum over offsets k of features[map.table[k, m]] @ kernel[k].

    features (N, Cin), kernel (O, Cin, Cout) -> (M, Cout) of the features' type. The kernel's gradient has the
    kernel's type and is never rounded to the features' half precision. Differentiable once.
    """

    @staticmethod
    def forward(ctx, features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.kernel_map = kernel_map
        engine = engine_for(features.device, features.dtype)
        return engine.convolve(features, kernel.to(features.dtype), kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        features, kernel = ctx.saved_tensors
        needs_features, needs_kernel, _ = ctx.needs_input_grad
        engine = engine_for(features.device, features.dtype)
        grad_features, grad_kernel = engine.gradients(
            features,
            kernel.to(features.dtype),
            gradient.contiguous(),
            ctx.kernel_map,
            needs_features,
            needs_kernel,
        )
        return grad_features, None if grad_kernel is None else grad_kernel.to(kernel.dtype), None


def convolve(features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    """As SparseConvolution; under autocast the operands are taken to its type."""
    features, is_cast = _autocast(features)
    if features.dtype != kernel.dtype and not is_cast:
        raise TypeError(f"features are {features.dtype}, but the kernel is {kernel.dtype}")
    return SparseConvolution.apply(features, kernel, kernel_map)


def convolve_without_gradient(
    features: Tensor,
    kernel: Tensor,
    kernel_map: KernelMap,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> Tensor:
    """relu(convolution + bias (Cout,) + residual (M, Cout)) in one pass over the output."""
    features, _ = _autocast(features)
    engine = engine_for(features.device, features.dtype)
    return engine.convolve(features, kernel.to(features.dtype), kernel_map, bias, residual, relu)


def runs_pointwise(features: Tensor) -> bool:
    """Whether the engine in use takes the 1^3 layers too."""
    engine = engine_for(features.device, _autocast_type(features) or features.dtype)
    return getattr(engine, "RUNS_POINTWISE", False)


def _autocast_type(features: Tensor) -> torch.dtype | None:
    device = features.device.type
    if not torch.is_autocast_enabled(device) or features.dtype == torch.float64:
        return None
    return torch.get_autocast_dtype(device)


def _autocast(features: Tensor) -> tuple[Tensor, bool]:
    dtype = _autocast_type(features)
    return (features, False) if dtype is None else (features.to(dtype), True)
