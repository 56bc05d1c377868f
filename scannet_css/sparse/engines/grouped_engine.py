"""Sparse convolution with torch's grouped matrix product, on any device: few launches, whatever the map.

In chunks of output rows: one gather of the existing pairs ordered by offset, one grouped product, one
embedding bag that adds up each output row's products in the order of the offsets. No atomics: the same bits
every time. In half precision each product is rounded before it is added; the kernel's gradient is made in
float32.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.sparse.maps import KernelMap
from scannet_css.sparse.pairs import Pairs, pairs_of
from scannet_css.sparse.tail import finished

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
ALIGNMENT = 16  # bytes: every row of an operand must begin at a multiple
TABLE_ENTRIES = 1 << 23  # of the map's table, so many are looked at together


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this torch has no such product there; None if it has. It is tried out: versions differ."""
    if not hasattr(F, "grouped_mm"):
        return f"torch {torch.__version__} has no grouped_mm"
    if dtype not in DTYPES:
        return "grouped_mm computes float16, bfloat16 and float32"
    x, kernel = (
        torch.ones(16, 16, device=device, dtype=dtype),
        torch.ones(2, 16, 16, device=device, dtype=dtype),
    )
    ends = torch.tensor([16, 16], dtype=torch.int32, device=device)
    try:
        product = F.grouped_mm(x, kernel, offs=ends)
        gradient = F.grouped_mm(x.float().t(), x.float(), offs=ends)
    except RuntimeError as error:
        return f"grouped_mm: {str(error).splitlines()[0]}"
    is_right = (product == 16).all() and (gradient[0] == 16).all() and (gradient[1] == 0).all()
    return None if is_right else "grouped_mm gives wrong results"


def convolve(
    features: Tensor,
    kernel: Tensor,
    kernel_map: KernelMap,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """features (N, Cin), kernel (O, Cin, Cout) -> relu(sum + bias + residual) (M, Cout)."""
    out_channels = kernel.shape[2]
    features, kernel = _aligned(features), _aligned(kernel)
    kernel = F.pad(kernel, (0, 0, 0, features.shape[1] - kernel.shape[1]))
    out = features.new_empty(kernel_map.outputs, out_channels)
    for pairs, ends in _pairs(kernel_map):
        products = F.grouped_mm(features.index_select(0, pairs.sources), kernel, offs=ends)
        total = F.embedding_bag(pairs.members, products, pairs.starts, mode="sum")
        out[pairs.rows] = total[:, :out_channels]
    return finished(out, bias, residual, relu)


def gradients(
    features: Tensor,
    kernel: Tensor,
    gradient: Tensor,
    kernel_map: KernelMap,
    needs_features: bool,
    needs_kernel: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of features and kernel (float32) from that of the output (M, Cout); None if not needed."""
    grad_features = grad_kernel = None
    if needs_features:
        turned = kernel_map.reverse_offsets(kernel).transpose(1, 2)
        grad_features = convolve(gradient, turned, kernel_map.reverse)
    if needs_kernel:
        grad_kernel = _kernel_gradient(features, gradient, kernel_map)
    return grad_features, grad_kernel


def _kernel_gradient(features: Tensor, gradient: Tensor, kernel_map: KernelMap) -> Tensor:
    in_channels, out_channels = features.shape[1], gradient.shape[1]
    features, gradient = _aligned(features), _aligned(gradient)
    shape = kernel_map.offsets, features.shape[1], gradient.shape[1]
    total = features.new_zeros(shape, dtype=torch.float32)
    for pairs, ends in _pairs(kernel_map):
        left = features.index_select(0, pairs.sources).float()
        right = gradient.index_select(0, pairs.targets).float()
        total += F.grouped_mm(left.t(), right, offs=ends)
    return total[:, :in_channels, :out_channels]


def _aligned(x: Tensor) -> Tensor:
    """x with zeros as further columns, so that its rows begin where grouped_mm wants them."""
    x = x.contiguous()
    step = ALIGNMENT // x.element_size()
    return F.pad(x, (0, -x.shape[-1] % step))


def _pairs(kernel_map: KernelMap) -> Iterator[tuple[Pairs, Tensor]]:
    """The map's pairs in slices, and where each offset's end (O,) int32."""
    for pairs in pairs_of(kernel_map, max(1, TABLE_ENTRIES // kernel_map.offsets)):
        yield pairs, pairs.counts.cumsum(0).int()
