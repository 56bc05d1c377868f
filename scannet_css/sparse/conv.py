"""Sparse convolution as an autograd function: forward, gradients of the features and of the kernel."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scannet_css.sparse import kernels_torch
from scannet_css.sparse.tensor import KernelMap


class SparseConvolution(torch.autograd.Function):
    """out[m] = sum over offsets k of features[map.table[k, m]] @ kernel[k].

    features (N, Cin), kernel (O, Cin, Cout) of one dtype -> (M, Cout). Differentiable once.
    """

    @staticmethod
    def forward(ctx, features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.kernel_map = kernel_map
        return kernels_torch.convolve(features, kernel, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        features, kernel = ctx.saved_tensors
        needs_features, needs_kernel, _ = ctx.needs_input_grad
        grad_features, grad_kernel = kernels_torch.gradients(
            features, kernel, gradient.contiguous(), ctx.kernel_map, needs_features, needs_kernel
        )
        return grad_features, grad_kernel, None


def convolve(features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    """As SparseConvolution; under autocast both operands are taken to its type first."""
    device = features.device.type
    if torch.is_autocast_enabled(device) and features.dtype != torch.float64:
        kind = torch.get_autocast_dtype(device)
        features, kernel = features.to(kind), kernel.to(kind)
    if features.dtype != kernel.dtype:
        raise TypeError(f"features are {features.dtype}, but the kernel is {kernel.dtype}")
    return SparseConvolution.apply(features, kernel, kernel_map)
