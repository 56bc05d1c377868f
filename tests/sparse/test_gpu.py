"""The engines on a GPU: the Triton cases with all types, rare faults at real sizes, engines compared."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scannet_css.network import build_network
from scannet_css.sparse import SparseTensor
from scannet_css.sparse.engines import grouped_engine, torch_engine, triton_engine, triton_tuner
from scannet_css.sparse.engines.choice import choose_engine, engine_name, why_unavailable
from scannet_css.sparse.maps import CoordinateManager

HERE = Path(__file__).parent
DEVICE = torch.device("cuda")
HALVES = [torch.float16, torch.bfloat16]
# The largest error per number, relative to the sum of its absolute products.
BOUNDS = {torch.float16: 1e-3, torch.bfloat16: 7e-3, torch.float32: 3e-6}
LARGE_ROWS, LARGE_CHANNELS = 23_000_000, 96  # their product is beyond 2^31
NETWORK_ROWS = 60_000

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
]


@pytest.fixture(autouse=True)
def exact_products_and_every_engine():
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision("highest")
    choose_engine("auto")


def surface(rows):
    """(rows, 4) int32: two scenes, each a rough wavy sheet, about 7 neighbours per voxel."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    index = torch.arange(rows, device=DEVICE)
    scene, index = index % 2, index // 2
    side = int((rows / 2) ** 0.5) + 1
    x, y = index % side, index // side
    z = 4 * torch.sin(x / 9) + 3 * torch.cos(y / 13) + torch.rand(rows, generator=generator, device=DEVICE)
    return torch.stack([scene, x, y, z.floor().long()], dim=1).int()


def operands(kernel_map, in_channels, out_channels, dtype):
    generator = torch.Generator(DEVICE).manual_seed(in_channels)
    shapes = (
        (kernel_map.inputs, in_channels),
        (kernel_map.offsets, in_channels, out_channels),
        (kernel_map.outputs, out_channels),
    )
    return [torch.randn(shape, generator=generator, device=DEVICE).to(dtype) for shape in shapes]


def results(engine, features, kernel, gradient, kernel_map):
    out = engine.convolve(features, kernel, kernel_map)
    return out, *engine.gradients(features, kernel, gradient, kernel_map, True, True)


def largest_error(result, reference, scale):
    return ((result.double() - reference).abs() / scale).max().item()


def references(numbers, kernel_map):
    """The plain engine's results in float64, and the scale of each number's error."""
    doubles = [x.double() for x in numbers]
    expected = results(torch_engine, *doubles, kernel_map)
    scales = list(results(torch_engine, *(x.abs() for x in doubles), kernel_map))
    scales[2] = expected[2].abs().max() * (kernel_map.outputs / 1e3) ** 0.5
    return expected, [scale.clamp(min=1e-30) for scale in scales]


def test_all_cases_of_the_interpreter_hold_on_the_gpu():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "pytest", HERE / "triton_cases.py", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rows", [250_000, 1_000_000])
@pytest.mark.parametrize("channels", [16, 32, 33])
def test_no_number_is_ever_wrong(rows, channels):
    """A race in the loads ahead shows in single numbers of few runs, at shapes of one block of channels."""
    kernel_map = CoordinateManager(surface(rows)).map(1, 3, 1)
    numbers = operands(kernel_map, channels, channels, torch.float16)
    expected, scales = references(numbers, kernel_map)
    first = results(triton_engine, *numbers, kernel_map)
    bounds = BOUNDS[torch.float16], BOUNDS[torch.float16], 1e-5
    for result, reference, scale, bound in zip(first, expected, scales, bounds, strict=True):
        assert largest_error(result, reference, scale) <= bound
    for _ in range(200):
        for one, other in zip(first, results(triton_engine, *numbers, kernel_map), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
@pytest.mark.parametrize("in_channels, out_channels", [(32, 32), (96, 96), (128, 96), (3, 32)])
def test_engines_agree(in_channels, out_channels, dtype):
    kernel_map = CoordinateManager(surface(100_000)).map(1, 3, 1)
    numbers = operands(kernel_map, in_channels, out_channels, dtype)
    expected, scales = references(numbers, kernel_map)
    engines = [triton_engine]
    if grouped_engine.unavailable(DEVICE, dtype) is None:
        engines.append(grouped_engine)
    for engine in engines:
        # The grouped engine, and few channels, round more often than once.
        for result, reference, scale, bound in zip(
            results(engine, *numbers, kernel_map),
            expected,
            scales,
            (BOUNDS[dtype],) * 2 + (1e-5,),
            strict=True,
        ):
            assert largest_error(result, reference, scale) <= 2 * bound


def test_indices_beyond_32_bits():
    """The last rows of a batch whose features are more than 2^31 numbers, spot-checked."""
    if torch.cuda.get_device_properties(DEVICE).total_memory < 70e9:
        pytest.skip("needs a GPU of 70 GB")
    kernel_map = CoordinateManager(surface(LARGE_ROWS)).map(1, 3, 1)
    generator = torch.Generator(DEVICE).manual_seed(0)
    shape = LARGE_ROWS, LARGE_CHANNELS
    features = torch.randn(shape, generator=generator, device=DEVICE, dtype=torch.bfloat16)
    kernel = torch.randn(27, LARGE_CHANNELS, LARGE_CHANNELS, generator=generator, device=DEVICE).bfloat16()
    step = LARGE_ROWS // 1000
    rows = torch.arange(LARGE_ROWS - 1, 0, -step, device=DEVICE)

    def assert_right(out, features, kernel):
        table = kernel_map.table[:, rows].long()
        gathered = features[table.clamp(min=0)].double() * (table >= 0)[:, :, None]
        expected = torch.bmm(gathered, kernel.double()).sum(0)
        scale = torch.bmm(gathered.abs(), kernel.double().abs()).sum(0)
        assert largest_error(out[rows], expected, scale) <= BOUNDS[torch.bfloat16]
        return gathered

    gathered = assert_right(triton_engine.convolve(features, kernel, kernel_map), features, kernel)
    gradient = torch.zeros_like(features)
    gradient[rows] = torch.randn(
        len(rows), LARGE_CHANNELS, generator=generator, device=DEVICE, dtype=torch.bfloat16
    )
    # A centred map is its own reverse under the opposite offsets.
    grad_features, grad_kernel = triton_engine.gradients(features, kernel, gradient, kernel_map, True, True)
    assert_right(grad_features, gradient, kernel.flip(0).transpose(1, 2))
    expected = torch.bmm(gathered.transpose(1, 2), gradient[rows].double().expand(27, -1, -1))
    assert (grad_kernel - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_tuner_refuses_wrong_kernels(tmp_path, monkeypatch):
    """The real kernels and the real clock; three of the candidates give something else, and fast."""
    monkeypatch.setenv(triton_tuner.VARIABLE, "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    triton_tuner.user_tuner.cache_clear()
    kernel_map = CoordinateManager(surface(100_000)).map(1, 3, 1)
    features, kernel, _ = operands(kernel_map, 32, 32, torch.float16)
    expected = triton_engine.convolve(features, kernel, kernel_map)

    options = triton_tuner.candidates("convolve", "half")
    spoiled = options[:3]
    run = triton_engine._convolve

    def run_or_spoil(features, kernel, kernel_map, configuration, *finish):
        if configuration not in spoiled:
            return run(features, kernel, kernel_map, configuration, *finish)
        out = expected.clone()
        index = spoiled.index(configuration)
        if index == 0:
            out.zero_()
        else:
            out[-77, 7] += 2 if index == 1 else torch.nan
        return out

    monkeypatch.setattr(triton_engine, "_convolve", run_or_spoil)
    (tmp_path / "scannet_css/triton.json").unlink()
    triton_tuner.user_tuner.cache_clear()
    out = triton_engine.convolve(features, kernel, kernel_map)
    (winner,) = triton_tuner.user_tuner()._winners.values()
    assert winner in options[3:]
    scale = torch_engine.convolve(features.double().abs(), kernel.double().abs(), kernel_map)
    assert largest_error(out, expected.double(), scale) <= 2 * BOUNDS[torch.float16]
    triton_tuner.user_tuner.cache_clear()


def network_results(engine, dtype=None):
    """Logits (N, 20), the loss' gradients by parameter, of one step from a fixed start; autocast to dtype."""
    choose_engine(engine)
    torch.manual_seed(0)
    network = build_network("minkunet34c").to(DEVICE)
    coordinates = surface(NETWORK_ROWS)
    generator = torch.Generator(DEVICE).manual_seed(1)
    features = torch.rand(NETWORK_ROWS, 3, generator=generator, device=DEVICE)
    labels = (coordinates[:, 1] // 30 + coordinates[:, 2] // 30).long() % 20
    with torch.autocast("cuda", dtype=dtype or torch.float16, enabled=dtype is not None):
        logits = network(SparseTensor(features, coordinates)).logits
    torch.nn.functional.cross_entropy(logits.float(), labels).backward()
    return logits.detach().double(), {name: p.grad.double() for name, p in network.named_parameters()}


def relative(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("engine", ["triton", "grouped"])
def test_a_whole_network_is_the_plain_engines(engine):
    if why_unavailable(engine, DEVICE, torch.float32):
        pytest.skip(why_unavailable(engine, DEVICE, torch.float32))
    logits, gradients = network_results(engine)
    expected_logits, expected = network_results("torch")
    assert relative(logits, expected_logits) <= 1e-4
    kernels = [name for name in gradients if name.endswith("kernel")]
    assert len(kernels) > 60
    # Where rounding turns a ReLU, a gradient jumps: no bound of single numbers holds through 40 layers.
    assert max(relative(gradients[name], expected[name]) for name in kernels) <= 2e-2


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("engine", ["triton", "grouped", "torch"])
def test_autocast_stays_near_float32(engine, dtype):
    if why_unavailable(engine, DEVICE, dtype):
        pytest.skip(why_unavailable(engine, DEVICE, dtype))
    logits, gradients = network_results(engine, dtype)
    expected_logits, expected = network_results("torch")
    bound = {torch.float16: 0.05, torch.bfloat16: 0.3}[dtype]
    assert relative(logits, expected_logits) <= bound
    assert relative(gradients["final.kernel"], expected["final.kernel"]) <= bound


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_triton_is_what_runs_by_itself(dtype):
    choose_engine("auto")
    assert engine_name(DEVICE, dtype) == "triton"


def test_float64_falls_back():
    choose_engine("auto")
    assert engine_name(DEVICE, torch.float64) == "torch"
