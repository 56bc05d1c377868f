"""EWF: the fusion is the original's, and what a step leaves is fused."""

import pytest
import torch

import baselines  # noqa: F401  registers the methods
from baselines.ewf import balanced_weight, fused
from scannet_css.errors import InputError
from scannet_css.methods.method import find_method
from tests.baselines.original_values import assert_close, original
from tests.baselines.toy import STEP_LABELS, at_step_1, descend, forward, toy_batch, toy_method

CASES = ("15_1", "15_5", "10_1_last", "threshold_15_1")


@pytest.mark.parametrize("case", CASES)
def test_the_fusion_is_the_originals(case):
    values = original(f"ewf/{case}")
    parts = {part: {} for part in ("old", "new", "fused")}
    for name, value in values.items():
        part, _, tensor = name.partition("/")
        if part in parts:
            parts[part][tensor] = value
    alpha = balanced_weight(values["old_channels"] + values["new_classes"], values["old_channels"])
    assert alpha == pytest.approx(values["alpha"], rel=1e-14)
    share = 0.45 if "cut" in values else 1.0
    found = fused(parts["old"], parts["new"], alpha, share)
    assert found.keys() == parts["fused"].keys()
    for name, expected in parts["fused"].items():
        assert_close(found[name], expected)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_step_ends_fused_and_its_old_outputs_have_not_moved(weight):
    method = find_method("ewf")(fusion_weight=weight)
    step = at_step_1(method)
    before = {name: value.clone() for name, value in method._before.items()}
    descend(method, step, 3)
    assert torch.equal(step.network.final.kernel[:, :4], step.teacher.final.kernel)
    torch.testing.assert_close(step.network.final.bias[0, :4], method._rows[1][0])
    trained = {name: value.clone() for name, value in step.network.state_dict().items()}
    method.end(step)
    alpha = weight or (2 / 6) ** 0.5
    for name, value in step.network.state_dict().items():
        old, new = before[name], trained[name]
        if not value.is_floating_point():
            assert torch.equal(value, new)
            continue
        expected = new.clone()
        expected[..., : old.shape[-1]] = (1 - alpha) * old + alpha * new[..., : old.shape[-1]]
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    # background's share for the new classes is taken back by as much as is old
    torch.testing.assert_close(
        step.network.final.bias[0, :1],
        (1 - alpha) * step.teacher.final.bias[0, :1] + alpha * method._rows[1][0, :1],
    )


@pytest.mark.parametrize("name", ["ewf", "ewf+plop3d", "lgkd+ewf"])
@pytest.mark.parametrize(
    ("setting", "value"), [("fusion_weight", 1.2), ("fusion_weight", -0.1), ("moved_share", 0.0)]
)
def test_shares_outside_of_0_to_1_are_refused(name, setting, value):
    with pytest.raises(InputError, match=f"^method '.*': {setting} is {value}; expected"):
        find_method(name)(**{setting: value})


def test_lgkd_on_ewf_is_lgkd_on_mib_with_the_fusion():
    mine, theirs = toy_method("lgkd+ewf"), toy_method("lgkd+mib")
    step = at_step_1(mine)
    batch = toy_batch(STEP_LABELS)
    outputs = forward(step, batch)
    found, expected = (method.loss(step, batch, *outputs) for method in (mine, theirs))
    assert {key: value.item() for key, value in found.items()} == {k: v.item() for k, v in expected.items()}
