"""Batch normalisation of a training step by the native engine, with the residual and ReLU that follow."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scannet_css.sparse.engines.native_library import Tail, address, library, scratch, threads


class NativeBatchNorm(torch.autograd.Function):
    """relu((x - mean) / sqrt(variance + eps) * weight + bias + residual) over the rows of x (N, C), float32.

    weight, bias (C,); residual (N, C) or None. Gives the output, mean and biased variance (C,) (Ioffe and
    Szegedy, Batch Normalization, ICML 2015). Sums are taken in blocks of rows whose number does not depend on
    the threads. Differentiable once, by the output.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, residual: Tensor | None, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
        residual = None if residual is None else residual.contiguous()
        functions, (rows, channels) = library().functions, x.shape
        if weight.shape != (channels,) or bias.shape != (channels,):
            raise ValueError(
                f"weight {tuple(weight.shape)}, bias {tuple(bias.shape)} for {channels} channels"
            )
        if residual is not None and residual.shape != x.shape:
            raise ValueError(f"residual {tuple(residual.shape)} for features {tuple(x.shape)}")
        out = torch.empty_like(x)
        mean, variance, inverse = x.new_empty(3, channels)
        functions.normalise(
            x.data_ptr(),
            rows,
            channels,
            weight.data_ptr(),
            Tail(bias.data_ptr(), address(residual), relu),
            eps,
            *(each.data_ptr() for each in (out, mean, variance, inverse)),
            scratch(2 * functions.norm_scratch(rows, channels)),
            threads(),
        )
        ctx.save_for_backward(x, weight, mean, inverse, out if relu else None)
        ctx.has_residual = residual is not None
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, *_):
        x, weight, mean, inverse, out = ctx.saved_tensors
        functions, (rows, channels), gradient = library().functions, x.shape, gradient.contiguous()
        grad_x, grad_residual = torch.empty_like(x), gradient if ctx.has_residual else None
        if ctx.has_residual and out is not None:
            grad_residual = torch.empty_like(x)
        grad_weight, grad_bias = x.new_empty(2, channels)
        functions.normalise_backward(
            gradient.data_ptr(),
            x.data_ptr(),
            rows,
            channels,
            *map(address, (weight, mean, inverse, out, grad_x)),
            None if out is None else address(grad_residual),
            *map(address, (grad_weight, grad_bias)),
            scratch(2 * functions.norm_scratch(rows, channels)),
            threads(),
        )
        return grad_x, grad_weight, grad_bias, None, grad_residual, None
