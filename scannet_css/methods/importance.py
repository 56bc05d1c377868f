"""What EWC, PI and RW share: important weights are held where they were after the step before."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scannet_css.methods.means import ordered_sum
from scannet_css.methods.method import Method, Step, option

SMALL = 1e-8  # keeps a ratio of two vanishing numbers finite
Weights = dict[str, Tensor]  # by the parameter's name


@dataclass
class ImportanceMethod(Method):
    """Adds weight * sum of importance * (parameter - its value after the step before)^2.

    `state["importance"]` and `state["anchor"]` are what `end` leaves. As in the public 2D code the importance
    of each tensor is scaled to 0..1; outputs that a step adds are free.
    """

    head_start = "plain"
    needs_teacher = False
    weight: float = option(100.0, "weight of the penalty", least=0)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        terms["penalty"] = self.weight * self._penalty(step.network)
        return terms

    def end(self, step: Step) -> None:
        super().end(step)
        _to(self.state, step.device)
        self.state["importance"] = self.importance(step)
        self.state["anchor"] = weights_of(step.network)

    def importance(self, step: Step) -> Weights:
        """Of each parameter after the step, >= 0."""
        raise NotImplementedError

    def _penalty(self, network: nn.Module) -> Tensor:
        total = 0.0
        for name, parameter in network.named_parameters():
            importance = self.state["importance"][name].to(parameter.device)
            anchor = self.state["anchor"][name].to(parameter.device)
            old = parameter[..., : anchor.shape[-1]]  # the classifier has grown by its last dimension
            total = total + ordered_sum(scaled(importance) * (old - anchor).square())
        return total


@dataclass
class PathMethod(ImportanceMethod):
    """A method whose importance is gathered along the way of training, so that step 0 has to be walked again
    for it: once for all methods of this kind, which therefore gather the same sums.

    In `state`, by parameter: "path", what the loss fell by its moves (- gradient x move); "fisher", a running
    mean of the squared gradient (0.9 of the newest, as in the public 2D code); "riemann", the falls of the
    loss over the lengths of the moves, 1/2 fisher x move^2 (Chaudhry et al., ECCV 2018, equation 9); "start",
    the weights after the step's first update, with which the way begins.
    """

    base = "path"

    def updated(self, step: Step) -> None:
        state, now = self.state, weights_of(step.network)
        _to(state, step.device)
        if state.get("step") != step.index:
            zeros = {name: torch.zeros_like(value) for name, value in now.items()}
            state.update(step=step.index, start=now, last=now, path=zeros)
            state.update(fisher=dict(zeros), riemann=dict(zeros))
            return
        for name, parameter in step.network.named_parameters():
            if parameter.grad is None:
                continue
            gradient, move = parameter.grad, now[name] - state["last"][name]
            fall = -gradient * move
            fisher = 0.9 * gradient.square() + 0.1 * state["fisher"][name]
            state["fisher"][name] = fisher
            state["path"][name] = state["path"][name] + fall
            state["riemann"][name] = state["riemann"][name] + fall / (0.5 * fisher * move.square() + SMALL)
        state["last"] = now


def _to(state: dict, device: torch.device) -> None:
    """Moves what a checkpoint has brought back, on the CPU, to the network's device."""
    for key, values in state.items():
        if isinstance(values, dict):
            state[key] = {name: value.to(device) for name, value in values.items()}


def weights_of(network: nn.Module) -> Weights:
    """A copy of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def scaled(values: Tensor) -> Tensor:
    """From 0, the smallest, to 1, the largest; 0 where all are the same."""
    least, most = values.min(), values.max()
    return (values - least) / (most - least).clamp(min=torch.finfo(values.dtype).tiny)


def grown(old: Tensor, like: Tensor) -> Tensor:
    """`old` with zeros for the outputs that have come since."""
    return torch.nn.functional.pad(old, (0, like.shape[-1] - old.shape[-1]))
