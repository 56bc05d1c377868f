"""The shipped configurations compile for GPUs that are not there: no spills, loads ahead, tensor cores.

Without loads ahead (asynchronous copies) or with spilled registers a kernel is right but several times
slower, which no other test would show.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from scannet_css.sparse.engines import triton_tuner

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("triton interprets in this process", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from scannet_css.sparse.engines import triton_kernels  # noqa: E402

TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}  # bytes that a program may use
WARP_GROUP_ROWS = 64  # Hopper's matrix instruction takes so many rows at least

pytestmark = pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} does not exist")


def compiled(kernel, types, constants, capability, options, folder):
    """What the compiler made of the kernel: registers, spills, shared memory, counts of instructions."""
    names = kernel.arg_names
    place = {name: (index,) for index, name in enumerate(names)}
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs={place[name]: value for name, value in constants.items()},
        attrs={
            place[name]: [["tt.divisibility", 16]]
            for name, kind in types.items()
            if kind.startswith("*") or name == "size"
        },
    )
    target = GPUTarget("cuda", capability, 32)
    result = triton.compile(source, target=target, options={"enable_fp_fusion": True, **options})
    path = folder / "kernel.cubin"
    path.write_bytes(result.asm["cubin"])
    command = [TOOL, "-sass", "-res-usage", path]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = {
        name: len(re.findall(rf"\b{name}\b", listing)) for name in ("LDGSTS", "HGMMA", "HMMA", "STL", "LDL")
    }
    resources = {name: int(re.search(rf"{name}:(\d+)", listing)[1]) for name in ("REG", "STACK")}
    return {**counts, **resources, "shared": result.metadata.shared}


def compiled_configuration(
    operation, kind, dtype, configuration, capability, folder, is_partial=False, channels=None
):
    pointers = {"half": f"*{dtype}", "float": "*fp32", "int": "*i32"}
    kinds = {
        "convolve": {
            "half": ("features", "kernel", "residual", "out"),
            "float": ("bias",),
            "int": ("rows", "neighbours", "active", "counts"),
        },
        "weight_gradient": {
            "half": ("features", "gradient"),
            "float": ("partials",),
            "int": ("sources", "targets", "starts", "ends"),
        },
    }[operation]
    types = {name: pointers[each] for each, names in kinds.items() for name in names}
    sizes = {name: value for name, value in configuration.items() if name.startswith("BLOCK")}
    options = {name: value for name, value in configuration.items() if name not in sizes}
    channels = channels or (96 if 96 % configuration["BLOCK_IN"] == 0 else 128, 96)
    constants = {**sizes, **dict(zip(("in_channels", "out_channels"), channels, strict=True))}
    constants["PRECISION"] = "tf32" if kind == "tf32" else "ieee"
    if operation == "convolve":
        types |= {"offsets": "i32", "outputs": "i32"}
        flags = dict.fromkeys(("HAS_BIAS", "HAS_RESIDUAL", "RELU"), not is_partial)
        constants |= {**flags, "PARTIAL": is_partial}
        if is_partial:
            types["out"] = "*fp32"
    kernel = getattr(triton_kernels, operation)
    return compiled(kernel, types, constants, capability, options, folder)


# Half precision with every configuration on both architectures; float32 with the largest tiles.
CASES = [
    (operation, kind, {"half": "fp16"}.get(kind, "fp32"), index, capability)
    for operation, kinds in triton_tuner.shipped_table().items()
    for kind, entries in kinds.items()
    for index in range(len(entries))
    for capability in SHARED_MEMORY
    if kind == "half" or (index == len(entries) - 1 and capability == 80)
]
CASES += [("convolve", "half", "bf16", 6, 90), ("weight_gradient", "half", "bf16", 3, 90)]


@pytest.mark.parametrize(("operation", "kind", "dtype", "index", "capability"), CASES)
def test_configuration(operation, kind, dtype, index, capability, tmp_path):
    configuration = triton_tuner.candidates(operation, kind)[index]
    made = compiled_configuration(operation, kind, dtype, configuration, capability, tmp_path)
    assert made["STL"] == made["LDL"] == made["STACK"] == 0
    assert made["LDGSTS"] > 0
    assert made["shared"] <= SHARED_MEMORY[capability]
    rows = configuration["BLOCK_ROWS" if operation == "convolve" else "BLOCK_IN"]
    if kind != "ieee":
        is_warp_group = capability == 90 and rows >= WARP_GROUP_ROWS
        assert made["HGMMA" if is_warp_group else "HMMA"] > 0


@pytest.mark.parametrize(("channels", "loads_ahead"), [((24, 40), True), ((33, 1), False)])
@pytest.mark.parametrize("operation", ["convolve", "weight_gradient"])
def test_channels_that_fill_no_block(operation, channels, loads_ahead, tmp_path):
    """Four bytes and more are copied asynchronously; odd numbers of half precision are right, and slow."""
    configuration = triton_tuner.candidates(operation, "half")[2]
    made = compiled_configuration(operation, "half", "fp16", configuration, 90, tmp_path, channels=channels)
    assert (made["LDGSTS"] > 0) == loads_ahead
    assert made["HGMMA"] > 0


def test_partial_sums_and_the_ordered_sum(tmp_path):
    configuration = triton_tuner.candidates("convolve", "half")[1]
    made = compiled_configuration("convolve", "half", "fp16", configuration, 90, tmp_path, is_partial=True)
    assert made["STL"] == 0
    assert made["LDGSTS"] > 0
    types = {"partials": "*fp32", "out": "*fp32", "first_chunks": "*i32", "size": "i32"}
    made = compiled(triton_kernels.add_chunks, types, {"BLOCK": 1024}, 90, {"num_warps": 4}, tmp_path)
    assert made["STL"] == 0
