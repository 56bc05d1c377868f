"""The optional engines spconv and MinkowskiEngine against our own engine and the golden values."""

import itertools
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scannet_css.errors import InputError
from scannet_css.network import MinkUNet, build_network
from scannet_css.sparse import Conv3d, ConvTranspose3d, SparseTensor
from scannet_css.sparse.conv import convolve_without_gradient
from scannet_css.sparse.engines import choice

GOLDEN = np.load(Path(__file__).parents[1] / "golden/minkowski.npz", allow_pickle=False)
MODULES = {"spconv": "spconv.cppconstants", "minkowski": "MinkowskiEngine"}
PRECISION = {"spconv": (torch.float32, 1e-5), "minkowski": (torch.float64, 1e-9)}  # against golden values
LAYERS = [(3, 1, 1), (5, 1, 1), (3, 1, 2), (2, 2, 1), (3, 2, 1)]  # kernel size, stride, dilation


@pytest.fixture(params=MODULES)
def peer(request):
    """Runs the test with each peer that is installed."""
    reason = choice.why_unavailable(request.param, torch.device("cpu"), torch.float32)
    if reason is not None:
        pytest.skip(reason)
    choice.choose_engine(request.param)
    assert choice.engine_name(torch.device("cpu"), torch.float32) == request.param
    yield request.param
    choice._chosen = None


def some(share, *ranges):
    cells = torch.tensor(list(itertools.product(*ranges)))
    generator = torch.Generator().manual_seed(0)
    return cells[torch.randperm(len(cells), generator=generator)[: max(1, int(share * len(cells)))]]


SHAPES = {
    "scenes": some(0.3, (0, 1, 9), range(-9, 8), range(-8, 9), range(0, 5)),
    "plane": some(0.9, (0,), range(-20, 20), range(20), (3,)),
    "full": some(1.0, (2,), range(-3, 4), range(5), range(6)),
    "one": torch.tensor([[0, -3, 5, 7]]),
    "far-apart": torch.tensor([[0, -30, 5, 7], [0, 30, 5, 7], [1, -29, 5, 7]]),
}


def results(layer, x, features):
    """Output and both gradients; the gradient of the output depends on the rows' coordinates alone."""
    out = layer(x.with_features(features))
    weight = out.coordinates.double() @ torch.tensor([3.0, 1.0, 0.7, 0.3], dtype=torch.float64)
    gradient = torch.sin(weight[:, None] + torch.arange(out.features.shape[1])).to(features.dtype)
    return out.features, *torch.autograd.grad(out.features, [features, layer.kernel], gradient)


def assert_as_torch(peer, layer, x, features):
    actual = results(layer, x, features)
    choice.choose_engine("torch")
    for one, other in zip(actual, results(layer, x, features), strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other)
    choice.choose_engine(peer)


def assert_close(actual, expected, relative=1e-5):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= relative * expected.abs().max()


@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), LAYERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions_are_those_of_our_engine(peer, shape, kernel_size, stride, dilation):
    torch.manual_seed(0)
    features = torch.randn(len(SHAPES[shape]), 7, requires_grad=True)
    x = SparseTensor(features, SHAPES[shape])
    assert_as_torch(peer, Conv3d(7, 20, kernel_size, stride, dilation), x, features)


@pytest.mark.parametrize("shape", SHAPES)
def test_transposed_convolutions_are_those_of_our_engine(peer, shape):
    torch.manual_seed(0)
    x = SparseTensor(torch.randn(len(SHAPES[shape]), 3), SHAPES[shape])
    coarse = Conv3d(3, 5, kernel_size=2, stride=2)(x)
    features = coarse.features.detach().requires_grad_()
    assert_as_torch(peer, ConvTranspose3d(5, 9), coarse, features)


@pytest.mark.parametrize("is_odd", [True, False])
def test_layers_of_coarser_levels_are_those_of_our_engine(peer, is_odd):
    torch.manual_seed(0)
    x = SparseTensor(torch.randn(len(SHAPES["scenes"]), 3), SHAPES["scenes"])
    coarse = Conv3d(3, 5, kernel_size=2, stride=2)(x)
    features = coarse.features.detach().requires_grad_()
    layer = Conv3d(5, 4, kernel_size=3) if is_odd else Conv3d(5, 4, kernel_size=2, stride=2)
    assert_as_torch(peer, layer, coarse, features)


def test_what_is_frozen_gets_no_gradient(peer):
    x = SparseTensor(torch.randn(len(SHAPES["plane"]), 3), SHAPES["plane"])
    kernel_map = x.manager.map(1, 3, 1)
    kernel, gradient = torch.randn(27, 3, 4), torch.randn(len(x), 4)
    gradients = choice.engine_for(x.features.device, torch.float32).gradients
    both = gradients(x.features, kernel, gradient, kernel_map, True, True)
    first = gradients(x.features, kernel, gradient, kernel_map, True, False)
    second = gradients(x.features, kernel, gradient, kernel_map, False, True)
    assert first[1] is None
    assert second[0] is None
    assert_close(first[0], both[0])
    assert_close(second[1], both[1])


@pytest.mark.parametrize("has_residual", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_bias_residual_and_relu_follow_the_sum(peer, has_residual, relu):
    x = SparseTensor(torch.randn(len(SHAPES["plane"]), 3), SHAPES["plane"])
    kernel_map = x.manager.map(1, 3, 1)
    kernel, bias = torch.randn(27, 3, 4), torch.randn(4)
    residual = torch.randn(len(x), 4) if has_residual else None
    results = []
    for name in (peer, "torch"):
        choice.choose_engine(name)
        arguments = x.features, kernel, kernel_map, bias, residual, relu
        results.append(convolve_without_gradient(*arguments))
    assert_close(*results)


def test_what_a_peer_cannot_run_is_refused_in_one_line(peer):
    layer = Conv3d(2, 3, kernel_size=3).bfloat16()
    x = SparseTensor(torch.ones(1, 2, dtype=torch.bfloat16), SHAPES["one"])
    with pytest.raises(InputError, match=f"^engine '{peer}' cannot run torch.bfloat16 on cpu: .+ runs .+$"):
        layer(x)


@pytest.mark.parametrize("name", MODULES)
def test_an_absent_peer_is_refused_in_one_line(name, monkeypatch):
    monkeypatch.setitem(sys.modules, MODULES[name], None)
    monkeypatch.setattr(choice, "_engine", choice._engine.__wrapped__)
    monkeypatch.setattr(choice, "_chosen", name)
    with pytest.raises(
        InputError, match=r"cannot run torch.float32 on cpu: .+ cannot be imported .+"
    ) as error:
        Conv3d(2, 3, kernel_size=3)(SparseTensor(torch.ones(1, 2), SHAPES["one"]))
    assert "\n" not in str(error.value)


def golden(name, dtype):
    """The golden tensors below that name; floating point in that type."""
    values = {key.split("/")[1]: GOLDEN[key] for key in GOLDEN.files if key.startswith(name + "/")}
    tensors = {key: torch.from_numpy(value) for key, value in values.items() if value.dtype.kind in "fi"}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("conv_k3_s1", (3,)), ("conv_k5_s1", (5,)), ("conv_k3_d2", (3, 1, 2))]
    + [("conv_k2_s2", (2, 2)), ("conv_k3_s2", (3, 2))],
)
def test_layers_have_the_golden_values(peer, name, arguments):
    dtype, relative = PRECISION[peer]
    values = golden(name, dtype)
    layer = Conv3d(*values["kernel"].shape[-2:], *arguments, bias="bias" in values).to(dtype)
    layer.load_state_dict({key: values[key] for key in ("kernel", "bias") if key in values})
    features = values["feats"].requires_grad_()
    out = layer(SparseTensor(features, values["coords"]))
    order = np.lexsort(out.coordinates.numpy().T[::-1])
    assert_close(out.features[order], values["out_feats_sorted"], relative)
    gradient = torch.empty_like(out.features)
    gradient[order] = values["grad_out_sorted"]
    out.features.backward(gradient)
    assert_close(features.grad, values["grad_feats"], relative)
    assert_close(layer.kernel.grad, values["grad_kernel"], relative)


def test_down_and_up_again_has_the_golden_values(peer):
    dtype, relative = PRECISION[peer]
    values = golden("down_up_k2_s2", dtype)
    down, up = Conv3d(5, 6, kernel_size=2, stride=2), ConvTranspose3d(6, 4)
    down.kernel.data, up.kernel.data = values["down_kernel"], values["up_kernel"]
    features = values["feats"].requires_grad_()
    out = up(down(SparseTensor(features, values["coords"]))).features
    out.backward(values["grad_out"])
    assert_close(out, values["out_feats"], relative)
    assert_close(features.grad, values["grad_feats"], relative)
    assert_close(down.kernel.grad, values["grad_down_kernel"], relative)
    assert_close(up.kernel.grad, values["grad_up_kernel"], relative)


def golden_network(name):
    """The weights of the golden networks follow from the parameters' names."""
    if name == "MinkUNetTiny":
        network = MinkUNet(3, 20, planes=(8, 16, 32, 32, 32, 16, 16, 16), layers=(1,) * 8, stem=8)
    else:
        network = build_network(name.lower())
    for key, parameter in network.named_parameters():
        if parameter.dim() > 1:
            values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(parameter.shape))
            values = values / np.sqrt(int(np.prod(parameter.shape[:-1])))
            parameter.data.copy_(torch.from_numpy(values.astype(np.float32)))
    return network


@pytest.mark.parametrize("name", ["MinkUNetTiny", "MinkUNet18A", "MinkUNet34C"])
def test_networks_have_the_golden_values(peer, name):
    dtype, _ = PRECISION[peer]
    values = golden(name, dtype)
    network = golden_network(name).to(dtype)
    out = network.train()(SparseTensor(values["feats"], values["coords"]))
    assert_close(out.logits, values["logits_train"], relative=1e-4)
    loss = F.cross_entropy(out.logits, values["labels"])
    loss.backward()
    assert loss.item() == pytest.approx(values["loss"].item(), rel=1e-5)
    gradients = {key: parameter.grad.norm().item() for key, parameter in network.named_parameters()}
    names = GOLDEN[f"{name}/param_names"].tolist()
    # the golden values are float32 here, in which the sign of an activation next to zero may turn
    assert [gradients[key] for key in names] == pytest.approx(values["grad_norms"].tolist(), rel=1e-2)
