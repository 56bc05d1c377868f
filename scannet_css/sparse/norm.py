"""Batch normalisation of a training step on the CPU, with exact statistics.

torch adds up a column in float32 one row after the other: at 100k voxels the output is off by 1e-5 of its
largest value, and changes with the number of threads. Pairwise sums, as torch's own reductions take them,
leave 1e-7 for a tenth more time.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scannet_css.sparse.engines.choice import engine_for
from scannet_css.sparse.tail import finished

CHUNK_NUMBERS = 1 << 17  # of a chunk of rows, which then stays in the cache


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, residual: Tensor | None, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """relu(batch norm + residual) by the engine in use or else by torch; its mean and variance (C,)."""
    of_engine = getattr(engine_for(x.device, x.dtype), "BatchNorm", None)
    if of_engine is not None:
        return of_engine.apply(x, weight, bias, eps, residual, relu)
    out, mean, variance = ExactBatchNorm.apply(x, weight, bias, eps)
    return finished(out, None, residual, relu), mean, variance


class ExactBatchNorm(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the rows of x (N, C); weight, bias (C,).

    Gives the output, mean and biased variance (C,) (Ioffe and Szegedy, Batch Normalization, ICML 2015).
    Differentiable once, by the output.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(0)
        step = max(64, CHUNK_NUMBERS // x.shape[1])
        variance = sum((part - mean).square_().sum(0) for part in x.split(step)) / len(x)
        inverse_deviation = torch.rsqrt(variance + eps)
        scale = weight * inverse_deviation
        ctx.save_for_backward(x, weight, mean, inverse_deviation)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(bias - mean * scale, x, scale), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, *_):
        x, weight, mean, inverse_deviation = ctx.saved_tensors
        arguments = (None, None, mean, inverse_deviation, True, ctx.eps, (True, True, True))
        grads = torch.ops.aten.native_batch_norm_backward(gradient.contiguous(), x, weight, *arguments)
        return *grads, None
