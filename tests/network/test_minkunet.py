"""Networks against MinkowskiEngine's, and what the continual loop relies on."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scannet_css.errors import InputError
from scannet_css.network import NETWORKS, MinkUNet, build_network
from scannet_css.sparse import SparseTensor

GOLDEN = np.load(Path(__file__).parents[1] / "golden/minkowski.npz", allow_pickle=False)


def golden_network(name):
    if name == "MinkUNetTiny":
        network = MinkUNet(3, 20, planes=(8, 16, 32, 32, 32, 16, 16, 16), layers=(1,) * 8, stem=8)
    else:
        network = build_network(name.lower())
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if parameter.dim() > 1:
                random = np.random.default_rng(zlib.crc32(key.encode()))
                values = random.standard_normal(tuple(parameter.shape))
                values = values / np.sqrt(int(np.prod(parameter.shape[:-1])))
                parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return network


def relative_error(actual, expected):
    expected = torch.from_numpy(expected)
    return ((actual - expected).abs().max() / expected.abs().max()).item()


# In float32 a rounding error may turn the sign of an activation next to zero, which moves single gradients by
# up to 5e-3 (measured by perturbing the input by 1e-7); the golden values, float32 too, have such turns.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-3), (torch.float32, 1e-2)])
@pytest.mark.parametrize("name", ["MinkUNetTiny", "MinkUNet14A", "MinkUNet18A", "MinkUNet34C"])
def test_networks_are_those_of_minkowski_engine(name, dtype, tolerance):
    values = {
        key: GOLDEN[f"{name}/{key}"] for key in ("coords", "feats", "labels", "param_names", "grad_norms")
    }
    network = golden_network(name).to(dtype)
    parameters = dict(network.named_parameters())
    shapes = {key: str(tuple(parameter.shape)) for key, parameter in parameters.items()}
    names = values["param_names"].tolist()
    assert shapes == dict(zip(names, GOLDEN[f"{name}/param_shapes"].tolist(), strict=True))

    features = torch.from_numpy(values["feats"]).to(dtype).requires_grad_()
    x = SparseTensor(features, torch.from_numpy(values["coords"]))
    out = network.train()(x)
    assert relative_error(out.logits.detach(), GOLDEN[f"{name}/logits_train"]) < 1e-4
    loss = F.cross_entropy(out.logits, torch.from_numpy(values["labels"]))
    loss.backward()
    assert loss.item() == pytest.approx(float(GOLDEN[f"{name}/loss"]), rel=1e-5)
    norms = [parameters[key].grad.double().norm().item() for key in names]
    assert norms == pytest.approx(values["grad_norms"].tolist(), rel=tolerance)
    assert relative_error(features.grad, GOLDEN[f"{name}/grad_feats"]) < tolerance
    assert relative_error(network.conv0p1s1.kernel.grad, GOLDEN[f"{name}/grad_conv0"]) < tolerance
    assert relative_error(network.final.kernel.grad, GOLDEN[f"{name}/grad_final"]) < 1e-4
    with torch.no_grad():
        logits = network.eval()(x).logits
    assert relative_error(logits, GOLDEN[f"{name}/logits_eval_after_one_train_pass"]) < 1e-4


def surface(side=12, scenes=2):
    """Coordinates of a floor and a wall in each scene, in mixed order."""
    rows = [(s, x, y, 0) for s in range(scenes) for x in range(-5, side) for y in range(side)]
    rows += [(s, 0, y, z) for s in range(scenes) for y in range(side) for z in range(1, side)]
    return torch.tensor(rows)[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


def batch(channels=3):
    torch.manual_seed(0)
    coordinates = surface()
    return SparseTensor(torch.randn(len(coordinates), channels), coordinates)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_builds_with_the_planes_of_its_name(name):
    network = build_network(name, in_channels=6, classes=13)
    blocks = [getattr(network, f"block{i}") for i in range(1, 9)]
    planes, layers, stem, stem_kernel_size = NETWORKS[name]
    assert tuple(block[-1].conv2.out_channels for block in blocks) == planes
    assert tuple(map(len, blocks)) == layers
    assert network.conv0p1s1.kernel.shape == (stem_kernel_size**3, 6, stem)
    assert (network.classes, network.final.kernel.shape, network.final.bias.shape) == (
        13,
        (planes[-1], 13),
        (1, 13),
    )


def test_the_output_names_rows_and_levels():
    x = batch()
    network = build_network("minkunet14s", classes=7)
    out = network(x)
    assert (out.logits.shape, out.features.shape) == ((len(x), 7), (len(x), 32))
    torch.testing.assert_close(out.logits, out.features @ network.final.kernel + network.final.bias)
    assert [level.stride for level in out.levels] == [8, 4, 2, 1]
    for level, width in zip(out.levels, (64, 48, 32, 32), strict=True):
        assert level.features.shape == (len(level.coordinates), width)
        corners = x.coordinates.clone()
        corners[:, 1:] = corners[:, 1:] // level.stride * level.stride
        assert torch.equal(corners.unique(dim=0), level.coordinates.unique(dim=0).long())
    assert out.levels[-1].coordinates is x.coordinates
    assert out.levels[-1].features is out.features


def test_teacher_and_student_share_every_map():
    x = batch()
    teacher, student = (build_network("minkunet14a") for _ in range(2))
    with torch.no_grad():
        teacher.eval()(x)
    seen = dict(x.manager.built)
    student(x).logits.sum().backward()
    student(x)
    assert x.manager.built == seen
    assert set(seen.values()) == {1}
    # 5^3 and 3^3 at the finest level, 3^3 at the coarser four, four ways down (and up again)
    # the native engine has the 1^3 layers too, whose map is nothing but the rows in their order
    assert sum(name[0] == "map" and name[2] > 1 for name in seen) == 10


def test_the_order_of_the_rows_changes_nothing_to_the_bit():
    x = batch()
    order = torch.randperm(len(x))
    labels = torch.arange(len(x)) % 20
    permuted = SparseTensor(x.features[order], x.coordinates[order])
    network = build_network("minkunet14s")
    results = []
    for rows, tensor in ((torch.arange(len(x)), x), (order, permuted)):
        network.zero_grad()
        out = network(tensor)
        # a sum in canonical order, so that the loss itself is the same number
        picked = out.logits[torch.argsort(rows)].log_softmax(1)[torch.arange(len(x)), labels]
        picked.mean().backward()
        results.append((out, [parameter.grad.clone() for parameter in network.parameters()]))
    (first, first_gradients), (second, second_gradients) = results
    assert torch.equal(second.logits, first.logits[order])
    assert all(
        torch.equal(a.features, b.features) for a, b in zip(first.levels[:3], second.levels[:3], strict=True)
    )
    assert all(torch.equal(a, b) for a, b in zip(first_gradients, second_gradients, strict=True))


def test_one_voxel_is_enough_in_evaluation():
    network = build_network("minkunet14s").eval()
    out = network(SparseTensor(torch.ones(1, 3), torch.tensor([[0, -3, 5, 9]])))
    assert out.logits.shape == (1, 20)
    assert [level.coordinates.tolist() for level in out.levels] == [
        [[0, -8, 0, 8]],
        [[0, -4, 4, 8]],
        [[0, -4, 4, 8]],
        [[0, -3, 5, 9]],
    ]


def test_a_frozen_network_runs_without_a_graph():
    network = build_network("minkunet14s").requires_grad_(False)
    assert not network(batch()).logits.requires_grad


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="'minkunet34' is not known \\(did you mean 'minkunet34"):
        build_network("minkunet34")
    with pytest.raises(InputError, match="'MinkUNet18A' is not known \\(did you mean 'minkunet18a'"):
        build_network("MinkUNet18A")
    with pytest.raises(InputError, match="'resnet' is not known; expected minkunet14a, "):
        build_network("resnet")
