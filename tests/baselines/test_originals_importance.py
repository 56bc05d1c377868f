"""EWC, PI and RW along a way of 23 updates: importance, penalty and gradient as the public 2D code has
them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from baselines.ewc import EWC
from baselines.pi import PI
from baselines.rw import RW
from tests.baselines.originals import METHODS, golden

MAKE = {
    "ewc": lambda: EWC(weight=1.0, fisher="running"),
    "pi": lambda: PI(weight=1.0),
    "rw": lambda: RW(weight=1.0),
}
# where the golden file's sums lie in a method's state
KEPT = {"ewc": {"fisher": "fisher"}, "pi": {"score": "omega"}, "rw": {"fisher": "fisher", "score": "scores"}}


class Weights(torch.nn.Module):
    """Parameters by the file's names; "cls.0.weight" is not a name for torch."""

    def __init__(self, values):
        super().__init__()
        self.values = {name: torch.nn.Parameter(value.clone()) for name, value in values.items()}

    def named_parameters(self):
        return list(self.values.items())

    def set(self, values):
        for name, parameter in self.values.items():
            parameter.data = values[name].clone()


def tensors(prefix):
    names = [key.removeprefix(f"{prefix}/") for key in METHODS.files if key.startswith(f"{prefix}/")]
    return {name: golden(f"{prefix}/{name}") for name in names}


def walk(method, name, index):
    """One step as the file has it; its penalties are compared on the way."""
    key = f"importance/{name}/step{index}"
    weights, gradients = tensors(f"{key}/weights"), tensors(f"{key}/gradients")
    network = Weights(tensors(f"{key}/start"))
    step = SimpleNamespace(index=index, network=network, device=torch.device("cpu"))
    method.begin(step)
    updates = len(next(iter(weights.values())))
    for number in range(updates):
        for parameter_name, parameter in network.named_parameters():
            assert torch.equal(parameter.detach(), weights[parameter_name][number]) or number
            parameter.data = weights[parameter_name][number].clone()
        if index and number in (11, 22):
            compare_penalty(method, network, f"{key}/penalty_at{number}")
        following = (
            {n: v[number + 1] for n, v in weights.items()} if number + 1 < updates else tensors(f"{key}/end")
        )
        for parameter_name, parameter in network.named_parameters():
            parameter.grad = gradients[parameter_name][number].clone()
        network.set(following)
        method.updated(step)
    method.end(step)
    for file_name, state_name in KEPT[name].items():
        for parameter_name, expected in tensors(f"{key}/{file_name}").items():
            found = method.state[state_name][parameter_name]
            np.testing.assert_allclose(
                found, expected, rtol=1e-9, atol=1e-12, err_msg=f"{key} {parameter_name}"
            )


def compare_penalty(method, network, key):
    value = method._penalty(network)
    assert abs(value.item() - float(METHODS[key])) < 1e-9 * max(1, abs(float(METHODS[key])))
    for name, parameter in network.named_parameters():
        expected = golden(f"{key}_grad/{name}")
        (gradient,) = torch.autograd.grad(value, parameter, retain_graph=True, allow_unused=True)
        gradient = torch.zeros_like(parameter) if gradient is None else gradient
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9, err_msg=f"{key} {name}")


@pytest.mark.parametrize("name", MAKE)
def test_importance_and_penalty(name):
    method = MAKE[name]()
    assert all(float(METHODS[f"importance/{name}/step0/penalty_at{number}"]) == 0 for number in (11, 22))
    walk(method, name, 0)
    walk(method, name, 1)
