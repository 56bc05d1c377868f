"""The engine of grouped matrix products against the plain engine in float64, which has its own tests."""

import pytest
import torch
import torch.nn.functional as F

from scannet_css.sparse import Conv3d, ConvTranspose3d, SparseTensor
from scannet_css.sparse.engines import grouped_engine, torch_engine
from scannet_css.sparse.engines.choice import choose_engine
from scannet_css.sparse.maps import CoordinateManager, Geometry, KernelMap

CPU = torch.device("cpu")
# Largest error relative to the largest number; in half precision every product is rounded before it is added.
BOUNDS = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.4e-2}
CHANNELS = [(1, 1), (3, 20), (8, 16), (33, 5), (32, 32), (20, 64)]
REASON = grouped_engine.unavailable(CPU, torch.float32)

pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def cells(count, seed=0):
    every = torch.cartesian_prod(torch.tensor([0, 3]), *[torch.arange(-4, 4)] * 3)
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:count]]


def map_of(name, count=300):
    manager = CoordinateManager(cells(count))
    if name == "up":
        return manager.map(1, 2, 2).reverse
    return manager.map(1, *{"3": (3, 1, 1), "5": (5, 1, 1), "dilated": (3, 1, 2), "down": (2, 2, 1)}[name])


def operands(kernel_map, in_channels, out_channels, dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (kernel_map.inputs, in_channels),
        (kernel_map.offsets, in_channels, out_channels),
        (kernel_map.outputs, out_channels),
    )
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def results(engine, features, kernel, gradient, kernel_map):
    out = engine.convolve(features, kernel, kernel_map)
    return out, *engine.gradients(features, kernel, gradient, kernel_map, True, True)


@pytest.fixture(params=[1 << 23, 2000], ids=["whole", "chunked"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(grouped_engine, "TABLE_ENTRIES", request.param)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", ["3", "5", "dilated", "down", "up"])
def test_it_is_the_plain_engine(name, dtype, chunks):
    kernel_map = map_of(name)
    for channels in CHANNELS:
        numbers = operands(kernel_map, *channels, dtype)
        actual = results(grouped_engine, *numbers, kernel_map)
        expected = results(torch_engine, *(x.double() for x in numbers), kernel_map)
        assert [x.dtype for x in actual] == [dtype, dtype, torch.float32]
        for one, other, bound in zip(actual, expected, (BOUNDS[dtype], BOUNDS[dtype], 1e-5), strict=True):
            assert one.shape == other.shape
            assert (one - other).abs().max() <= bound * other.abs().max()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_voxels(count):
    kernel_map = map_of("3", count)
    numbers = operands(kernel_map, 5, 6, torch.float32)
    actual = results(grouped_engine, *numbers, kernel_map)
    expected = results(torch_engine, *(x.double() for x in numbers), kernel_map)
    for one, other in zip(actual, expected, strict=True):
        assert (one - other).abs().max() <= 3e-6 * other.abs().max()


def test_rows_and_maps_without_any_neighbour():
    table = torch.full((27, 9), -1, dtype=torch.int32)
    keys = torch.arange(4), torch.arange(9)
    empty = KernelMap(table, 4, False, Geometry(*keys, 1, 2, 3))
    table = table.clone()
    table[26, 5] = 2
    nearly_empty = KernelMap(table, 4, False, Geometry(*keys, 1, 2, 3))
    numbers = operands(empty, 8, 4, torch.float32)
    assert all((x == 0).all() for x in results(grouped_engine, *numbers, empty))
    features, kernel, gradient = numbers
    out, grad_features, grad_kernel = results(grouped_engine, *numbers, nearly_empty)
    for actual, place, value in (
        (out, (5,), features[2] @ kernel[26]),
        (grad_features, (2,), kernel[26] @ gradient[5]),
        (grad_kernel, (26,), torch.outer(features[2], gradient[5])),
    ):
        assert torch.allclose(actual[place], value, atol=1e-6)
        assert actual.count_nonzero() == value.numel()


def test_bias_residual_and_relu():
    kernel_map = map_of("3")
    features, kernel, residual = operands(kernel_map, 6, 7, torch.float32)
    bias = torch.linspace(-2, 2, 7)
    plain = torch_engine.convolve(features.double(), kernel.double(), kernel_map)
    out = grouped_engine.convolve(features, kernel, kernel_map, bias, residual, True)
    expected = (plain + bias + residual).relu()
    assert (out - expected).abs().max() <= 3e-6 * expected.max()


def test_only_what_is_needed():
    kernel_map = map_of("3")
    numbers = operands(kernel_map, 6, 7, torch.float32)
    both = grouped_engine.gradients(*numbers, kernel_map, True, True)
    features_alone, nothing = grouped_engine.gradients(*numbers, kernel_map, True, False)
    assert nothing is None
    assert torch.equal(features_alone, both[0])
    nothing, kernel_alone = grouped_engine.gradients(*numbers, kernel_map, False, True)
    assert nothing is None
    assert torch.equal(kernel_alone, both[1])


def test_the_kernels_gradient_may_pass_what_half_precision_holds():
    kernel_map = map_of("3")
    features = torch.full((300, 8), 200.0, dtype=torch.float16)
    gradient = torch.full((300, 8), 100.0, dtype=torch.float16)
    kernel = torch.zeros(27, 8, 8, dtype=torch.float16)
    _, total = grouped_engine.gradients(features, kernel, gradient, kernel_map, False, True)
    pairs = (kernel_map.table >= 0).sum(1)
    assert torch.equal(total, (pairs * 20000.0)[:, None, None].expand(27, 8, 8))


def test_rows_in_another_order_give_the_same_bits():
    choose_engine("grouped")
    try:
        torch.manual_seed(0)
        coordinates, features, order = cells(200), torch.randn(200, 8), torch.randperm(200)
        layers = torch.nn.Sequential(
            Conv3d(8, 16, 3), Conv3d(16, 8, 2, stride=2), ConvTranspose3d(8, 9, bias=True)
        )
        one = layers(SparseTensor(features, coordinates)).features
        other = layers(SparseTensor(features[order], coordinates[order])).features
    finally:
        choose_engine("auto")
    assert torch.equal(one[order], other)


def test_it_says_why_it_cannot_run(monkeypatch):
    wrong_type = grouped_engine.unavailable(CPU, torch.float64)
    assert wrong_type == "grouped_mm computes float16, bfloat16 and float32"

    def refuse(*arguments, **options):
        raise RuntimeError("grouped gemm is only for larger GPUs\nsecond line")

    monkeypatch.setattr(F, "grouped_mm", refuse)
    reason = grouped_engine.unavailable(CPU, torch.float32)
    assert reason == "grouped_mm: grouped gemm is only for larger GPUs"
    monkeypatch.setattr(F, "grouped_mm", lambda x, y, offs: x.new_zeros(2, 16, 16))
    assert grouped_engine.unavailable(CPU, torch.float32) == "grouped_mm gives wrong results"
    monkeypatch.delattr(F, "grouped_mm")
    assert "has no grouped_mm" in grouped_engine.unavailable(CPU, torch.float32)
