"""Two branches in the place of a convolution, and what becomes of them."""

import copy

import pytest
import torch

from scannet_css.network.branches import TwoBranches, _merged, add_branches, merge_branches
from scannet_css.network.minkunet import MinkUNet
from scannet_css.sparse import BatchNorm, Conv3d, SparseTensor


def moved(network, size=0.1):
    """Everything that a training may change, at random."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn_like(parameter)
        for module in network.modules():
            if isinstance(module, BatchNorm):
                module.bn.running_mean.normal_(0, 0.2)
                module.bn.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture
def network():
    torch.manual_seed(0)
    return moved(MinkUNet(3, 4, (4, 4, 6, 6, 6, 6, 5, 6), stem=4, stem_kernel_size=3), 0.3).eval()


@pytest.fixture
def voxels():
    generator = torch.Generator().manual_seed(1)
    cells = torch.unique(torch.randint(0, 6, (120, 3), generator=generator), dim=0)
    coordinates = torch.nn.functional.pad(cells, (1, 0)).int()
    return SparseTensor(torch.randn(len(cells), 3, generator=generator), coordinates)


def logits(network, voxels):
    with torch.no_grad():
        return network(voxels).logits


def assert_near(first, second):
    assert (first - second).abs().max() <= 1e-5 * second.abs().max()


def branches_of(network):
    return [module for module in network.modules() if isinstance(module, TwoBranches)]


def test_new_branches_compute_what_the_network_computed(network, voxels):
    before = logits(network, voxels)
    add_branches(network)
    assert not any(two.training for two in branches_of(network))  # as the network was
    assert len(branches_of(network)) == 16  # two in each of eight blocks
    assert_near(logits(network, voxels), before)


@pytest.fixture
def branch():
    """Both branches differ; the norm behind the trained one has statistics of its own."""
    torch.manual_seed(2)
    convolution, norm = Conv3d(3, 40, kernel_size=3), BatchNorm(40)
    two = TwoBranches(convolution, norm)
    moved(torch.nn.ModuleList([two, norm]), 0.5)
    return two.eval(), norm.eval()


def test_in_evaluation_the_output_is_the_mean_of_both(branch, voxels):
    two, norm = branch
    with torch.no_grad():
        new = norm(two.new(voxels)).features
        old = two.old(voxels).features
        assert (new - old).abs().max() > 0.1
        torch.testing.assert_close(two(voxels, norm).features, (new + old) / 2)
        torch.testing.assert_close(two(voxels, norm, relu=True).features, ((new + old) / 2).relu())
        shortcut = voxels.with_features(torch.ones_like(new))
        expected = ((new + old) / 2 + 1).relu()
        torch.testing.assert_close(two(voxels, norm, residual=shortcut, relu=True).features, expected)


def test_in_training_each_channel_is_one_of_three(branch, voxels):
    two, norm = branch
    with torch.no_grad():
        new, old = norm(two.new(voxels)).features, two.old(voxels).features
        two.train()  # the norm keeps its statistics, so that the branches can be told apart
        counts = torch.zeros(3)
        for seed in range(20):
            torch.manual_seed(seed)
            found = two(voxels, norm).features
            candidates = torch.stack([old, (old + new) / 2, new])
            fits = (candidates - found).abs().amax(1) < 1e-5  # (3, channels)
            assert (fits.sum(0) == 1).all()
            counts += fits.sum(1)
    assert ((counts / counts.sum() - 1 / 3).abs() < 0.06).all()  # of 800 draws: 3.6 deviations


def test_only_the_trained_branch_takes_gradients(network, voxels):
    add_branches(network)
    network.train()
    for two in branches_of(network):  # a draw may leave a narrow branch out
        two._share_of_new = lambda features: features.new_full((features.shape[1],), 0.5)
    network(voxels).logits.square().sum().backward()
    for two in branches_of(network):
        assert all(parameter.grad is None for parameter in two.old.parameters())
        assert not any(parameter.requires_grad for parameter in two.old.parameters())
    # the coarsest level has too few voxels here for every unit to be alive
    alive = [two for two in branches_of(network) if two.new.kernel.grad.abs().max() > 0]
    assert len(alive) >= 12


def test_merging_leaves_the_function_and_a_plain_network(network, voxels):
    plain = copy.deepcopy(network).state_dict()
    add_branches(network)
    moved(network)
    before = logits(network, voxels)
    merge_branches(network)
    assert not branches_of(network)
    assert_near(logits(network, voxels), before)
    after = network.state_dict()
    assert {name: value.shape for name, value in after.items()} == {
        name: value.shape for name, value in plain.items()
    }
    loaded = MinkUNet(3, 4, (4, 4, 6, 6, 6, 6, 5, 6), stem=4, stem_kernel_size=3).eval()
    loaded.load_state_dict(after)
    assert torch.equal(logits(loaded, voxels), logits(network, voxels))


def test_training_goes_on_from_the_merged_function(network, voxels):
    """A second step: branches again, with norms that are at work; and a gradient for every convolution."""
    add_branches(network)
    moved(network)
    merge_branches(network)
    before = logits(network, voxels)
    add_branches(network)
    assert_near(logits(network, voxels), before)
    assert not any(module.is_folded for module in network.modules() if isinstance(module, BatchNorm))
    network(voxels).logits.square().sum().backward()
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert all(parameter.grad is not None for parameter in trained.values())
    assert any("norm1.bn.weight" in name for name in trained)


def test_the_merged_norm_has_the_mean_of_what_it_will_see(voxels):
    """On data whose statistics both norms know, the merged norm's mean is that of its convolution."""
    torch.manual_seed(3)
    convolution, norm = Conv3d(3, 5, kernel_size=3), BatchNorm(5)
    norm.bn.momentum = 1.0
    moved(torch.nn.ModuleList([norm]), 0.3)
    norm.train()
    with torch.no_grad():
        norm(convolution(voxels))
        norm.eval()
        two = TwoBranches(convolution, norm)
        convolution.kernel += 0.3 * torch.randn_like(convolution.kernel)
        norm.train()
        norm(two.new(voxels))
        norm.eval()
        merged = _merged(two, norm)
        mean = merged(voxels).features.mean(0)
    torch.testing.assert_close(norm.bn.running_mean, mean, rtol=1e-4, atol=1e-5)
