"""Bad input as a user meets it: one line with the value, or for degenerate sizes the right answer."""

import itertools

import pytest
import torch

from scannet_css.errors import InputError
from scannet_css.network import build_network
from scannet_css.sparse import BatchNorm, Conv3d, ConvTranspose3d, SparseTensor
from scannet_css.sparse.engines import choice

TWO = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]])
ONE = torch.tensor([[1, -3, 6, 7]])  # its octant among its parent's children: x 1, y 0, z 1
LARGE = torch.tensor(
    [(scene, *xyz) for scene in (0, 2) for xyz in itertools.product(range(-5, 0), range(4, 9), range(5, 10))]
)


def two_voxels(channels=1):
    return SparseTensor(torch.zeros(2, channels), TWO)


@pytest.mark.parametrize(
    ("features", "coordinates", "message"),
    [
        pytest.param(
            torch.zeros(5, 1),
            TWO[[0, 1, 1, 0, 1]],
            "coordinates: [0, 0, 0, 0] occurs more than once; rows must be distinct (3 rows too many)",
            id="duplicates",
        ),
        pytest.param(
            torch.zeros(2, 1),
            TWO.float(),
            "coordinates: torch.float32, expected integers (voxelise the points first)",
            id="float coordinates",
        ),
        pytest.param(
            torch.zeros(2, 1),
            TWO == 0,
            "coordinates: torch.bool, expected integers (voxelise the points first)",
            id="boolean coordinates",
        ),
        pytest.param(
            torch.zeros(0, 1),
            TWO[:0],
            "coordinates: 0 rows, expected at least one voxel",
            id="empty batch",
        ),
        pytest.param(
            torch.zeros(3, 1), TWO, "features: 3 rows, but coordinates: 2 rows", id="numbers of rows"
        ),
        pytest.param(
            torch.zeros(2, 1),
            TWO[:, 1:],
            "coordinates: shape (2, 3), expected (N, 4): scene, x, y, z",
            id="no scene",
        ),
        pytest.param(
            torch.zeros(2, 1).long(),
            TWO,
            "features: torch.int64 (2, 1), expected float (N, C)",
            id="integer features",
        ),
        pytest.param(
            torch.zeros(2), TWO, "features: torch.float32 (2,), expected float (N, C)", id="no channels"
        ),
        pytest.param(
            torch.zeros(2, 1, device="meta"),
            TWO,
            "features are on meta, but coordinates on cpu",
            id="features elsewhere",
        ),
        pytest.param(
            torch.zeros(2, 1),
            TWO.to("meta"),
            "features are on cpu, but coordinates on meta",
            id="coordinates elsewhere",
        ),
    ],
)
def test_what_is_no_sparse_tensor_is_refused(features, coordinates, message):
    with pytest.raises(InputError) as caught:
        SparseTensor(features, coordinates)
    assert str(caught.value) == message


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((0, 65536, 0, 0), "x = 65536 is outside of [-65536, 65535]"),
        ((0, 0, -65537, 0), "y = -65537 is outside of [-65536, 65535]"),
        ((0, 0, 0, 2**31 - 1), "z = 2147483647 is outside of [-65536, 65535]"),
        ((512, 0, 0, 0), "scene = 512 is outside of [0, 511]"),
        ((-1, 0, 0, 0), "scene = -1 is outside of [0, 511]"),
        ((-1, 0, 0, 65536), "scene = -1 is outside of [0, 511]"),
    ],
)
def test_coordinates_out_of_range_are_refused(dtype, row, message):
    coordinates = torch.cat([TWO, torch.tensor([row])]).to(dtype)
    with pytest.raises(InputError) as caught:
        SparseTensor(torch.zeros(3, 1), coordinates)
    assert str(caught.value) == f"coordinates: {message}"


def test_an_integer_that_would_overflow_the_key_is_refused():
    with pytest.raises(InputError, match=r"^coordinates: x = 4611686018427387904 is outside of \[-65536"):
        SparseTensor(torch.zeros(1, 1), torch.tensor([[0, 2**62, 0, 0]]))


SUPPORTED = "(size, stride) must be one of (1, 1), (3, 1), (5, 1), (2, 2), (3, 2)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv3d(1, 1, 4), f"kernel_size 4 with stride 1 is not supported; {SUPPORTED}"),
        (lambda: Conv3d(1, 1, 0), f"kernel_size 0 with stride 1 is not supported; {SUPPORTED}"),
        (lambda: Conv3d(1, 1, 7), f"kernel_size 7 with stride 1 is not supported; {SUPPORTED}"),
        (
            lambda: Conv3d(1, 1, (3, 3, 3)),
            f"kernel_size (3, 3, 3) with stride 1 is not supported; {SUPPORTED}",
        ),
        (lambda: Conv3d(1, 1, 2), f"kernel_size 2 with stride 1 is not supported; {SUPPORTED}"),
        (lambda: Conv3d(1, 1, 3, stride=3), f"kernel_size 3 with stride 3 is not supported; {SUPPORTED}"),
        (lambda: Conv3d(1, 1, 5, stride=2), f"kernel_size 5 with stride 2 is not supported; {SUPPORTED}"),
        (lambda: Conv3d(1, 1, 3, stride=0), f"kernel_size 3 with stride 0 is not supported; {SUPPORTED}"),
        (
            lambda: Conv3d(1, 1, 2, stride=2, dilation=2),
            "dilation 2 with stride 2 is not supported; expected 1, or stride 1",
        ),
        (
            lambda: Conv3d(1, 1, 3, dilation=0),
            "dilation 0 with stride 1 is not supported; expected 1, or stride 1",
        ),
        (
            lambda: ConvTranspose3d(1, 1, kernel_size=3),
            "a transposed convolution has kernel_size 2 and stride 2, not 3 and 2",
        ),
        (
            lambda: ConvTranspose3d(1, 1, stride=1),
            "a transposed convolution has kernel_size 2 and stride 2, not 2 and 1",
        ),
    ],
)
def test_layers_that_do_not_exist_are_refused(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ConvTranspose3d(1, 1)(two_voxels()),
            "the transposed convolution needs a finer level, but its input has stride 1",
        ),
        (lambda: Conv3d(2, 1, 3)(two_voxels()), "features: 1 channels, the layer takes 2"),
        (lambda: Conv3d(2, 1, 1)(two_voxels()), "features: 1 channels, the layer takes 2"),
        (
            lambda: ConvTranspose3d(3, 1)(Conv3d(1, 2, 2, stride=2)(two_voxels())),
            "features: 2 channels, the layer takes 3",
        ),
        (
            lambda: build_network("minkunet14s", in_channels=6)(two_voxels(3)),
            "features: 3 channels, the layer takes 6",
        ),
        (
            lambda: Conv3d(1, 1, 3, dilation=70_000)(two_voxels()),
            "kernel_size 3, dilation 70000 at stride 1 reaches 70000 voxels; the limit is 65535",
        ),
        (lambda: two_voxels().with_features(torch.zeros(3, 1)), "features: 3 rows for 2 voxels"),
        (
            lambda: two_voxels().with_features(torch.zeros(2, 1, device="meta")),
            "features are on meta, but the voxels on cpu",
        ),
        (lambda: Conv3d(1, 2, 3).to("meta")(two_voxels()), "features are on cpu, but the layer on meta"),
        (lambda: Conv3d(1, 2, 1).to("meta")(two_voxels()), "features are on cpu, but the layer on meta"),
        (
            lambda: ConvTranspose3d(2, 2).to("meta")(Conv3d(1, 2, 2, stride=2)(two_voxels())),
            "features are on cpu, but the layer on meta",
        ),
        (
            lambda: build_network("minkunet14s").to("meta")(two_voxels(3)),
            "features are on cpu, but the layer on meta",
        ),
    ],
)
def test_layers_refuse_what_they_cannot_take(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message


def test_an_engine_that_is_not_known_is_refused_at_the_first_convolution(monkeypatch):
    monkeypatch.setattr(choice, "_chosen", None)
    monkeypatch.setenv("SCANNET_CSS_ENGINE", "tritn")
    with pytest.raises(InputError) as caught:
        Conv3d(1, 1, 3)(two_voxels())
    assert str(caught.value) == (
        "SCANNET_CSS_ENGINE 'tritn' is not known (did you mean 'triton'?);"
        " expected auto, triton, grouped, native, torch, spconv, minkowski"
    )


@pytest.fixture(params=choice.ENGINES)
def each_engine(request, monkeypatch):
    reason = choice.why_unavailable(request.param, torch.device("cpu"), torch.float32)
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setattr(choice, "_chosen", request.param)


def integers(*shape):
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(len(shape))).float()


# The offset under which the voxel ONE meets its own output voxel: the centre, or its place in its parent.
LAYERS = [(1, 1, 0), (3, 1, 13), (5, 1, 62), (2, 2, 1 + 4), (3, 2, 13 + 1 + 9)]


@pytest.mark.parametrize("surroundings", [LARGE[:0], LARGE], ids=["alone", "in a batch"])
@pytest.mark.parametrize(("kernel_size", "stride", "offset"), LAYERS)
def test_a_scene_of_one_voxel_meets_one_weight(each_engine, kernel_size, stride, offset, surroundings):
    coordinates = torch.cat([surroundings, ONE])
    features = integers(len(coordinates), 5).requires_grad_()
    layer = Conv3d(5, 7, kernel_size, stride)
    layer.kernel.data = integers(*layer.kernel.shape)
    weight = layer.kernel if kernel_size == 1 else layer.kernel[offset]
    out = layer(SparseTensor(features, coordinates))
    (row,) = (out.coordinates[:, 0] == 1).nonzero()[:, 0].tolist()
    assert out.coordinates[row, 1:].tolist() == [value // stride * stride for value in ONE[0, 1:].tolist()]
    assert torch.equal(out.features[row], features[-1] @ weight)

    out.features[row].sum().backward()
    assert torch.equal(features.grad[-1], weight.sum(1))
    assert not features.grad[:-1].any()
    expected = torch.zeros_like(layer.kernel)
    expected.view(-1, 5, 7)[offset] = features[-1].detach()[:, None]
    assert torch.equal(layer.kernel.grad, expected)


@pytest.mark.parametrize("surroundings", [LARGE[:0], LARGE], ids=["alone", "in a batch"])
def test_a_scene_of_one_voxel_comes_back_from_its_parent(each_engine, surroundings):
    coordinates = torch.cat([surroundings, ONE])
    down, up = Conv3d(3, 4, 2, stride=2), ConvTranspose3d(4, 6)
    down.kernel.data, up.kernel.data = integers(8, 3, 4), integers(8, 4, 6)
    features = integers(len(coordinates), 3)
    out = up(down(SparseTensor(features, coordinates)))
    assert torch.equal(out.coordinates, coordinates)
    assert torch.equal(out.features[-1], features[-1] @ down.kernel[5] @ up.kernel[5])


def test_a_scene_of_one_voxel_gets_the_same_logits_alone_and_in_a_batch(each_engine):
    torch.manual_seed(0)
    network = build_network("minkunet14s").eval()
    features = torch.randn(len(LARGE) + 1, 3)
    with torch.no_grad():
        together = network(SparseTensor(features, torch.cat([LARGE, ONE]))).logits[-1:]
        alone = network(SparseTensor(features[-1:], ONE)).logits
    assert alone.shape == (1, 20)
    assert (together - alone).abs().max() <= 1e-5 * alone.abs().max()


def test_one_voxel_is_normalised_with_the_running_statistics():
    """A variance needs two; a room smaller than 16 voxels that stands alone has one at the coarsest level."""
    norm = BatchNorm(3)
    norm.bn.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.bn.running_var.copy_(torch.tensor([4.0, 1.0, 0.25]))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = SparseTensor(torch.tensor([[5.0, 2.0, 2.0]], requires_grad=True), ONE)
    out = norm(x).features
    torch.testing.assert_close(out, torch.tensor([[2.0, 0.0, -2.0]]), rtol=0, atol=1e-4)
    out.sum().backward()
    torch.testing.assert_close(x.features.grad, torch.tensor([[0.5, 1.0, 2.0]]), rtol=0, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())

    network = build_network("minkunet14s")  # the coarsest level has one voxel, the others two
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(
        SparseTensor(torch.randn(2, 3), torch.tensor([[0, 0, 0, 0], [0, 9, 9, 9]]))
    ).logits.sum().backward()
    after = network.state_dict()
    assert torch.equal(after["bn4.bn.running_mean"], before["bn4.bn.running_mean"])
    assert not torch.equal(after["bn3.bn.running_mean"], before["bn3.bn.running_mean"])
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_levels_too_coarse_for_the_keys_are_refused():
    x, down = two_voxels(), Conv3d(1, 1, 2, stride=2)
    for _ in range(17):
        x = down(x)
    assert x.stride == 131072 and len(x) == 1
    with pytest.raises(InputError) as caught:
        down(x)
    assert str(caught.value) == "stride 262144 is not supported; the coarsest level has 131072"
