"""The native engine's kernels against float64, and their bits over threads and variants."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from scannet_css.errors import InputError
from scannet_css.network import build_network
from scannet_css.sparse import BatchNorm, SparseTensor
from scannet_css.sparse.engines import native_engine, torch_engine
from scannet_css.sparse.engines.choice import choose_engine
from scannet_css.sparse.engines.native_library import library
from scannet_css.sparse.maps import Geometry, KernelMap

pytestmark = pytest.mark.skipif(library().reason is not None, reason=str(library().reason))
THREADS = 1, 2, 3, 5


@pytest.fixture(autouse=True)
def threads():
    """As many as before, afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random_map(inputs, outputs, offsets, share, seed=0, repeats=False):
    """A map in which a row meets at most one other per offset; offset 1 has no pair."""
    random = torch.Generator().manual_seed(seed)
    table = torch.full((offsets, outputs), -1, dtype=torch.int32)
    for offset in set(range(offsets)) - {1}:
        rows = torch.randperm(outputs, generator=random)[: round(share * min(inputs, outputs))]
        table[offset, rows] = torch.randperm(inputs, generator=random)[: len(rows)].int()
    if repeats:  # an input row that several output rows meet under one offset
        table[0, : min(3, outputs)] = 0
    keys = torch.arange(inputs), torch.arange(outputs)
    return KernelMap(table, inputs, False, Geometry(*keys, 1, 1, 3))


def operands(kernel_map, channels, seed=0, scale=1.0):
    random = torch.Generator().manual_seed(seed)
    shapes = (
        (kernel_map.inputs, channels[0]),
        (kernel_map.offsets, *channels),
        (kernel_map.outputs, channels[1]),
    )
    return [scale * torch.randn(shape, generator=random) for shape in shapes]


def results(engine, kernel_map, features, kernel, gradient):
    return (
        engine.convolve(features, kernel, kernel_map),
        *engine.gradients(features, kernel, gradient, kernel_map, True, True),
    )


def reference(kernel_map, features, kernel, gradient):
    """Output and both gradients by einsum over every entry of the table."""
    exists = (kernel_map.table >= 0)[..., None]
    rows = kernel_map.table.clamp(min=0).long()
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])  # there may be no row
    gathered = padded[rows] * exists
    grad_features = torch.zeros_like(padded)
    for offset, weight in enumerate(kernel):
        grad_features.index_add_(0, rows[offset], gradient @ weight.t() * exists[offset])
    out = torch.einsum("kma,kab->mb", gathered, kernel)
    return out, grad_features[:-1], torch.einsum("kma,mb->kab", gathered, gradient)


def assert_exact(kernel_map, channels, bound=2e-6):
    """Each number against float64, relative to the sum of absolute products that it is made of."""
    tensors = operands(kernel_map, channels)
    found = results(native_engine, kernel_map, *tensors)
    expected = reference(kernel_map, *(x.double() for x in tensors))
    scale = reference(kernel_map, *(x.double().abs() for x in tensors))
    for one, other, size in zip(found, expected, scale, strict=True):
        assert one.dtype == torch.float32
        assert one.shape == other.shape
        assert ((one - other).abs() <= bound * size).all()


CHANNELS = [(1, 1), (1, 16), (2, 5), (3, 32), (4, 48), (5, 3), (7, 7), (16, 16), (17, 15), (33, 9), (48, 48)]
WIDE = [(64, 21), (96, 96), (100, 20), (128, 8), (255, 31), (300, 2), (300, 300)]


@pytest.mark.parametrize("channels", CHANNELS + WIDE)
@pytest.mark.parametrize("sizes", [(300, 300, 27, 0.4), (129, 257, 8, 0.9)])
def test_every_number_is_that_of_float64(sizes, channels):
    assert_exact(random_map(*sizes), channels)


@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 27, 1.0), (0, 0, 27, 1.0), (5, 1, 3, 1.0), (1, 9, 8, 1.0), (40, 40, 27, 0.0), (131, 4, 5, 1.0)],
)
@pytest.mark.parametrize("channels", [(3, 16), (16, 16), (48, 21), (33, 96)])
def test_maps_with_hardly_anything(sizes, channels):
    assert_exact(random_map(*sizes), channels)


@pytest.mark.parametrize("channels", [(3, 16), (32, 48)])
def test_a_row_may_meet_several_under_one_offset(channels):
    kernel_map = random_map(50, 60, 9, 0.5, repeats=True)
    features, kernel, gradient = operands(kernel_map, channels)
    out = native_engine.convolve(features, kernel, kernel_map)
    total = native_engine.gradients(features, kernel, gradient, kernel_map, False, True)[1]
    expected = reference(kernel_map, features.double(), kernel.double(), gradient.double())
    assert (out - expected[0]).abs().max() < 1e-5
    assert (total - expected[2]).abs().max() < 1e-5


@pytest.mark.parametrize("rows", [1, 127, 128, 129, 4095, 4097, 9000])
def test_any_number_of_rows(rows):
    assert_exact(random_map(rows, rows, 4, 0.8), (20, 24), bound=3e-6)


def test_large_offsets_of_the_gradient_are_summed_in_runs():
    """20,000 pairs under one offset: a plain float32 sum would be off by 1e-5."""
    assert_exact(random_map(20_000, 20_000, 2, 1.0), (16, 16), bound=1e-6)


@pytest.mark.parametrize(
    "channels", [(3, 16), (16, 16), (48, 48), (96, 96), (128, 96), (37, 21), (21, 37), (256, 64)]
)
@pytest.mark.parametrize("rows", [100, 3000])
def test_the_same_bits_on_any_number_of_threads(rows, channels):
    kernel_map = random_map(rows, rows, 27, 0.45)
    tensors = operands(kernel_map, channels)
    bias, residual = torch.randn(channels[1]), torch.randn(rows, channels[1])
    found = []
    for number in THREADS:
        torch.set_num_threads(number)
        kernel_map.plans.clear()
        tail = native_engine.convolve(*tensors[:2], kernel_map, bias, residual, True)
        found.append((*results(native_engine, kernel_map, *tensors), tail))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert torch.equal(one, two)


def test_bias_residual_and_relu_follow_the_sum():
    kernel_map = random_map(200, 300, 8, 0.5)
    for channels, has_bias, has_residual, relu in itertools.product(
        [(3, 7), (24, 32), (20, 21)], *[(False, True)] * 3
    ):
        features, kernel, residual = operands(kernel_map, channels)
        tail = torch.linspace(-1, 1, channels[1]) if has_bias else None, residual if has_residual else None
        found = native_engine.convolve(features, kernel, kernel_map, *tail, relu)
        tail = [None if each is None else each.double() for each in tail]
        expected = torch_engine.convolve(features.double(), kernel.double(), kernel_map, *tail, relu)
        assert (found - expected).abs().max() < 1e-5
        assert not relu or (found >= 0).all() and (found == 0).any()


def test_nan_and_infinity_reach_what_meets_them_and_nothing_else():
    kernel_map = random_map(50, 70, 27, 0.4)
    features, kernel, _ = operands(kernel_map, (20, 24))
    features[7], features[9, 3] = torch.nan, torch.inf
    for relu in (False, True):
        out = native_engine.convolve(features, kernel, kernel_map, relu=relu)
        meets = ((kernel_map.table == 7) | (kernel_map.table == 9)).any(0)
        assert torch.equal(out.isfinite().all(1), ~meets) or relu
        assert torch.equal(out.isnan().any(1), (kernel_map.table == 7).any(0)) or not relu or meets.any()
        assert out[(kernel_map.table == 7).any(0)].isnan().all()
        assert out[~meets].isfinite().all()


@pytest.mark.parametrize("entry", [300, 2**31 - 1, -2, -(2**31)])
def test_an_entry_that_is_no_row_is_refused(entry):
    kernel_map = random_map(300, 200, 27, 0.5)
    kernel_map.table[13, 111] = entry
    features, kernel, _ = operands(kernel_map, (16, 16))
    with pytest.raises(InputError, match="^kernel map: an entry is not -1 and no row of the 300 inputs$"):
        native_engine.convolve(features, kernel, kernel_map)


def test_tensors_of_another_shape_or_type_are_refused():
    kernel_map = random_map(30, 20, 8, 0.5)
    features, kernel, gradient = operands(kernel_map, (16, 24))
    wrong = [
        lambda: native_engine.convolve(features[1:], kernel, kernel_map),
        lambda: native_engine.convolve(features, kernel[1:], kernel_map),
        lambda: native_engine.convolve(features, kernel.double(), kernel_map),
        lambda: native_engine.convolve(features, kernel, kernel_map, torch.zeros(23)),
        lambda: native_engine.convolve(features, kernel, kernel_map, None, torch.zeros(21, 24)),
        lambda: native_engine.gradients(features, kernel, gradient[1:], kernel_map, False, True),
        lambda: native_engine.gradients(features, kernel, gradient[:, 1:], kernel_map, True, False),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match="expected torch.float32"):
            call()


def test_tensors_that_are_not_contiguous():
    kernel_map = random_map(200, 300, 8, 0.5)
    features, kernel, gradient = operands(kernel_map, (24, 20))
    expected = results(native_engine, kernel_map, features, kernel, gradient)
    strided = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (features, kernel, gradient)]
    for one, other in zip(results(native_engine, kernel_map, *strided), expected, strict=True):
        assert torch.equal(one, other)


def room(rows=3000, seed=0):
    """A surface with bumps: distinct voxels (N, 4) of two scenes."""
    random = torch.Generator().manual_seed(seed)
    flat = torch.randint(0, 60, (rows, 2), generator=random)
    height = (flat[:, :1] * 0.3 + torch.randint(0, 3, (rows, 1), generator=random)).long()
    scene = (flat[:, :1] > 30).long()
    return torch.cat([scene, flat, height], 1).unique(dim=0)


def step(engine, coordinates, dtype=torch.float32, activation=None, name="minkunet14s"):
    """Logits, and the gradient of every parameter, of a training step."""
    choose_engine(engine)
    torch.manual_seed(0)
    network = build_network(name, classes=7).to(dtype).train()
    x = SparseTensor(torch.randn(len(coordinates), 3).to(dtype), coordinates)
    labels = torch.randint(0, 7, (len(coordinates),))
    logits = network(x).logits
    F.cross_entropy(logits, labels).backward()
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    return logits.detach(), {key: value.grad for key, value in network.named_parameters()}, statistics


@pytest.fixture
def chosen():
    yield
    choose_engine("auto")


def test_a_whole_step_has_the_same_bits_on_any_number_of_threads(chosen):
    coordinates, found = room(20_000), []
    for number in THREADS:
        torch.set_num_threads(number)
        found.append(step("native", coordinates))
    for logits, gradients, statistics in found[1:]:
        assert torch.equal(found[0][0], logits)
        for name, value in {**found[0][1], **found[0][2]}.items():
            assert torch.equal(value, {**gradients, **statistics}[name]), name


def test_every_gradient_of_a_smooth_step_is_that_of_float64(chosen, monkeypatch):
    """softplus in the place of ReLU: where an activation next to zero may turn, errors cannot be seen."""

    def smooth(out, bias, residual, relu):
        out = out if residual is None else out + residual
        return F.softplus(out) if relu else out

    def separate(x, weight, bias, eps, residual, relu):
        function = native_engine.BatchNorm if x.dtype == torch.float32 else None
        if function is None:
            out = F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
            mean, variance = x.mean(0).detach(), x.var(0, unbiased=False).detach()
        else:
            out, mean, variance = function.apply(x, weight, bias, eps, None, False)
        return smooth(out, None, residual, relu), mean, variance

    monkeypatch.setattr("scannet_css.sparse.modules.finished", smooth)
    monkeypatch.setattr("scannet_css.sparse.modules.batch_norm", separate)
    coordinates = room(6000)
    logits, gradients, statistics = step("native", coordinates, name="minkunet18a")
    exact, expected, means = step("torch", coordinates, torch.float64, name="minkunet18a")
    assert (logits - exact).abs().max() < 1e-5 * exact.abs().max()
    for name, value in expected.items():
        assert (gradients[name] - value).abs().max() < 1e-5 * value.abs().max(), name
    for name, value in means.items():
        assert (statistics[name] - value).abs().max() <= 1e-5 * value.abs().max(), name


@pytest.mark.parametrize(("rows", "channels"), [(2, 3), (31, 1), (257, 20), (5000, 96), (60_000, 33)])
@pytest.mark.parametrize(("has_residual", "relu"), list(itertools.product([False, True], repeat=2)))
def test_batch_norm_with_what_follows_is_that_of_float64(rows, channels, has_residual, relu):
    random = torch.Generator().manual_seed(0)
    x, gradient, residual = torch.randn(3, rows, channels, generator=random).unbind()
    inputs = [x * 3 + 20, torch.linspace(0.5, 2, channels), torch.linspace(-1, 1, channels), residual]
    inputs[1][0] = 0.0  # a weight of which one cannot divide
    expected = [each.double().requires_grad_() for each in inputs]
    found = [each.clone().requires_grad_() for each in inputs]
    out = F.batch_norm(expected[0], None, None, *expected[1:3], training=True, eps=1e-5)
    out = out + expected[3] if has_residual else out
    arguments = (*found[:3], 1e-5, found[3] if has_residual else None, relu)
    own, mean, variance = native_engine.BatchNorm.apply(*arguments)
    out = torch.where(own.detach() > 0, out, 0) if relu else out  # on which side of zero, both alike
    number = 4 if has_residual else 3
    exact = torch.autograd.grad(out, expected[:number], gradient.double())
    grads = torch.autograd.grad(own, found[:number], gradient)
    assert (own - out).abs().max() < 2e-6 * max(1, out.abs().max())
    assert (mean - expected[0].mean(0)).abs().max() < 2e-6 * 20
    assert (variance - expected[0].var(0, unbiased=False)).abs().max() < 2e-6 * expected[0].var(0).max()
    for one, other in zip(grads, exact, strict=True):
        assert (one - other).abs().max() < 2e-5 * other.abs().max().clamp(min=5e-2)


def test_the_batch_norm_of_a_layer_has_the_same_bits_on_any_number_of_threads(chosen):
    choose_engine("native")
    found = []
    for number in THREADS:
        torch.set_num_threads(number)
        torch.manual_seed(0)
        x = torch.randn(40_000, 24, requires_grad=True)
        out = BatchNorm(24).normalise(x, torch.randn(40_000, 24), True)
        found.append((out.detach(), *torch.autograd.grad(out, x, torch.randn(40_000, 24))))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))
