"""The growing classifier: what stays, and where new classes start."""

import copy
import math

import pytest
import torch

from scannet_css.errors import InputError
from scannet_css.network import build_network, grow
from scannet_css.sparse import SparseTensor


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = build_network("minkunet14s", classes=5).eval()
    network.final.bias.data.normal_()
    return network


@pytest.fixture
def x():
    torch.manual_seed(1)
    return SparseTensor(torch.randn(8, 3), torch.cartesian_prod(*[torch.arange(2)] * 4)[::2])


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("new_classes", [1, 3])
def test_from_the_background_old_probabilities_stay(network, x, kind, tolerance, new_classes):
    network, x = network.to(kind), x.with_features(x.features.to(kind))
    before = network(x).logits.softmax(1)
    grow(network, new_classes)
    after = network(x).logits.softmax(1)
    assert after.shape == (8, 5 + new_classes)
    assert (after[:, 1:5] - before[:, 1:]).abs().max() < tolerance
    shared = before[:, :1] / (new_classes + 1)
    assert (after[:, [0, *range(5, 5 + new_classes)]] - shared).abs().max() < tolerance


def test_growing_twice_shares_the_background_again(network, x):
    before = network(x).logits.softmax(1)
    grow(network, 2)
    grow(network, 1)
    after = network(x).logits.softmax(1)
    expected = before[:, 0, None] * torch.tensor([1 / 6, 1 / 3, 1 / 3, 1 / 6])
    torch.testing.assert_close(after[:, [0, 5, 6, 7]], expected)


def test_plain_leaves_old_channels_alone_and_starts_new_ones_afresh(network, x):
    old = copy.deepcopy(network.final)
    grow(network, 2000, start="plain")
    assert torch.equal(network.final.kernel[:, :5], old.kernel)
    assert torch.equal(network.final.bias[:, :5], old.bias)
    assert torch.equal(network.final.bias[:, 5:], torch.zeros(1, 2000))
    assert network.final.kernel[:, 5:].std().item() == pytest.approx(math.sqrt(2 / 32), rel=0.02)
    assert network.final.kernel[:, 5:].mean().item() == pytest.approx(0, abs=0.01)


def test_grown_parameters_are_trainable_parameters_of_the_new_size(network, x):
    grow(network, 2)
    assert network.classes == network.final.out_channels == 7
    parameters = dict(network.named_parameters())
    assert (parameters["final.kernel"].shape, parameters["final.bias"].shape) == ((32, 7), (1, 7))
    network(x).logits[:, 5:].sum().backward()
    assert (network.final.kernel.grad[:, :5] == 0).all()
    assert (network.final.kernel.grad[:, 5:].abs().sum(0) > 0).all()
    build_network("minkunet14s", classes=7).load_state_dict(network.state_dict())


@pytest.mark.parametrize("new_classes", [0, -1])
def test_nothing_to_grow_is_refused(network, new_classes):
    with pytest.raises(InputError, match=f"new_classes {new_classes}: .* at least 1"):
        grow(network, new_classes)
    assert network.classes == 5


def test_an_unknown_start_is_refused(network):
    with pytest.raises(InputError, match="start 'zero' .* expected one of background, copy, plain"):
        grow(network, 1, start="zero")
