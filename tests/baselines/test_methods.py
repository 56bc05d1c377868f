"""What holds for every method: properties of its loss, limits of its settings, what it remembers."""

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import baselines  # noqa: F401  registers the methods
from scannet_css.errors import InputError
from scannet_css.methods.losses import distillation
from scannet_css.methods.method import find_method, method_names, options_of
from scannet_css.network import Output, frozen_copy, grow
from scannet_css.network.minkunet import Level
from scannet_css.sparse import SparseTensor
from scannet_css.training.checkpoint import load_checkpoint, save_checkpoint
from tests.baselines.toy import (
    BASE_LABELS,
    PROTOCOL,
    STEP_LABELS,
    at_step_1,
    forward,
    toy_batch,
    toy_method,
    toy_network,
)

ALL = [name for name in method_names() if find_method(name).__module__.startswith("baselines.")]
INCREMENTAL = [name for name in ALL if not find_method(name).offline and find_method(name).trains]
# Terms that are means over labelled voxels, or over what is derived from labels.
OF_LABELS = {"ce", "lgkd", "similarity", "matching", "attraction", "repulsion", "contrast", "triplet"}
# adapter: its uncertainty is 0 where a network is sure; barm: its triplet, where the residual says background
FAINT = {"adapter": 0.01, "barm": -1.0}
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "css_losses.npz", allow_pickle=False)


def test_every_method_of_the_benchmark_is_here():
    assert set(ALL) >= {
        *("finetune", "freeze", "joint", "lwf", "lwf-mc", "ilt", "ewc", "pi", "rw", "mib", "sdr", "pseudo"),
        *("plop3d", "reminder", "rcil", "ssul", "dkd", "gua", "cfsseg", "replay"),
        *("lgkd", "lgkd+mib", "lgkd+plop3d", "lgkd+reminder", "lgkd+rcil", "lgkd+ewf", "lgkd+star"),
        *(
            "ewf",
            "ewf+plop3d",
            "star",
            "adapter",
            "nest",
            "dft",
            "mib-augm",
            "ssul-m",
            "eir",
            "barm",
            "climb3d",
        ),
    }


@pytest.mark.parametrize("name", INCREMENTAL)
def test_the_order_of_voxels_changes_no_term(name):
    batch = toy_batch(STEP_LABELS)
    method = toy_method(name)
    step = at_step_1(method, batch)
    terms = method.loss(step, batch, *forward(step, batch))
    order = torch.randperm(batch.voxels, generator=torch.Generator().manual_seed(0))
    shuffled = replace(
        batch,
        features=batch.features[order],
        coordinates=batch.coordinates[order],
        labels=batch.labels[order],
    )
    again = method.loss(step, shuffled, *forward(step, shuffled))
    assert {key: value.item() for key, value in again.items()} == pytest.approx(
        {key: value.item() for key, value in terms.items()}, rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize("name", INCREMENTAL)
def test_every_term_pulls_at_the_network(name):
    batch = toy_batch(STEP_LABELS)
    method = toy_method(name)
    step = at_step_1(method, batch)
    with torch.no_grad():
        for parameter in step.network.final.parameters():
            parameter *= FAINT.get(name, 1.0)
    parameters = [parameter for parameter in step.network.parameters() if parameter.requires_grad]
    for key, term in method.loss(step, batch, *forward(step, batch)).items():
        assert term.shape == () and term.item() > 0, key
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().max() > 0 for g in gradients), key


@pytest.mark.parametrize("name", INCREMENTAL)
def test_without_a_label_the_terms_of_labels_are_zero_and_no_gradient_is_nan(name):
    method = toy_method(name)
    step = at_step_1(method)
    batch = toy_batch((255,))
    parameters = [parameter for parameter in step.network.parameters() if parameter.requires_grad]
    for key, term in method.loss(step, batch, *forward(step, batch)).items():
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        gradients = [gradient for gradient in gradients if gradient is not None]
        assert term.isfinite() and all(gradient.isfinite().all() for gradient in gradients), key
        if (name, key) == ("dkd", "ce"):  # as published, a voxel without a label is a negative of every class
            logits = forward(step, batch)[0].logits[:, step.old_channels :]
            expected = torch.nn.functional.softplus(logits).sum(1).mean()
            torch.testing.assert_close(term, expected)
        elif key in OF_LABELS:
            assert term.item() == 0, key
            assert all((gradient == 0).all() for gradient in gradients), key


def in_type(output, dtype):
    levels = [Level(each.coordinates, each.features.to(dtype), each.stride) for each in output.levels]
    extra = None if output.extra is None else output.extra.to(dtype)
    return Output(output.logits.to(dtype), output.features.to(dtype), levels, extra)


@pytest.mark.parametrize("name", INCREMENTAL)
def test_outputs_in_half_precision_are_computed_with_in_float32(name):
    batch = toy_batch(STEP_LABELS)
    method = toy_method(name)
    step = at_step_1(method, batch)
    halves = [None if output is None else in_type(output, torch.bfloat16) for output in forward(step, batch)]
    floats = [None if output is None else in_type(output, torch.float32) for output in halves]
    terms = method.loss(step, batch, *halves)
    for key, expected in method.loss(step, batch, *floats).items():
        assert terms[key].dtype == torch.float32, key
        assert terms[key].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7), key


@pytest.mark.parametrize("name", INCREMENTAL)
def test_what_it_remembers_comes_back_from_a_checkpoint(name, tmp_path):
    batch = toy_batch(STEP_LABELS)
    method = toy_method(name)
    step = at_step_1(method, batch)
    terms = method.loss(step, batch, *forward(step, batch))
    save_checkpoint(tmp_path / "method.pt", method.state)
    resumed = toy_method(name)
    resumed.state = load_checkpoint(tmp_path / "method.pt")
    again = resumed.loss(step, batch, *forward(step, batch))
    assert terms.keys() == again.keys()
    assert all(torch.equal(terms[key], again[key]) for key in terms)


@pytest.mark.parametrize("name", [name for name in INCREMENTAL if find_method(name).needs_teacher])
def test_new_outputs_begin_as_the_method_says(name):
    network, batch = toy_network(), toy_batch(BASE_LABELS)
    find_method(name)().prepare(network, PROTOCOL)
    teacher = frozen_copy(network)
    grow(network, 2, find_method(name).head_start)
    voxels = SparseTensor(batch.features, batch.coordinates)
    with torch.no_grad():
        mine, before = network(voxels).logits, teacher(voxels).logits
    if find_method(name).head_start == "background":
        mine, before = mine.softmax(1), before.softmax(1)
        assert (mine[:, 1:4] - before[:, 1:]).abs().max() < 1e-6
        assert (mine[:, [0, 4, 5]] - before[:, :1] / 3).abs().max() < 1e-6
    elif find_method(name).head_start == "branch":  # its residual may only take from background
        torch.testing.assert_close(mine[:, 1:4], before[:, 1:], rtol=1e-4, atol=1e-4)
        assert (mine[:, 0] <= before[:, 0] + 1e-4).all() and (mine[:, 0] < before[:, 0] - 0.01).any()
    else:
        torch.testing.assert_close(mine[:, :4], before, rtol=1e-4, atol=1e-4)


# Settings


@pytest.mark.parametrize("name", ALL)
def test_numbers_that_make_no_sense_are_refused_in_one_line(name):
    for parameter in options_of(find_method(name)):
        wrong = {str: ["nonsense", 1], int: [0, -1, 1.5, "1", True], float: [-0.1, "1"]}[
            type(parameter.default)
        ]
        if type(parameter.default) is float:
            wrong += [float("nan"), float("inf"), -float("inf"), None]
        for value in wrong:
            with pytest.raises(InputError, match=f"^method '.*': {parameter.name} is .*; expected") as caught:
                find_method(name)(**{parameter.name: value})
            assert "\n" not in str(caught.value)


def test_limits_of_temperatures_shares_and_words():
    for name in ("lwf", "ilt", "reminder"):
        with pytest.raises(InputError, match="temperature is 0.0; expected more than 0"):
            find_method(name)(temperature=0.0)
    for name, setting, value in (
        ("pseudo", "smallest_threshold", 1.01),
        ("ssul", "confidence", 1.01),
        ("gua", "dropout", 1.0),
        ("cfsseg", "dropout", 1.0),
    ):
        with pytest.raises(InputError, match=f"{setting} is {value}; expected at most"):
            find_method(name)(**{setting: value})
    with pytest.raises(
        InputError, match="did you mean 'transplant'.*expected transplant, expand, one-hot, none"
    ):
        find_method("lgkd")(guidance="transplent")
    assert find_method("lgkd")(novel_weight=0).settings()["novel_weight"] == 0


def test_a_memory_larger_than_the_data_is_refused():
    manifest = SimpleNamespace(
        folder="data", classes=("a",), split=lambda name: [SimpleNamespace(name="one")]
    )
    with pytest.raises(InputError, match="scenes_kept is 2; expected at most the 1 training scenes of data"):
        find_method("replay")(scenes_kept=2).check(PROTOCOL, manifest)


# The losses that are known from the original code


def golden(case):
    new, old, labels = (
        torch.from_numpy(GOLDEN[f"{case}/{key}"]) for key in ("new_logits", "old_logits", "labels")
    )
    rows, device = len(labels), new.device
    generator = torch.Generator().manual_seed(0)
    coordinates = torch.zeros(rows, 4, dtype=torch.int32)
    coordinates[:, 1] = torch.arange(rows)

    def output(logits):
        features = torch.rand(rows, 5, generator=generator, dtype=torch.float64)
        return Output(logits, features, [Level(coordinates, features, 1)])

    batch = SimpleNamespace(labels=labels, coordinates=coordinates, names=["scene0"])
    step = SimpleNamespace(
        index=1, channels=new.shape[1], old_channels=old.shape[1], device=device, network=None, teacher=None
    )
    return step, batch, output(new.requires_grad_()), output(old)


TEN_AND_ONE = {"background_weight": 10.0, "novel_weight": 1.0}
MADE_OF = {
    "finetune": ({}, {"ce": (1, "ce")}),
    "lwf": ({}, {"ce": (1, "ce"), "lwf": (100, "lwf_kd")}),
    "ilt": ({}, {"ce": (1, "ce"), "lwf": (100, "lwf_kd")}),
    "mib": ({}, {"ce": (1, "mib_ce"), "mib": (10, "mib_kd")}),
    "sdr": ({}, {"ce": (1, "mib_ce"), "mib": (100, "mib_kd")}),
    "rcil": ({}, {"ce": (1, "mib_ce"), "mib": (100, "mib_kd")}),
    "lgkd": (TEN_AND_ONE, {"ce": (1, "ce"), "lgkd": (1, "lgkd_prev10_novel1")}),
    "lgkd+mib": (TEN_AND_ONE, {"ce": (1, "mib_ce"), "lgkd": (1, "lgkd_prev10_novel1")}),
    "lgkd+rcil": (TEN_AND_ONE, {"ce": (1, "mib_ce"), "lgkd": (1, "lgkd_prev10_novel1")}),
    "lgkd+plop3d": (TEN_AND_ONE, {"lgkd": (1, "lgkd_prev10_novel1")}),
    "lgkd+reminder": ({**TEN_AND_ONE, "lgkd_weight": 0.5}, {"lgkd": (0.5, "lgkd_prev10_novel1")}),
}
OTHER_TERMS = {
    "ilt": {"ilt"},
    "sdr": {"matching", "attraction", "repulsion", "sparsity"},
    "rcil": {"cubes", "channels"},
    "lgkd+rcil": {"cubes", "channels"},
    "lgkd+plop3d": {"ce", "pod"},
    "lgkd+reminder": {"ce", "pod", "similarity"},
}


@pytest.mark.parametrize("case", ["case0", "case1", "case2", "case3"])
@pytest.mark.parametrize("name", MADE_OF)
def test_methods_are_made_of_the_originals_losses(name, case):
    options, expected = MADE_OF[name]
    step, batch, new, old = golden(case)
    method = find_method(name)(**options)
    method.state["thresholds"] = torch.full((step.old_channels,), 0.5, dtype=torch.float64)
    method.state["prototypes"] = torch.rand(
        step.channels if name == "sdr" else step.old_channels, 5, dtype=torch.float64
    )
    method.state["counts"] = torch.ones(step.channels, dtype=torch.int64)
    method.before_batch(step)
    terms = method.loss(step, batch, new, old)
    assert set(terms) == set(expected) | OTHER_TERMS.get(name, set())
    for key, (weight, original) in expected.items():
        assert abs(terms[key].item() - weight * GOLDEN[f"{case}/{original}"]) < 1e-9 * weight
        (gradient,) = torch.autograd.grad(terms[key], new.logits, retain_graph=True)
        wanted = weight * GOLDEN[f"{case}/{original}_grad"]
        np.testing.assert_allclose(gradient.numpy(), wanted, rtol=0, atol=1e-9 * weight)


def test_with_no_new_class_the_distillations_are_the_plain_one():
    step, batch, new, old = golden("case0")
    channels = step.channels = step.old_channels
    new = replace(new, logits=new.logits[:, :channels])
    batch.labels = torch.zeros_like(batch.labels)
    plain = distillation(new.logits, old.logits).item()
    for name, options, key, factor in (
        ("lwf", {"weight": 1.0}, "lwf", 1),
        ("mib", {"weight": 1.0}, "mib", 1),
        ("lgkd", {"background_weight": 1.0}, "lgkd", channels),  # without a mean over the channels
        ("lgkd+mib", {"background_weight": 1.0}, "lgkd", channels),
    ):
        term = find_method(name)(**options).loss(step, batch, new, old)[key]
        assert term.item() == pytest.approx(factor * plain, abs=1e-12)


def test_a_state_is_not_shared_between_methods():
    first, second = find_method("lwf")(), find_method("lwf")()
    first.state["x"] = 1
    assert second.state == {} and copy.copy(first).state == {"x": 1}
