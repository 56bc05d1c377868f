"""Sparse convolution against dense convolution, exact arithmetic, properties; for both ways to run a map."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scannet_css.sparse import Conv3d, ConvTranspose3d, SparseTensor
from scannet_css.sparse.engines import torch_engine
from scannet_css.sparse.engines.choice import choose_engine

GOLDEN = np.load(Path(__file__).parents[1] / "golden/minkowski.npz", allow_pickle=False)


@pytest.fixture(params=["wide", "paired", "torch", "chosen"])
def way(request, monkeypatch):
    """Each way in which torch's engine runs a map, in many small chunks; its own choice; and the engine that
    is chosen where nothing is."""
    choose_engine("auto" if request.param == "chosen" else "torch")
    if request.param in ("wide", "paired"):
        values = {"WIDE_SHARE": 0.0 if request.param == "wide" else 2.0, "STEM_CHANNELS": 0}
        sizes = {"WIDE_NUMBERS": 1, "WIDE_ROWS": 64, "PAIRED_ROWS": 64}
        for name, value in (values | sizes).items():
            monkeypatch.setattr(torch_engine, name, value)
    yield request.param
    choose_engine("auto")


def grid(*ranges):
    return torch.tensor(list(itertools.product(*ranges)))


def scattered(share, seed):
    cells = grid(range(2), range(-5, 4), range(-3, 5), range(0, 7))
    keep = torch.rand(len(cells), generator=torch.Generator().manual_seed(seed)) < share
    return cells[keep]


SHAPES = {
    "sparse": scattered(0.05, 1),
    "surface-like": scattered(0.3, 2),
    "full": scattered(1.0, 3),
    "plane": grid([0], range(-4, 5), range(8), [3]),
    "line": grid([0], [-1], range(-9, 9), [2]),
    "one": torch.tensor([[0, -3, 5, 7]]),
    "two": torch.tensor([[0, -3, 5, 7], [0, -2, 5, 7]]),
    "no-face-neighbours": torch.stack(
        [c for c in grid([0], range(7), range(7), range(7)) if c.sum() % 2 == 0]
    ),
    "scenes-in-one-place": grid([0, 7, 511], range(3), range(3), range(3)),
}
LAYERS = [(1, 1, 1), (3, 1, 1), (5, 1, 1), (3, 1, 2), (3, 1, 3), (5, 1, 2), (2, 2, 1), (3, 2, 1)]


def shuffled(coordinates, seed=0):
    return coordinates[torch.randperm(len(coordinates), generator=torch.Generator().manual_seed(seed))]


def dense_volume(features, coordinates, origin, size):
    scene, x, y, z = (coordinates - origin).T
    volume = features.new_zeros(int(scene.max()) + 1, size, size, size, features.shape[1])
    return volume.index_put((scene, x, y, z), features).permute(0, 4, 1, 2, 3)


def dense_weight(kernel, kernel_size):
    """(O, Cin, Cout) with x fastest -> (Cout, Cin, x, y, z)."""
    return kernel.reshape(kernel_size, kernel_size, kernel_size, *kernel.shape[-2:]).permute(4, 3, 2, 1, 0)


def dense_convolution(features, coordinates, kernel, kernel_size, stride, dilation, out_coordinates):
    origin = torch.tensor([0, -10, -10, -10])
    padding = kernel_size // 2 * dilation if kernel_size % 2 else 0
    volume = dense_volume(features, coordinates, origin, 20)
    out = F.conv3d(
        volume, dense_weight(kernel, kernel_size), stride=stride, padding=padding, dilation=dilation
    )
    scene, *axes = (out_coordinates - origin).long().T
    return out.permute(0, 2, 3, 4, 1)[scene, axes[0] // stride, axes[1] // stride, axes[2] // stride]


def assert_close(actual, expected, relative=1e-12):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= relative * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), LAYERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_and_gradients_are_the_dense_ones(way, shape, kernel_size, stride, dilation):
    torch.manual_seed(0)
    coordinates = shuffled(SHAPES[shape])
    scenes = coordinates[:, 0].unique(return_inverse=True)[1]
    channels = {"surface-like": (3, 5), "full": (7, 2)}.get(shape, (1, 4))
    features = torch.randn(len(coordinates), channels[0], dtype=torch.float64, requires_grad=True)
    layer = Conv3d(*channels, kernel_size, stride, dilation, bias=True).double()
    out = layer(SparseTensor(features, coordinates))
    gradient = torch.randn_like(out.features)
    actual = torch.autograd.grad(out.features, [features, layer.kernel, layer.bias], gradient)

    near = torch.cat([scenes[:, None], coordinates[:, 1:]], dim=1)  # scene 511 would be a large dense volume
    out_scenes = out.coordinates[:, 0].unique(return_inverse=True)[1]
    near_out = torch.cat([out_scenes[:, None], out.coordinates[:, 1:]], dim=1)
    dense = (
        dense_convolution(features, near, layer.kernel, kernel_size, stride, dilation, near_out) + layer.bias
    )
    expected = torch.autograd.grad(dense, [features, layer.kernel, layer.bias], gradient)
    for one, other in zip([out.features, *actual], [dense, *expected], strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("shape", SHAPES)
def test_transposed_convolution_and_gradients_are_the_dense_ones(way, shape):
    torch.manual_seed(0)
    x = SparseTensor(torch.zeros(len(SHAPES[shape]), 1), shuffled(SHAPES[shape]))
    coarse = Conv3d(1, 1, kernel_size=2, stride=2)(x)
    features = torch.randn(len(coarse), 3, dtype=torch.float64, requires_grad=True)
    layer = ConvTranspose3d(3, 5).double()
    out = layer(coarse.with_features(features))
    gradient = torch.randn_like(out.features)
    actual = torch.autograd.grad(out.features, [features, layer.kernel], gradient)

    # each fine voxel: its parent's features times the kernel of its place among the parent's children
    parent = coarse.coordinates.tolist()
    rows = torch.tensor(
        [parent.index([s, x // 2 * 2, y // 2 * 2, z // 2 * 2]) for s, x, y, z in x.coordinates]
    )
    child = (x.coordinates[:, 1:] % 2 * torch.tensor([1, 2, 4])).sum(1)
    dense = torch.einsum("na,nab->nb", features[rows], layer.kernel[child])
    expected = torch.autograd.grad(dense, [features, layer.kernel], gradient)
    for one, other in zip([out.features, *actual], [dense, *expected], strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("channels", [(1, 1), (3, 16), (16, 33), (33, 7), (64, 96), (100, 20)])
def test_small_integers_are_exact_in_float32(way, channels):
    random = torch.Generator().manual_seed(0)
    coordinates = shuffled(SHAPES["surface-like"])
    features = (
        torch.randint(-4, 5, (len(coordinates), channels[0]), generator=random).float().requires_grad_()
    )
    layer = Conv3d(*channels, kernel_size=3)
    layer.kernel.data = torch.randint(-4, 5, layer.kernel.shape, generator=random).float()
    out = layer(SparseTensor(features, coordinates)).features
    gradient = torch.randint(-4, 5, out.shape, generator=random).float()
    actual = torch.autograd.grad(out, [features, layer.kernel], gradient)
    double = [t.detach().double().requires_grad_() for t in (features, layer.kernel)]
    dense = dense_convolution(double[0], coordinates, double[1], 3, 1, 1, coordinates)
    expected = torch.autograd.grad(dense, double, gradient.double())
    for one, other in zip([out, *actual], [dense, *expected], strict=True):
        assert torch.equal(one.double(), other)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_an_impulse_gives_the_kernel(way, kernel_size):
    radius = kernel_size // 2
    coordinates = grid([0], *[range(-radius, radius + 1)] * 3)
    features = (coordinates == 0).all(1).double()[:, None]
    layer = Conv3d(1, 2, kernel_size).double()
    out = layer(SparseTensor(features, coordinates))
    for row, (_, x, y, z) in zip(out.features, coordinates.tolist(), strict=True):
        place = (radius - x) + kernel_size * (radius - y) + kernel_size**2 * (radius - z)
        assert torch.equal(row, layer.kernel[place, 0])


def test_a_nan_reaches_exactly_its_neighbourhood(way):
    coordinates = shuffled(SHAPES["surface-like"])
    features = torch.randn(len(coordinates), 8)
    features[17] = torch.nan
    out = Conv3d(8, 8, kernel_size=3)(SparseTensor(features, coordinates)).features
    near = (coordinates - coordinates[17]).abs()
    assert torch.equal(out.isnan().any(1), (near[:, 0] == 0) & (near[:, 1:].amax(1) <= 1))


def test_gradients_are_adjoint(way):
    coordinates = shuffled(SHAPES["surface-like"])
    features = torch.randn(len(coordinates), 24, requires_grad=True)
    layer = Conv3d(24, 20, kernel_size=3)
    out = layer(SparseTensor(features, coordinates)).features
    gradient = torch.randn_like(out)
    to_features, to_kernel = torch.autograd.grad(out, [features, layer.kernel], gradient)
    product = (out * gradient).sum()
    size = out.norm() * gradient.norm()
    assert abs(product - (to_features * features).sum()) < 1e-5 * size
    assert abs(product - (to_kernel * layer.kernel).sum()) < 1e-5 * size


def test_gradcheck(way):
    coordinates = scattered(0.05, 5)
    kernels = [torch.randn(27, 2, 3), torch.randn(8, 3, 2), torch.randn(8, 2, 2), torch.randn(27, 2, 1)]
    layers = [Conv3d(2, 3, 3), Conv3d(3, 2, 2, 2), ConvTranspose3d(2, 2), Conv3d(2, 1, 3, stride=2)]

    def call(features, *kernels):
        x = SparseTensor(features, coordinates)
        for layer, kernel in zip(layers, kernels, strict=True):
            x = torch.func.functional_call(layer, {"kernel": kernel}, (x,))
        return x.features

    inputs = [torch.randn(len(coordinates), 2), *kernels]
    assert torch.autograd.gradcheck(call, [t.double().requires_grad_() for t in inputs])


def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(way):
    coordinates = shuffled(SHAPES["surface-like"])
    layer = Conv3d(6, 5, kernel_size=3)
    features = torch.randn(len(coordinates), 6, requires_grad=True)
    gradient = torch.randn(len(coordinates), 5)

    def gradients(features_need, kernel_needs):
        x = features.detach().requires_grad_(features_need)
        layer.kernel.grad = None
        layer.kernel.requires_grad_(kernel_needs)
        layer(SparseTensor(x, coordinates)).features.backward(gradient)
        return x.grad, layer.kernel.grad

    both = gradients(True, True)
    alone = gradients(True, False)
    assert torch.equal(alone[0], both[0])
    assert alone[1] is None
    alone = gradients(False, True)
    assert alone[0] is None
    assert_close(alone[1], both[1], relative=1e-5)


def test_scenes_do_not_touch_each_other(way):
    a, b = SHAPES["surface-like"].clone(), scattered(0.5, 9)
    a[:, 0], b[:, 0] = 0, 1
    a, b = a.unique(dim=0), b.unique(dim=0)
    features = torch.randn(len(a) + len(b), 8)
    layer = Conv3d(8, 8, kernel_size=5)
    together = layer(SparseTensor(features, torch.cat([a, b]))).features
    assert_close(together[: len(a)], layer(SparseTensor(features[: len(a)], a)).features, relative=1e-6)
    assert_close(together[len(a) :], layer(SparseTensor(features[len(a) :], b)).features, relative=1e-6)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (5, 1), (2, 2), (3, 2)])
def test_permuted_rows_give_the_permuted_result_to_the_bit(way, kernel_size, stride):
    coordinates = SHAPES["surface-like"]
    features = torch.randn(len(coordinates), 8)
    order = torch.randperm(len(coordinates))
    layer = Conv3d(8, 9, kernel_size, stride)
    results = []
    for rows in (torch.arange(len(coordinates)), order):
        x = features[rows].requires_grad_()
        layer.kernel.grad = None
        out = layer(SparseTensor(x, coordinates[rows]))
        weight = out.coordinates.double() @ torch.tensor([3.0, 1.0, 0.7, 0.3]).double()
        (out.features.sin() * weight[:, None].float()).sum().backward()
        results.append((out.features, x.grad, layer.kernel.grad))
    first, second = results
    assert torch.equal(second[0], first[0][order] if stride == 1 else first[0])
    assert torch.equal(second[1], first[1][order])
    assert torch.equal(second[2], first[2])


def test_a_second_derivative_is_refused():
    features = torch.randn(2, 3, requires_grad=True)
    out = Conv3d(3, 3, kernel_size=3)(SparseTensor(features, SHAPES["two"])).features
    (gradient,) = torch.autograd.grad((out**2).sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def autocast_errors(device, kind):
    """Relative errors of output and gradients under autocast, against float64 on the same rounded values."""
    coordinates = shuffled(SHAPES["surface-like"])
    torch.manual_seed(0)
    features = torch.randn(len(coordinates), 24).to(kind).float().to(device).requires_grad_()
    layer = Conv3d(24, 20, kernel_size=3).to(device)
    layer.kernel.data = layer.kernel.data.to(kind).float()
    with torch.autocast(device, dtype=kind):
        out = layer(SparseTensor(features, coordinates.to(device))).features
    assert out.dtype == kind
    gradient = torch.randn_like(out)
    actual = torch.autograd.grad(out, [features, layer.kernel], gradient)
    assert [g.dtype for g in actual] == [torch.float32] * 2
    double = [t.detach().double().cpu().requires_grad_() for t in (features, layer.kernel)]
    dense = dense_convolution(double[0], coordinates, double[1], 3, 1, 1, coordinates)
    expected = torch.autograd.grad(dense, double, gradient.double().cpu())
    pairs = zip([out, *actual], [dense, *expected], strict=True)
    return [((a.double().cpu() - b).norm() / b.norm()).item() for a, b in pairs]


def test_autocast_computes_in_its_type_and_keeps_float32_gradients(way):
    assert max(autocast_errors("cpu", torch.bfloat16)) < 6e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_in_half_and_in_single_precision(way):
    assert max(autocast_errors("cuda", torch.float16)) < 1e-3
    coordinates, features = shuffled(SHAPES["surface-like"]), torch.randn(len(SHAPES["surface-like"]), 24)
    layer = Conv3d(24, 20, kernel_size=3)
    expected = layer(SparseTensor(features, coordinates)).features
    actual = layer.cuda()(SparseTensor(features.cuda(), coordinates.cuda())).features
    assert_close(actual.cpu(), expected, relative=1e-5)


def golden(name):
    prefix = name + "/"
    return {
        key[len(prefix) :]: torch.from_numpy(GOLDEN[key]) for key in GOLDEN.files if key.startswith(prefix)
    }


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("conv_k1_s1", (1,)), ("conv_k3_s1", (3,)), ("conv_k5_s1", (5,)), ("conv_k3_d2", (3, 1, 2))]
    + [("conv_k2_s2", (2, 2)), ("conv_k3_s2", (3, 2))],
)
def test_layers_are_those_of_minkowski_engine(way, name, arguments):
    values = golden(name)
    layer = Conv3d(*values["kernel"].shape[-2:], *arguments, bias="bias" in values).double()
    layer.load_state_dict({key: values[key] for key in ("kernel", "bias") if key in values})
    features = values["feats"].requires_grad_()
    out = layer(SparseTensor(features, values["coords"]))
    order = np.lexsort(out.coordinates.numpy().T[::-1])
    assert torch.equal(out.coordinates[order].int(), values["out_coords_sorted"])
    assert_close(out.features[order], values["out_feats_sorted"], relative=1e-9)
    gradient = torch.empty_like(out.features)
    gradient[order] = values["grad_out_sorted"]
    out.features.backward(gradient)
    assert_close(features.grad, values["grad_feats"], relative=1e-9)
    assert_close(layer.kernel.grad, values["grad_kernel"], relative=1e-9)
    if "bias" in values:
        assert_close(layer.bias.grad, values["grad_bias"], relative=1e-9)


def test_down_and_up_again_are_those_of_minkowski_engine(way):
    values = golden("down_up_k2_s2")
    down, up = Conv3d(5, 6, kernel_size=2, stride=2).double(), ConvTranspose3d(6, 4).double()
    down.kernel.data, up.kernel.data = values["down_kernel"], values["up_kernel"]
    features = values["feats"].requires_grad_()
    out = up(down(SparseTensor(features, values["coords"]))).features
    out.backward(values["grad_out"])
    assert_close(out, values["out_feats"], relative=1e-9)
    assert_close(features.grad, values["grad_feats"], relative=1e-9)
    assert_close(down.kernel.grad, values["grad_down_kernel"], relative=1e-9)
    assert_close(up.kernel.grad, values["grad_up_kernel"], relative=1e-9)
