"""Options that change what a method trains or remembers: each is trained and resumed like the default."""

import pytest
import torch

import baselines  # noqa: F401  registers the methods
from scannet_css.methods.method import find_method
from scannet_css.training.checkpoint import load_checkpoint, save_checkpoint
from tests.baselines.toy import at_step_1, descend

VARIANTS = {
    "finetune": {"head": "separate"},
    "freeze": {"head": "separate"},
    "ewc": {"head": "separate", "fisher": "running"},
    "lwf": {"variant": "3dpc-ciss"},
    "sdr": {"reading": "published"},
    "gua": {"labels": "published"},
    "pseudo": {"median": "true"},
    "reminder": {"median": "true"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_trained_and_resumed_like_the_defaults(name, tmp_path):
    """Two updates, a checkpoint, two more and the end of the step: the same if the checkpoint is resumed."""

    def ended(resumes):
        torch.manual_seed(0)
        method = find_method(name)(**VARIANTS[name])
        step = at_step_1(method)
        descend(method, step, 2, rate=1e-3)
        if resumes:
            save_checkpoint(tmp_path / "method.pt", method.state)
            method = find_method(name)(**VARIANTS[name])
            method.state = load_checkpoint(tmp_path / "method.pt")
        descend(method, step, 2, rate=1e-3, seed=40)
        method.end(step)
        return step.network.state_dict(), method.state

    (weights, state), (again, state_again) = ended(False), ended(True)
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert weights["final.kernel"].shape[1] == weights["final.bias"].shape[1] == 6
    assert state.keys() == state_again.keys()
    for key, values in state.items():
        first = values if isinstance(values, list) else [values]
        other = state_again[key] if isinstance(values, list) else [state_again[key]]
        for one, two in zip(first, other, strict=True):
            if isinstance(one, dict):
                assert all(torch.equal(one[name], two[name]) for name in one), key
            else:
                assert torch.equal(torch.as_tensor(one), torch.as_tensor(two)), key
