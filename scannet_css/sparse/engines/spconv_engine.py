"""spconv's convolutions over our kernel maps, to compare with: pip install spconv, for CUDA spconv-cu126 etc.

Its algorithm Native (gather, product, scatter-add per offset), the only one it has on a CPU. Rows and pairs
are ours, so that nothing but the convolution itself differs. In float16 its gradient of the kernel is rounded
to float16 before it gets here.
"""

import os
from types import ModuleType

import torch
from torch import Tensor

from scannet_css.sparse.maps import KernelMap
from scannet_css.sparse.tail import finished

TYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.float16)}


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why spconv cannot run there; None if it can."""
    try:
        from spconv.cppconstants import CPU_ONLY_BUILD

        _spconv()
    except ImportError as error:
        return f"spconv cannot be imported ({error}); pip install spconv, or spconv-cu126 for CUDA"
    if device.type == "cuda" and CPU_ONLY_BUILD:
        return "the installed spconv was built without CUDA; pip install e.g. spconv-cu126"
    if dtype not in TYPES.get(device.type, ()):
        return "spconv runs float32 on cpu, float32 and float16 on cuda"
    if device.type == "cpu" and os.environ.get("OMP_NUM_THREADS") != "1":
        # 2.3.8: errors of a third of the largest value; its OpenMP runtime is not torch's, so only this helps
        return "spconv's threads overwrite each other's sums on cpu; OMP_NUM_THREADS=1 makes it right"
    return None


def convolve(
    features: Tensor,
    kernel: Tensor,
    kernel_map: KernelMap,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """features (N, Cin), kernel (O, Cin, Cout) -> relu(sum + bias + residual) (M, Cout)."""
    pairs, counts = _plan(kernel_map)
    filters = _filters(kernel)
    out = _spconv().indice_conv(
        features, filters, pairs, counts, kernel_map.outputs, subm=kernel_map.is_centred
    )
    return finished(out, bias, residual, relu)


def gradients(
    features: Tensor,
    kernel: Tensor,
    gradient: Tensor,
    kernel_map: KernelMap,
    needs_features: bool,
    needs_kernel: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of features and kernel, None for what is not needed. spconv always computes both."""
    pairs, counts = _plan(kernel_map)
    grad_features, grad_filters = _spconv().indice_conv_backward(
        features, _filters(kernel), gradient, pairs, counts, subm=kernel_map.is_centred
    )
    grad_kernel = grad_filters.permute(1, 2, 0).float() if needs_kernel else None
    return grad_features if needs_features else None, grad_kernel


def _spconv() -> ModuleType:
    from spconv.pytorch import ops

    if not torch.cuda.is_available():
        # spconv 2.3.8 asks for the current stream on the CPU too, and torch raises where there is no CUDA.
        ops.get_current_stream = lambda: 0
    return ops


def _filters(kernel: Tensor) -> Tensor:
    """(O, Cin, Cout) -> (Cout, O, Cin), spconv's own layout."""
    return kernel.permute(2, 0, 1).contiguous()


def _plan(kernel_map: KernelMap) -> tuple[Tensor, Tensor]:
    """Pairs (2, O, P) int32: input and output rows under each offset, from the left; their counts (O,) int32.

    A centred map's middle offset is left out: spconv takes that as a product of all rows. Of the others it
    reads the counts of the first half only, which are those of their opposites.
    """
    if "spconv" not in kernel_map.plans:
        table = kernel_map.table
        exists = table >= 0
        if kernel_map.is_centred:
            exists[kernel_map.offsets // 2] = False
        counts = exists.sum(1)
        offset, output = exists.nonzero(as_tuple=True)
        place = torch.arange(len(offset), device=table.device) - (counts.cumsum(0) - counts)[offset]
        pairs = table.new_full((2, kernel_map.offsets, max(1, int(counts.max()))), -1)
        pairs[0, offset, place] = table[offset, output]
        pairs[1, offset, place] = output.to(table.dtype)
        kernel_map.plans["spconv"] = pairs, counts.to(torch.int32)
    return kernel_map.plans["spconv"]
