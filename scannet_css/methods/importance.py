"""What EWC, PI and RW share: important weights are held where they were after the step before."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scannet_css.methods.means import ordered_sum
from scannet_css.methods.method import Method, Step, option

SMALL = 1e-8  # added to a divisor, as in the public 2D code
VISITS = 10  # updates from one visit of RW's score to the next
Weights = dict[str, Tensor]  # by the parameter's name


@dataclass
class ImportanceMethod(Method):
    """Adds weight * sum of importance * (parameter - its value after the step before)^2.

    `state["importance"]` is what `end` leaves, a list whose entries are each scaled to 0..1, tensor by
    tensor, and then added; `state["anchor"]` the weights. Outputs that a step adds are free."""

    head_start = "plain"
    needs_teacher = False
    weight: float = option(100.0, "weight of the penalty", least=0)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        terms["penalty"] = self.weight * self._penalty(step.network)
        return terms

    def end(self, step: Step) -> None:
        super().end(step)
        self.state.update(_on(self.state, step.device))
        self.state["importance"] = self.importance(step)
        self.state["anchor"] = weights_of(step.network)

    def importance(self, step: Step) -> list[Weights]:
        """Of each parameter after the step, >= 0."""
        raise NotImplementedError

    def _penalty(self, network: nn.Module) -> Tensor:
        total = 0.0
        for name, parameter in network.named_parameters():
            if name not in self.state["anchor"]:
                continue
            importance = sum(scaled(each[name].to(parameter.device)) for each in self.state["importance"])
            anchor = self.state["anchor"][name].to(parameter.device)
            old = parameter[..., : anchor.shape[-1]]  # the classifier has grown by its last dimension
            total = total + ordered_sum(importance * (old - anchor).square())
        return total


@dataclass
class PathMethod(ImportanceMethod):
    """A method whose importance is gathered along the way of training, so that step 0 has to be walked again
    for it: once for all methods of this kind, which therefore gather the same.

    With weights w_i, at which update i took its gradient g_i, in `state` by parameter: "start", w_0;
    "fisher", F <- 0.9 g_i^2 + 0.1 F from 1, over all steps; "path", the sum of g_i (w_{i-1} - w_i);
    "riemann", at every VISITS-th update the sum of g_i (v - w_i) / (1/2 F (w_i - v)^2 + SMALL) with v the
    weights of the visit before (Chaudhry et al., ECCV 2018, equation 9). All as in the public 2D code.
    Without a `base` nothing is gathered."""

    base = "path"

    def begin(self, step: Step) -> None:
        super().begin(step)
        if not self.base or self.state.get("step") == step.index:  # nothing to gather; a base that is done
            return
        now = weights_of(step.network)
        zeros = {name: torch.zeros_like(value) for name, value in now.items()}
        fisher = _on(self.state, step.device).get("fisher", {})
        fisher = {name: grown(fisher.get(name, value[..., :0]), value, 1.0) for name, value in now.items()}
        self.state.update(step=step.index, updates=0, start=now, before=now, at=now, visited=now)
        self.state.update(fisher=fisher, path=zeros, riemann=dict(zeros))

    def updated(self, step: Step) -> None:
        super().updated(step)
        if not self.base:
            return
        state = self.state
        state.update(_on(state, step.device))
        at, is_visit = state["at"], state["updates"] % VISITS == 0
        for name, parameter in step.network.named_parameters():
            if parameter.grad is None:
                continue
            gradient, fisher = parameter.grad, state["fisher"][name]
            state["path"][name] = state["path"][name] + gradient * (state["before"][name] - at[name])
            if is_visit:
                move = at[name] - state["visited"][name]
                fall = -gradient * move / (0.5 * fisher * move.square() + SMALL)
                state["riemann"][name] = state["riemann"][name] + fall
            state["fisher"][name] = 0.9 * gradient.square() + 0.1 * fisher
        if is_visit:
            state["visited"] = at
        state.update(before=at, at=weights_of(step.network), updates=state["updates"] + 1)


def _on(state: dict, device: torch.device) -> dict:
    """The weights in `state` on the network's device: a checkpoint brings them back on the CPU."""
    return {
        key: {name: value.to(device) for name, value in values.items()}
        for key, values in state.items()
        if isinstance(values, dict)
    }


def weights_of(network: nn.Module) -> Weights:
    """A copy of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def scaled(values: Tensor) -> Tensor:
    """From 0, the smallest, to 1, the largest: (v - min) / (max - min + SMALL)."""
    least, most = values.min(), values.max()
    return (values - least) / (most - least + SMALL)


def grown(old: Tensor, like: Tensor, value: float = 0.0) -> Tensor:
    """`old` with `value` for the outputs that have come since."""
    missing = like.shape[-1] - old.shape[-1]
    return torch.cat([old, like.new_full((*like.shape[:-1], missing), value)], -1)
