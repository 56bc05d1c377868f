"""Sparse convolution by our own kernels for the CPU, native.cpp: the pairs that exist and nothing else.

In float32; the same bits on any number of threads. Where there is no library, `unavailable` says why, and
torch's engine runs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scannet_css.errors import InputError
from scannet_css.sparse.engines.native_library import Layer, Pairs, Tail, address, library, scratch, threads
from scannet_css.sparse.engines.native_norm import NativeBatchNorm
from scannet_css.sparse.maps import KernelMap

BatchNorm = NativeBatchNorm
RUNS_POINTWISE = True  # a matrix product of torch's depends on the number of threads
BLOCK_ROWS = 128  # as in native.cpp


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why it cannot run there; None if it can."""
    if device.type != "cpu" or dtype != torch.float32:
        return "it computes float32 on cpu"
    return library().reason


def convolve(
    features: Tensor,
    kernel: Tensor,
    kernel_map: KernelMap,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """features (N, Cin), kernel (O, Cin, Cout) -> relu(sum + bias + residual) (M, Cout)."""
    layer = Layer(kernel.shape[1], kernel.shape[2], False, False)
    return _convolve(features, kernel, kernel_map, layer, bias, residual, relu)


def gradients(
    features: Tensor,
    kernel: Tensor,
    gradient: Tensor,
    kernel_map: KernelMap,
    needs_features: bool,
    needs_kernel: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of features and kernel from that of the output (M, Cout); None for what is not needed."""
    grad_features = grad_kernel = None
    if needs_features:  # a centred map is its own reverse, turned
        layer = Layer(kernel.shape[2], kernel.shape[1], True, kernel_map.is_centred)
        grad_features = _convolve(gradient, kernel, kernel_map.reverse, layer)
    if needs_kernel:
        grad_kernel = _kernel_gradient(features, kernel, gradient, kernel_map)
    return grad_features, grad_kernel


def _convolve(
    features: Tensor,
    kernel: Tensor,
    kernel_map: KernelMap,
    layer: Layer,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    plan = _plan(kernel_map)
    out = features.new_empty(kernel_map.outputs, layer.output)
    features, kernel = features.contiguous(), kernel.contiguous()
    bias, residual = (None if x is None else x.contiguous() for x in (bias, residual))
    _check(features, (kernel_map.inputs, layer.input))
    channels = (layer.output, layer.input) if layer.is_transposed else (layer.input, layer.output)
    _check(kernel, (kernel_map.offsets, *channels))
    _check(bias, (layer.output,))
    _check(residual, (kernel_map.outputs, layer.output))
    functions, number = library().functions, threads()
    functions.convolve(
        features.data_ptr(),
        kernel.data_ptr(),
        plan.pairs,
        layer,
        Tail(address(bias), address(residual), relu),
        out.data_ptr(),
        scratch(functions.scratch_numbers(plan.pairs, layer, number)),
        number,
    )
    return out


def _kernel_gradient(features: Tensor, kernel: Tensor, gradient: Tensor, kernel_map: KernelMap) -> Tensor:
    plan = _plan(kernel_map)
    layer = Layer(kernel.shape[1], kernel.shape[2], False, False)
    features, gradient = features.contiguous(), gradient.contiguous()
    _check(features, (kernel_map.inputs, layer.input))
    _check(gradient, (kernel_map.outputs, layer.output))
    total = torch.empty(kernel.shape, dtype=torch.float32)
    functions, number = library().functions, threads()
    functions.kernel_gradient(
        features.data_ptr(),
        gradient.data_ptr(),
        plan.pairs,
        layer,
        total.data_ptr(),
        scratch(functions.scratch_numbers(plan.pairs, layer, number)),
        number,
    )
    return total


def _check(x: Tensor | None, shape: tuple[int, ...]) -> None:
    """The library reads what it is told to: nothing else may arrive there."""
    if x is not None and (x.shape != shape or x.dtype != torch.float32):
        raise ValueError(f"{x.dtype} {tuple(x.shape)}, expected torch.float32 {tuple(shape)}")


@dataclass
class Plan:
    """A map's pairs by (offset, output row), P of them."""

    pairs: Pairs  # what the library gets: addresses of the tensors below
    sources: Tensor  # (P + 1,) int32 input rows
    targets: Tensor  # (P + 1,) int32 output rows
    starts: Tensor  # (O, blocks + 1) int64 where the pairs of an offset in a block of rows begin; and the end


def _plan(kernel_map: KernelMap) -> Plan:
    if "native" not in kernel_map.plans:
        kernel_map.plans["native"] = _prepare(kernel_map)
    return kernel_map.plans["native"]


def _prepare(kernel_map: KernelMap) -> Plan:
    """Raises InputError for a table with an entry that is no input row."""
    table = kernel_map.table.contiguous()
    offsets, outputs = table.shape
    blocks = -(-outputs // BLOCK_ROWS)
    starts = torch.empty(offsets, blocks + 1, dtype=torch.int64)
    pairs = Pairs(None, None, starts.data_ptr(), offsets, blocks, outputs)
    functions = library().functions
    count = functions.count_pairs(table.data_ptr(), kernel_map.inputs, pairs, starts.data_ptr())
    if count < 0:
        raise InputError(f"kernel map: an entry is not -1 and no row of the {kernel_map.inputs} inputs")
    sources, targets = (torch.empty(count + 1, dtype=torch.int32) for _ in range(2))
    functions.fill_pairs(table.data_ptr(), pairs, sources.data_ptr(), targets.data_ptr())
    pairs.sources, pairs.targets = sources.data_ptr(), targets.data_ptr()
    return Plan(pairs, sources, targets, starts)
