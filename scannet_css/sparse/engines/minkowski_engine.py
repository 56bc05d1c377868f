"""MinkowskiEngine 0.5's convolutions on the CPU, to compare with.

Its own coordinate manager gets the voxels of the map's two levels in our row order, which it keeps, and finds
its own kernel map at the first call.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scannet_css.sparse.coordinates import unpack
from scannet_css.sparse.maps import KernelMap
from scannet_css.sparse.tail import finished


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why MinkowskiEngine cannot run there; None if it can."""
    try:
        import MinkowskiEngine  # noqa: F401
    except ImportError as error:
        return f"MinkowskiEngine cannot be imported ({error}); build version 0.5.4 from its sources"
    if device.type != "cpu" or dtype not in (torch.float32, torch.float64):
        return "MinkowskiEngine runs here in float32 and float64 on cpu"
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
    plan = _plan(kernel_map)
    operands = features.contiguous(), kernel.contiguous()
    expands_coordinates = False
    out = plan.forward(*operands, *plan.shape, expands_coordinates, *plan.place)
    return finished(out, bias, residual, relu)


def gradients(
    features: Tensor,
    kernel: Tensor,
    gradient: Tensor,
    kernel_map: KernelMap,
    needs_features: bool,
    needs_kernel: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of features and kernel; None for what is not needed. MinkowskiEngine always computes both."""
    plan = _plan(kernel_map)
    operands = features.contiguous(), gradient.contiguous(), kernel.contiguous()
    grad_features, grad_kernel = plan.backward(*operands, *plan.shape, *plan.place)
    return grad_features if needs_features else None, grad_kernel if needs_kernel else None


@dataclass
class Plan:
    """A map in MinkowskiEngine's terms: its functions, and their arguments after the tensors."""

    forward: Any
    backward: Any
    shape: tuple  # kernel size, stride, dilation, region and its offsets
    place: tuple  # mode, keys of the input and output level, the coordinate manager's backend


def _plan(kernel_map: KernelMap) -> Plan:
    if "minkowski" not in kernel_map.plans:
        kernel_map.plans["minkowski"] = _prepare(kernel_map)
    return kernel_map.plans["minkowski"]


def _prepare(kernel_map: KernelMap) -> Plan:
    import MinkowskiEngine
    import MinkowskiEngineBackend._C as backend

    geometry = kernel_map.geometry
    manager = MinkowskiEngine.CoordinateManager(
        D=3,
        num_threads=torch.get_num_threads(),
        coordinate_map_type=MinkowskiEngine.CoordinateMapType.CPU,
    )
    levels = {geometry.input_stride: geometry.input_keys, geometry.output_stride: geometry.output_keys}
    keys = {
        stride: manager.insert_and_map(unpack(level), [stride] * 3)[0] for stride, level in levels.items()
    }
    strides = sorted((geometry.input_stride, geometry.output_stride))
    is_transposed = geometry.input_stride > geometry.output_stride
    name = "ConvolutionTranspose" if is_transposed else "Convolution"
    kernel_stride = strides[1] // strides[0]
    cube = backend.RegionType.HYPER_CUBE, torch.IntTensor()
    return Plan(
        forward=getattr(backend, f"{name}ForwardCPU"),
        backward=getattr(backend, f"{name}BackwardCPU"),
        shape=([geometry.kernel_size] * 3, [kernel_stride] * 3, [geometry.dilation] * 3, *cube),
        place=(
            backend.ConvolutionMode.DEFAULT,
            keys[geometry.input_stride],
            keys[geometry.output_stride],
            manager._manager,
        ),
    )
