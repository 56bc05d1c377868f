"""Tries an engine out on the machine at hand: its convolution against torch's dense one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.sparse.engines.choice import load_engine
from scannet_css.sparse.tensor import SparseTensor

# Largest error of a working engine; TF32, which torch's switch may allow, stays below as well.
BOUNDS = {torch.float32: 5e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}
SIDE, IN_CHANNELS, OUT_CHANNELS, OCCUPIED = 8, 16, 32, 0.4


def convolution_error(name: str, device: torch.device, dtype: torch.dtype) -> float:
    """Largest error of an engine's 3^3 convolution and its gradients, relative to the largest value.

    Compared with float64 on a dense grid, of which a part is occupied. NaN if the engine gives NaN.
    """
    random = torch.Generator().manual_seed(0)
    occupied = (torch.rand(1, SIDE, SIDE, SIDE, generator=random) < OCCUPIED).nonzero().to(device)
    x = SparseTensor(torch.zeros(len(occupied), 1, device=device), occupied)
    shapes = (len(occupied), IN_CHANNELS), (27, IN_CHANNELS, OUT_CHANNELS), (len(occupied), OUT_CHANNELS)
    features, kernel, gradient = (torch.randn(shape, generator=random).to(device, dtype) for shape in shapes)
    expected = _dense(features, kernel, gradient, x.manager.coordinates(1))
    engine, kernel_map = load_engine(name), x.manager.map(1, 3, 1)
    out = engine.convolve(features, kernel, kernel_map)
    found = (out, *engine.gradients(features, kernel, gradient, kernel_map, True, True))
    errors = [(a.double() - b).abs().max() / b.abs().max() for a, b in zip(found, expected, strict=True)]
    return torch.stack(errors).max().item()


def _dense(features: Tensor, kernel: Tensor, gradient: Tensor, coordinates: Tensor) -> tuple[Tensor, ...]:
    """The convolution at `coordinates` (N, 4) and the gradients for features and kernel, in float64."""
    features, kernel = (tensor.double().requires_grad_() for tensor in (features, kernel))
    rows = coordinates.long().unbind(1)
    grid = features.new_zeros(1, SIDE, SIDE, SIDE, IN_CHANNELS).index_put(rows, features)
    # of a kernel's offsets x runs fastest
    weight = kernel.reshape(3, 3, 3, IN_CHANNELS, OUT_CHANNELS).permute(4, 3, 2, 1, 0)
    dense = F.conv3d(grid.permute(0, 4, 1, 2, 3), weight, padding=1).permute(0, 2, 3, 4, 1)
    out = dense[rows]
    return out.detach(), *torch.autograd.grad(out, (features, kernel), gradient.double())
