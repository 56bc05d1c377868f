"""What the Triton engine must fulfil on any device: test_triton.py runs this file under Triton's
interpreter on the CPU, test_gpu.py on a GPU, each in a process of its own.

The reference is dense convolution in float64, on the CPU, of the same rounded inputs.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from scannet_css.sparse import Conv3d, ConvTranspose3d, SparseTensor
from scannet_css.sparse.coordinates import unpack
from scannet_css.sparse.engines import triton_engine, triton_tuner
from scannet_css.sparse.engines.choice import choose_engine
from scannet_css.sparse.maps import CoordinateManager, Geometry, KernelMap

IS_INTERPRETED = triton_engine._is_interpreted()
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
# Frobenius and largest error, relative to the reference's norm and largest number. On a GPU TF32 cuts digits
# off where the usual estimate has them rounded: twice the error.
BOUNDS = {
    "ieee": (1e-6, 3e-6),
    "tf32": (1.2e-3, 4e-3),
    "float16": (4e-4, 1e-3),
    "bfloat16": (3e-3, 7e-3),
}
KERNEL_GRADIENT = (1e-6, 1e-5)
KINDS = {"ieee": "ieee", "tf32": "tf32"}  # in the tuner's table; the others are "half"
PRECISIONS = ["ieee", "float16"] if IS_INTERPRETED else list(BOUNDS)
SIDE, ORIGIN = 10, -4  # all voxels lie in this cube

MAPS = {  # kernel size, stride, dilation
    "3": (3, 1, 1),
    "5": (5, 1, 1),
    "dilated": (3, 1, 2),
    "down": (2, 2, 1),
    "up": (2, 2, 1),
    "strided": (3, 2, 1),
}


@pytest.fixture(params=PRECISIONS)
def precision(request):
    return request.param


@pytest.fixture(autouse=True)
def tf32_switch(request):
    """float32 products are exact unless the test's precision is TF32."""
    is_tf32 = (
        request.node.callspec.params.get("precision") == "tf32"
        if hasattr(request.node, "callspec")
        else False
    )
    torch.set_float32_matmul_precision("high" if is_tf32 else "highest")
    yield
    torch.set_float32_matmul_precision("highest")


def dtype_of(precision):
    return getattr(torch, precision, torch.float32)


def voxels(count, seed=0, share=0.4):
    """(count, 4) int64: about that share of two boxes in two scenes; few voxels lie near each other."""
    side = min(SIDE, max(1, math.ceil((count / 2 / share) ** (1 / 3))))
    cells = torch.cartesian_prod(torch.arange(2), *[torch.arange(ORIGIN, ORIGIN + side)] * 3)
    cells = (
        cells if len(cells) >= count else torch.cartesian_prod(torch.arange(2), *[torch.arange(-4, 6)] * 3)
    )
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))
    return cells[order[:count]]


def map_of(name, coordinates):
    kernel_map = CoordinateManager(coordinates.to(DEVICE)).map(1, *MAPS[name])
    return kernel_map.reverse if name == "up" else kernel_map


def operands(kernel_map, in_channels, out_channels, precision, integers=False):
    """Features, kernel and gradient of the output."""
    generator = torch.Generator().manual_seed(in_channels * 1000 + out_channels)
    shapes = (
        (kernel_map.inputs, in_channels),
        (kernel_map.offsets, in_channels, out_channels),
        (kernel_map.outputs, out_channels),
    )
    if integers:
        numbers = [torch.randint(-4, 5, shape, generator=generator) for shape in shapes]
    else:
        numbers = [torch.randn(shape, generator=generator) for shape in shapes]
    return [x.to(dtype_of(precision)).to(DEVICE) for x in numbers]


def dense_convolution(name, features, kernel, kernel_map):
    """By torch's dense convolution of the cube, on float64 on the CPU; differentiable."""
    kernel_size, stride, dilation = MAPS[name]
    inputs, outputs = (
        unpack(keys).cpu().long()
        for keys in (kernel_map.geometry.input_keys, kernel_map.geometry.output_keys)
    )
    scale_in, scale_out = (stride, 1) if name == "up" else (1, stride)
    side = SIDE // scale_in
    volume = features.new_zeros(2, side, side, side, features.shape[1])
    x, y, z = ((inputs[:, 1:] - ORIGIN) // scale_in).T
    volume = volume.index_put((inputs[:, 0], x, y, z), features).permute(0, 4, 1, 2, 3)
    weight = kernel.reshape(kernel_size, kernel_size, kernel_size, *kernel.shape[1:])  # z, y, x, in, out
    if name == "up":
        out = F.conv_transpose3d(volume, weight.permute(3, 4, 2, 1, 0), stride=stride)
    else:
        padding = kernel_size // 2 * dilation if kernel_size % 2 else 0
        out = F.conv3d(
            volume, weight.permute(4, 3, 2, 1, 0), stride=stride, padding=padding, dilation=dilation
        )
    x, y, z = ((outputs[:, 1:] - ORIGIN) // scale_out).T
    return out.permute(0, 2, 3, 4, 1)[outputs[:, 0], x, y, z]


def dense_results(name, features, kernel, gradient, kernel_map):
    """Convolution, gradient of the features, gradient of the kernel; float64 on the CPU."""
    features, kernel, gradient = (x.cpu().double() for x in (features, kernel, gradient))
    features.requires_grad_(), kernel.requires_grad_()
    out = dense_convolution(name, features, kernel, kernel_map)
    return out.detach(), *torch.autograd.grad(out, [features, kernel], gradient)


def triton_results(features, kernel, gradient, kernel_map):
    out = triton_engine.convolve(features, kernel, kernel_map)
    return out, *triton_engine.gradients(features, kernel, gradient, kernel_map, True, True)


def assert_near(actual, expected, bounds):
    actual = actual.detach().cpu().double()
    assert actual.shape == expected.shape
    error = actual - expected
    frobenius, largest = bounds
    assert error.norm() <= frobenius * expected.norm()
    assert error.abs().max() <= largest * expected.abs().max()


def assert_right(results, references, precision):
    bounds = BOUNDS[precision]
    assert results[0].dtype == results[1].dtype == dtype_of(precision)
    assert results[2].dtype == torch.float32
    kernel_bounds = bounds if precision == "tf32" else KERNEL_GRADIENT
    for result, reference, bound in zip(results, references, (bounds, bounds, kernel_bounds), strict=True):
        assert_near(result, reference, bound)


def assert_same_bits(one, other):
    assert one.dtype == other.dtype
    assert torch.equal(one, other)


# Rows around the tile sizes 64 and 128, channels around the blocks 16, 32, 64 and 128.
SHAPES = [
    ("3", 1, 8, 8),
    ("3", 2, 33, 5),
    ("3", 15, 16, 16),
    ("3", 17, 32, 33),
    ("3", 63, 64, 32),
    ("3", 64, 24, 100),
    ("3", 65, 33, 64),
    ("3", 127, 96, 20),
    ("3", 129, 16, 1),
    ("3", 70, 20, 129),
    ("3", 200, 1, 7),
    ("3", 200, 3, 16),
    ("3", 500, 32, 24),
    ("5", 40, 5, 6),
    ("5", 200, 3, 32),
    ("dilated", 129, 32, 17),
    ("down", 127, 15, 32),
    ("down", 500, 64, 65),
    ("up", 129, 65, 31),
    ("up", 500, 16, 64),
    ("strided", 300, 7, 40),
]


# The interpreter is slow: there each shape has one precision.
SHAPE_CASES = [
    (*shape, precision)
    for index, shape in enumerate(SHAPES)
    for precision in (PRECISIONS if not IS_INTERPRETED else [PRECISIONS[index % 2]])
]


@pytest.mark.parametrize(("name", "rows", "in_channels", "out_channels", "precision"), SHAPE_CASES)
def test_it_is_the_dense_convolution(name, rows, in_channels, out_channels, precision):
    kernel_map = map_of(name, voxels(rows))
    numbers = operands(kernel_map, in_channels, out_channels, precision)
    assert_right(triton_results(*numbers, kernel_map), dense_results(name, *numbers, kernel_map), precision)


@pytest.mark.parametrize(
    ("share", "precision"), zip([0.01, 0.15, 1.0], ["ieee", "float16", "float16"], strict=True)
)
def test_any_occupancy(share, precision):
    kernel_map = map_of("3", voxels(130, seed=1, share=share))
    numbers = operands(kernel_map, 24, 20, precision)
    assert_right(triton_results(*numbers, kernel_map), dense_results("3", *numbers, kernel_map), precision)


EVERY_CONFIGURATION = [
    (operation, precision, configuration)
    for operation in triton_tuner.shipped_table()
    for precision in PRECISIONS
    for configuration in triton_tuner.candidates(operation, KINDS.get(precision, "half"))
]


@pytest.mark.parametrize(("operation", "precision", "configuration"), EVERY_CONFIGURATION)
def test_small_integers_are_exact_with_every_configuration(operation, precision, configuration, monkeypatch):
    """Sums of small integers are exact in float32: bit for bit the reference, rounded once."""
    monkeypatch.setattr(triton_tuner, "shipped", lambda problem: configuration)
    kernel_map = map_of("3", voxels(140, seed=2))
    features, kernel, gradient = operands(kernel_map, 40, 36, precision, integers=True)
    expected = dense_results("3", features, kernel, gradient, kernel_map)
    if operation == "convolve":
        actual = triton_engine.convolve(features, kernel, kernel_map)
        assert_same_bits(actual.cpu(), expected[0].to(features.dtype))
    else:
        _, actual = triton_engine.gradients(features, kernel, gradient, kernel_map, False, True)
        assert_same_bits(actual.cpu(), expected[2].float())


@pytest.mark.parametrize("name", ["5", "dilated", "down", "up", "strided"])
def test_small_integers_are_exact_on_every_map(name, precision):
    kernel_map = map_of(name, voxels(50, seed=3))
    numbers = operands(kernel_map, 9, 10, precision, integers=True)
    types = numbers[0].dtype, numbers[0].dtype, torch.float32
    expected = dense_results(name, *numbers, kernel_map)
    for actual, reference, dtype in zip(triton_results(*numbers, kernel_map), expected, types, strict=True):
        assert_same_bits(actual.cpu(), reference.to(dtype))


def test_an_impulse_gives_the_kernel(precision):
    """One voxel of value 1 in a full cube: each neighbour sees the kernel's tap that leads to it."""
    kernel_map = map_of("3", voxels(250, share=1))
    _, kernel, _ = operands(kernel_map, 5, 6, precision)
    middle = int(
        (unpack(kernel_map.geometry.input_keys).cpu() == torch.tensor([1, -2, -2, -2])).all(1).nonzero()
    )
    features = kernel.new_zeros(kernel_map.inputs, 5)
    features[middle, 2] = 1
    out = triton_engine.convolve(features, kernel, kernel_map)
    offset, row = (kernel_map.table == middle).nonzero(as_tuple=True)
    assert len(row) == 27
    expected = torch.zeros_like(out).index_put((row,), kernel[offset, 2])
    if precision == "tf32":
        assert (out - expected).abs().max() <= 2**-10 * kernel.abs().max()
    else:
        assert_same_bits(out, expected)


@pytest.mark.parametrize("programs", [1, triton_engine.PROGRAMS], ids=["whole", "split"])
def test_bias_residual_and_relu(programs, precision, monkeypatch):
    monkeypatch.setattr(triton_engine, "PROGRAMS", programs)
    kernel_map = map_of("3", voxels(70))
    features, kernel, residual = operands(kernel_map, 16, 20, precision)
    bias = torch.linspace(-3, 3, 20, device=DEVICE)
    plain = dense_convolution("3", features.cpu().double(), kernel.cpu().double(), kernel_map)
    with_bias, with_residual = plain + bias.cpu().double(), plain + residual.cpu().double()
    both = with_bias + residual.cpu().double()
    for arguments, expected in {
        (bias, None, False): with_bias,
        (bias.to(features.dtype), None, False): plain + bias.to(features.dtype).cpu().double(),
        (None, residual, True): with_residual.relu(),
        (bias, residual, True): both.relu(),
        (None, None, True): plain.relu(),
    }.items():
        out = triton_engine.convolve(features, kernel, kernel_map, *arguments)
        assert out.dtype == features.dtype
        assert_near(out, expected, BOUNDS[precision])


def test_few_channels_with_bias_residual_and_relu(precision, monkeypatch):
    monkeypatch.setattr(triton_engine, "GATHERED_NUMBERS", 125 * 3 * 16)  # several chunks
    kernel_map = map_of("5", voxels(70))
    features, kernel, residual = operands(kernel_map, 3, 20, precision)
    bias = torch.linspace(-3, 3, 20, device=DEVICE)
    plain = dense_convolution("5", features.cpu().double(), kernel.cpu().double(), kernel_map)
    expected = (plain + bias.cpu().double() + residual.cpu().double()).relu()
    out = triton_engine.convolve(features, kernel, kernel_map, bias, residual, True)
    assert_near(out, expected, [1.5 * bound for bound in BOUNDS[precision]])  # rounded twice


def test_splitting_the_offsets_changes_rounding_only(precision, monkeypatch):
    kernel_map = map_of("5", voxels(60))
    features, kernel, gradient = operands(kernel_map, 8, 8, precision)
    outs = []
    for programs in (1, 528):
        monkeypatch.setattr(triton_engine, "PROGRAMS", programs)
        outs.append(triton_engine.convolve(features, kernel, kernel_map))
    assert_near(outs[0], outs[1].cpu().double(), BOUNDS[precision])


def test_frozen_operands_cost_nothing(monkeypatch):
    kernel_map = map_of("3", voxels(60))
    numbers = operands(kernel_map, 8, 9, "ieee")
    both = triton_engine.gradients(*numbers, kernel_map, True, True)
    for needs in ((True, False), (False, True)):
        with monkeypatch.context() as patch:
            if not needs[0]:
                patch.setattr(triton_engine, "convolve", None)
            if not needs[1]:
                patch.setattr(triton_engine, "_kernel_gradient", None)
            alone = triton_engine.gradients(*numbers, kernel_map, *needs)
        for is_needed, one, other in zip(needs, alone, both, strict=True):
            if is_needed:
                assert_same_bits(one, other)
            else:
                assert one is None


@pytest.fixture
def poison():
    """Memory that torch hands out unwritten holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def surrounded(x):
    """x in the middle of NaN: what is read beside it shows."""
    space = x.new_full((len(x) + 2, *x.shape[1:]), torch.nan)
    space[1:-1] = x
    return space[1:-1]


@pytest.mark.parametrize("name", ["3", "up", "strided"])
def test_nothing_is_read_or_left_out_beside_the_operands(name, precision, poison):
    kernel_map = map_of(name, voxels(70))
    numbers = operands(kernel_map, 20, 17, precision)
    expected = dense_results(name, *numbers, kernel_map)
    results = triton_results(*map(surrounded, numbers), kernel_map)
    assert_right(results, expected, precision)


def test_a_nan_reaches_its_neighbours_and_nobody_else(precision, poison):
    kernel_map = map_of("3", voxels(130))
    features, kernel, _ = operands(kernel_map, 20, 8, precision)
    features[77, 3] = torch.nan
    out = triton_engine.convolve(features, kernel, kernel_map)
    is_neighbour = (kernel_map.table == 77).any(0)
    assert 1 < is_neighbour.sum() < 30
    assert torch.equal(out.isnan().all(1), is_neighbour)
    assert torch.equal(out.isnan().any(1), is_neighbour)
    assert torch.equal(
        triton_engine.convolve(features, kernel, kernel_map, relu=True).isnan().all(1), is_neighbour
    )


def test_a_nan_reaches_the_gradients_of_its_offsets_and_no_others(precision, poison):
    """Row 0 is what masked places of the last block point at."""
    kernel_map = map_of("3", voxels(40))
    features, kernel, gradient = operands(kernel_map, 20, 8, precision)
    spoiled = features.clone()
    spoiled[0, 3] = torch.nan
    _, total = triton_engine.gradients(spoiled, kernel, gradient, kernel_map, False, True)
    expected = torch.zeros_like(total, dtype=torch.bool)
    expected[(kernel_map.table == 0).any(1), 3] = True
    assert torch.equal(total.isnan(), expected)

    gradient[0, 2] = torch.nan
    _, total = triton_engine.gradients(features, kernel, gradient, kernel_map, False, True)
    expected = torch.zeros_like(expected)
    expected[kernel_map.table[:, 0] >= 0, :, 2] = True
    assert torch.equal(total.isnan(), expected)


def hand_made_map(table, inputs):
    keys = torch.arange(inputs, device=DEVICE), torch.arange(table.shape[1], device=DEVICE)
    return KernelMap(table.int().to(DEVICE), inputs, False, Geometry(*keys, 1, 2, 3))


def test_rows_tiles_and_maps_without_any_neighbour(precision, poison):
    table = torch.full((27, 200), -1)
    empty = hand_made_map(table, 30)
    table = table.clone()
    table[5, 190], table[26, 190], table[5, 3] = 7, 29, 0
    nearly_empty = hand_made_map(table, 30)
    for kernel_map in (empty, nearly_empty):
        features, kernel, gradient = operands(kernel_map, 20, 24, precision)
        out, grad_features, grad_kernel = triton_results(features, kernel, gradient, kernel_map)
        expected = torch.zeros(200, 24, dtype=torch.float64)
        expected_kernel = torch.zeros(27, 20, 24, dtype=torch.float64)
        for offset, row in (kernel_map.table >= 0).nonzero().tolist():
            x = features[kernel_map.table[offset, row]].cpu().double()
            expected[row] += x @ kernel[offset].cpu().double()
            expected_kernel[offset] += torch.outer(x, gradient[row].cpu().double())
        assert_near(out, expected, BOUNDS[precision])
        assert_near(grad_kernel, expected_kernel, BOUNDS["tf32" if precision == "tf32" else "ieee"])
        is_used = torch.zeros(30, dtype=torch.bool)
        is_used[kernel_map.table[kernel_map.table >= 0].cpu().long()] = True
        assert torch.equal((grad_features != 0).any(1).cpu(), is_used)


@pytest.mark.parametrize("name", ["3", "down", "up"])
def test_gradients_are_adjoint(name):
    """<conv(x), g> = <x, gradient of x> = <kernel, gradient of the kernel>."""
    kernel_map = map_of(name, voxels(200, seed=4))
    features, kernel, gradient = operands(kernel_map, 12, 14, "ieee")
    out, grad_features, grad_kernel = triton_results(features, kernel, gradient, kernel_map)
    pairs = (out, gradient), (features, grad_features), (kernel, grad_kernel)
    products = [(one.double() * other.double()).sum().item() for one, other in pairs]
    scale = out.double().norm().item() * gradient.double().norm().item()
    assert max(products) - min(products) <= 1e-6 * scale


def test_repetitions_give_the_same_bits(precision):
    coordinates = voxels(130, seed=5)
    results = []
    for _ in range(2 if IS_INTERPRETED else 10):
        kernel_map = map_of("3", coordinates)
        numbers = operands(kernel_map, 16, 24, precision)
        results.append(triton_results(*numbers, kernel_map))
    for repeated in results[1:]:
        for one, other in zip(results[0], repeated, strict=True):
            assert_same_bits(one, other)


@pytest.fixture
def engine_of_triton():
    choose_engine("triton")
    yield
    choose_engine("auto")


def test_rows_in_another_order_give_the_same_bits(engine_of_triton):
    torch.manual_seed(0)
    coordinates = voxels(150, seed=6).to(DEVICE)
    features = torch.randn(150, 8, device=DEVICE)
    layers = torch.nn.Sequential(Conv3d(8, 16, 3), Conv3d(16, 8, 2, stride=2), ConvTranspose3d(8, 9)).to(
        DEVICE
    )
    order = torch.randperm(150).to(DEVICE)
    one = layers(SparseTensor(features, coordinates)).features
    other = layers(SparseTensor(features[order], coordinates[order])).features
    assert_same_bits(one[order], other)


@pytest.mark.parametrize("dtype", [torch.float16] if IS_INTERPRETED else [torch.float16, torch.bfloat16])
def test_autocast(dtype, engine_of_triton):
    """Half features in between, float32 gradients of the parameters."""
    torch.manual_seed(0)
    coordinates = voxels(150, seed=7).to(DEVICE)
    features = torch.randn(150, 8, device=DEVICE, requires_grad=True)
    layer = Conv3d(8, 16, 3).to(DEVICE)
    with torch.autocast(DEVICE, dtype=dtype):
        out = layer(SparseTensor(features, coordinates)).features
    gradient = torch.randn_like(out)
    results = torch.autograd.grad(out, [features, layer.kernel], gradient)
    assert out.dtype == dtype
    assert [result.dtype for result in results] == [torch.float32, torch.float32]

    manager = SparseTensor(features.detach(), coordinates).manager
    rows = range(150) if manager.order is None else manager.order
    rounded = [x.detach().to(dtype) for x in (features[rows], layer.kernel, gradient[rows])]
    expected = dense_results("3", *rounded, manager.map(1, 3, 1))
    bounds = BOUNDS[str(dtype).removeprefix("torch.")]
    assert_near(out[rows], expected[0], bounds)
    assert_near(results[0][rows], expected[1], bounds)
    assert_near(results[1], expected[2], KERNEL_GRADIENT)
