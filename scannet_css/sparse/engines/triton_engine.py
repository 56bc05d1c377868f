"""Sparse convolution by Triton kernels: implicit GEMM over tiles of rows with similar neighbours.

Nothing gathered is ever stored: a program gathers a tile's inputs offset by offset into the matrix product,
adds up in float32, and stores each output row once. No atomics: results are the same bits every time. float32
products follow torch's switch for TF32 (torch.set_float32_matmul_precision). See docs/performance.md.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import sqrt

import torch
from torch import Tensor

from scannet_css.sparse.engines import torch_engine, triton_plan, triton_tuner
from scannet_css.sparse.maps import KernelMap

try:
    import triton

    from scannet_css.sparse.engines import triton_kernels
except ImportError:  # torch brings Triton for CUDA only
    triton = None

GATHERED_CHANNELS = 4  # up to so many, the neighbours are gathered into one wide matrix product
GATHERED_NUMBERS = 1 << 26  # so many at a time
PROGRAMS = 528  # fewer leave a large GPU idle: then several programs share a tile's offsets
OFFSETS_PER_PROGRAM = 9  # at least, of the map's
ADDED_AT_ONCE = 1024  # numbers that one program adds up over the chunks
# The largest error that a candidate of the tuner may have: of a convolution relative to the sum of absolute
# products, of a kernel's gradient relative to its largest number, for 1000 rows.
BOUNDS = {torch.float16: 1e-3, torch.bfloat16: 7e-3, torch.float32: 3e-6}
BOUND_TF32, BOUND_KERNEL_GRADIENT = 2e-3, 1e-5


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why Triton cannot run there; None if it can."""
    if triton is None:
        return "triton cannot be imported"
    if dtype not in BOUNDS:
        return "it computes float16, bfloat16 and float32"
    if _is_interpreted():
        is_exact = dtype != torch.bfloat16 and device.type == "cpu"
        return None if is_exact else "TRITON_INTERPRET is set: float16 and float32 on the CPU only"
    if device.type != "cuda":
        return "it needs a CUDA device"
    major, minor = torch.cuda.get_device_capability(device)
    needed = 8 if dtype == torch.bfloat16 else 7
    if major < needed:
        return f"{dtype} needs compute capability {needed}.0, the GPU has {major}.{minor}"
    return None


def convolve(
    features: Tensor,
    kernel: Tensor,
    kernel_map: KernelMap,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """features (N, Cin), kernel (O, Cin, Cout) -> relu(sum + bias (Cout,) + residual (M, Cout)) (M, Cout).

    Everything happens in float32 and is rounded once; with up to GATHERED_CHANNELS inputs, the sum too.
    """
    features, kernel = features.contiguous(), kernel.contiguous()
    offsets, in_channels, out_channels = kernel.shape
    if in_channels <= GATHERED_CHANNELS:
        return _finish(_gathered_product(features, kernel, kernel_map), bias, residual, relu, features.dtype)
    problem = triton_tuner.Problem(
        "convolve",
        _precision(features),
        kernel_map.outputs,
        in_channels,
        out_channels,
        offsets,
        features.dtype,
    )

    def expected() -> tuple[Tensor, Tensor]:
        operands = features.float(), kernel.float()
        absolute = (operand.abs() for operand in operands)
        return torch_engine.convolve(*operands, kernel_map), torch_engine.convolve(*absolute, kernel_map)

    bound = BOUND_TF32 if problem.precision == "tf32" else BOUNDS[features.dtype]
    configuration = _configuration(problem, partial(_convolve, features, kernel, kernel_map), expected, bound)
    if configuration is None:
        return torch_engine.convolve(features, kernel, kernel_map, bias, residual, relu)
    return _convolve(features, kernel, kernel_map, configuration, bias, residual, relu)


def gradients(
    features: Tensor,
    kernel: Tensor,
    gradient: Tensor,
    kernel_map: KernelMap,
    needs_features: bool,
    needs_kernel: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of features (N, Cin) and kernel (O, Cin, Cout; float32) from that of the output (M, Cout)."""
    grad_features = grad_kernel = None
    if needs_features:
        turned = kernel_map.reverse_offsets(kernel).transpose(1, 2)
        grad_features = convolve(gradient, turned, kernel_map.reverse)
    if needs_kernel:
        grad_kernel = _kernel_gradient(features.contiguous(), kernel, gradient.contiguous(), kernel_map)
    return grad_features, grad_kernel


def _convolve(
    features: Tensor,
    kernel: Tensor,
    kernel_map: KernelMap,
    configuration: triton_tuner.Configuration,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    offsets, in_channels, out_channels = kernel.shape
    tiles = triton_plan.tiles(kernel_map, configuration["BLOCK_ROWS"])
    programs = len(tiles.rows) * triton.cdiv(out_channels, configuration["BLOCK_OUT"])
    splits = max(1, min(PROGRAMS // programs, offsets // OFFSETS_PER_PROGRAM))
    is_partial = splits > 1
    shape = (splits, kernel_map.outputs, out_channels) if is_partial else (kernel_map.outputs, out_channels)
    out = features.new_empty(shape, dtype=torch.float32 if is_partial else features.dtype)
    with torch.cuda.device_of(features):
        triton_kernels.convolve[programs, splits](
            features,
            kernel,
            kernel if bias is None else bias.contiguous(),
            features if residual is None else residual.contiguous(),
            out,
            tiles.rows,
            tiles.neighbours,
            tiles.active,
            tiles.counts,
            offsets,
            kernel_map.outputs,
            in_channels,
            out_channels,
            HAS_BIAS=bias is not None,
            HAS_RESIDUAL=residual is not None,
            RELU=relu,
            PARTIAL=is_partial,
            **_options(features, configuration),
        )
    return _finish(out.sum(0), bias, residual, relu, features.dtype) if is_partial else out


def _finish(
    total: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool, dtype: torch.dtype
) -> Tensor:
    """What the kernel does to its sums, for sums made elsewhere."""
    if bias is not None:
        total = total.float() + bias
    if residual is not None:
        total = total.float() + residual
    return (total.relu() if relu else total).to(dtype)


def _kernel_gradient(features: Tensor, kernel: Tensor, gradient: Tensor, kernel_map: KernelMap) -> Tensor:
    offsets, in_channels, out_channels = kernel.shape
    if in_channels <= GATHERED_CHANNELS:
        return _gathered_kernel_gradient(features, gradient, kernel_map)
    problem = triton_tuner.Problem(
        "weight_gradient",
        _precision(features),
        kernel_map.outputs,
        in_channels,
        out_channels,
        offsets,
        features.dtype,
    )

    def plain() -> Tensor:
        operands = features.float(), kernel.float(), gradient.float()
        return torch_engine.gradients(*operands, kernel_map, False, True)[1]

    def expected() -> tuple[Tensor, Tensor]:
        reference = plain()
        return reference, reference.abs().max()

    bound = BOUND_TF32 if problem.precision == "tf32" else BOUND_KERNEL_GRADIENT
    bound *= max(1.0, sqrt(kernel_map.outputs / 1e3))
    run = partial(_sum_over_pairs, features, gradient, kernel_map)
    configuration = _configuration(problem, run, expected, bound)
    return plain() if configuration is None else run(configuration)


def _sum_over_pairs(
    features: Tensor, gradient: Tensor, kernel_map: KernelMap, configuration: triton_tuner.Configuration
) -> Tensor:
    """(O, Cin, Cout) float32: each chunk of pairs apart, then each offset's chunks in their order."""
    in_channels, out_channels = features.shape[1], gradient.shape[1]
    chunks = triton_plan.chunks(kernel_map)
    partials = features.new_empty(len(chunks.starts), in_channels, out_channels, dtype=torch.float32)
    total = features.new_empty(kernel_map.offsets, in_channels, out_channels, dtype=torch.float32)
    blocks = triton.cdiv(in_channels, configuration["BLOCK_IN"])
    blocks *= triton.cdiv(out_channels, configuration["BLOCK_OUT"])
    size = in_channels * out_channels
    with torch.cuda.device_of(features):
        triton_kernels.weight_gradient[(len(chunks.starts) * blocks,)](
            features,
            gradient,
            partials,
            chunks.sources,
            chunks.targets,
            chunks.starts,
            chunks.ends,
            in_channels,
            out_channels,
            **_options(features, configuration),
        )
        triton_kernels.add_chunks[kernel_map.offsets, triton.cdiv(size, ADDED_AT_ONCE)](
            partials, total, chunks.first_chunks, size, BLOCK=ADDED_AT_ONCE
        )
    return total


def _gathered_product(features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    out = features.new_empty(kernel_map.outputs, kernel.shape[2])
    for part, gathered in _gathered(features, kernel_map):
        torch.mm(gathered, kernel.view(-1, kernel.shape[2]), out=out[part])
    return out


def _gathered_kernel_gradient(features: Tensor, gradient: Tensor, kernel_map: KernelMap) -> Tensor:
    shape = kernel_map.offsets, features.shape[1], gradient.shape[1]
    total = features.new_zeros(shape[0] * shape[1], shape[2], dtype=torch.float32)
    for part, gathered in _gathered(features, kernel_map):
        total.addmm_(gathered.float().t(), gradient[part].float())
    return total.view(shape)


def _gathered(features: Tensor, kernel_map: KernelMap) -> Iterator[tuple[slice, Tensor]]:
    """Slices of R output rows, each with its neighbours' features (R, O Cin), zeros where there is none."""
    channels = features.shape[1]
    padded = torch.cat([features, features.new_zeros(1, channels)])
    rows = max(1, GATHERED_NUMBERS // (kernel_map.offsets * channels))
    for start in range(0, kernel_map.outputs, rows):
        table = kernel_map.table[:, start : start + rows].t()
        neighbours = torch.where(table < 0, kernel_map.inputs, table).reshape(-1)
        yield slice(start, start + len(table)), padded.index_select(0, neighbours).view(len(table), -1)


def _configuration(
    problem: triton_tuner.Problem,
    run: Callable[[triton_tuner.Configuration], Tensor],
    expected: Callable[[], tuple[Tensor, Tensor]],
    bound: float,
) -> triton_tuner.Configuration | None:
    """The tile sizes to use; None if the user's tuner found that all of them give wrong results.

    expected: gives the plain engine's result and the scale of its errors.
    """
    if _is_interpreted() or not triton_tuner.is_tuning():
        return triton_tuner.shipped(problem)
    memory, options = triton_tuner.user_tuner(), triton_tuner.candidates(problem.operation, problem.precision)
    major, minor = torch.cuda.get_device_capability()
    key = problem.key(f"sm{major}{minor}/triton{triton.__version__}")
    if not memory.knows(key, options):
        reference, scale = expected()
        largest = torch.finfo(problem.dtype if problem.operation == "convolve" else torch.float32).max
        if not (reference.abs() <= largest).all():
            return triton_tuner.shipped(problem)  # a step that overflows teaches nothing
        is_right = partial(triton_tuner.agrees, reference=reference, scale=scale, bound=bound)
        memory.tune(key, options, run, is_right, triton_tuner.seconds_on_gpu)
    return memory.winner(key)


def _options(features: Tensor, configuration: triton_tuner.Configuration) -> dict[str, int | str | bool]:
    precision = "tf32" if _precision(features) == "tf32" else "ieee"
    return {"PRECISION": precision, "enable_fp_fusion": True, **configuration}


def _precision(features: Tensor) -> str:
    if features.dtype != torch.float32:
        return "half"
    switch = torch.backends.cuda.matmul
    is_tf32 = switch.fp32_precision == "tf32" if hasattr(switch, "fp32_precision") else switch.allow_tf32
    return "tf32" if is_tf32 else "ieee"


def _is_interpreted() -> bool:
    return not isinstance(triton_kernels.convolve, triton.JITFunction)
