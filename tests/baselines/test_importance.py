"""EWC, PI and RW followed by hand on a small network."""

import copy

import pytest
import torch
import torch.nn.functional as F

from baselines.ewc import EWC
from baselines.pi import PI
from baselines.rw import RW
from scannet_css.methods.importance import scaled
from scannet_css.sparse import SparseTensor
from tests.baselines.toy import (
    BASE_LABELS,
    STEP_LABELS,
    C,
    K,
    at_next_step,
    at_step_1,
    descend,
    forward,
    toy_batch,
    toy_network,
    toy_step,
)


def parameters_of(network):
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def slow_scaled(values):
    numbers = values.flatten().tolist()
    least, most = min(numbers), max(numbers)
    return [(value - least) / (most - least) if most > least else 0.0 for value in numbers]


def test_scaling_goes_from_0_to_1_and_leaves_equal_values_at_0():
    values = torch.tensor([[1.0, 3.0], [2.0, 1.0]])
    assert scaled(values).tolist() == [[0, 1], [0.5, 0]]
    assert scaled(torch.full((3,), 0.7)).tolist() == [0, 0, 0]
    assert scaled(torch.tensor([0.0, 1e-30])).tolist() == [0, 1]


def slow_fisher(network, batches):
    """Scene by scene: the mean of the squared gradients of its cross-entropy."""
    total, scenes = {name: 0.0 for name, _ in network.named_parameters()}, 0
    for batch in batches:
        for number in range(len(batch.names)):
            rows = batch.coordinates[:, 0] == number
            logits = network(SparseTensor(batch.features[rows], batch.coordinates[rows])).logits
            labels, loss, known = batch.labels[rows].tolist(), 0.0, 0
            for row, label in enumerate(labels):
                if label != 255:
                    loss, known = loss - logits[row].log_softmax(0)[label], known + 1
            network.zero_grad()
            (loss / known).backward()
            for name, parameter in network.named_parameters():
                total[name] = total[name] + parameter.grad.double().square()
            scenes += 1
    return {name: value / scenes for name, value in total.items()}


def assert_close(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        scale = second[name].abs().max().item() or 1.0
        torch.testing.assert_close(
            value.double(), second[name].double(), rtol=1e-3, atol=1e-5 * scale, msg=name
        )


def test_ewcs_fisher_is_the_mean_of_squared_gradients_summed_over_steps():
    network, method = toy_network(), EWC()
    batches = [toy_batch(BASE_LABELS, seed) for seed in (5, 6)]
    method.end(toy_step(0, network, batches=batches))
    first = slow_fisher(network, batches)
    assert_close(method.state["importance"], first)
    assert all(torch.equal(method.state["anchor"][n], p) for n, p in network.named_parameters())

    later = [toy_batch(STEP_LABELS, 7)]
    step = at_next_step(method, network, 1, later)
    method.end(step)
    second = slow_fisher(network, later)
    assert second["final.kernel"].shape[1] == C
    expected = {
        name: F.pad(first[name], (0, value.shape[-1] - first[name].shape[-1])) + value
        for name, value in second.items()
    }
    assert_close(method.state["importance"], expected)


@pytest.mark.parametrize("kind", [EWC, PI, RW])
def test_the_penalty_is_a_sum_over_old_weights(kind):
    method = kind(weight=3.0)
    step = at_step_1(method)
    batch = toy_batch(STEP_LABELS)
    value = method.loss(step, batch, *forward(step, batch))["penalty"]
    expected = 0.0
    for name, parameter in step.network.named_parameters():
        anchor, importance = method.state["anchor"][name], method.state["importance"][name]
        now = parameter[..., :K] if name.startswith("final") else parameter
        assert now.shape == anchor.shape
        rows = zip(slow_scaled(importance), now.flatten().tolist(), anchor.flatten().tolist(), strict=True)
        expected += sum(share * (mine - before) ** 2 for share, mine, before in rows)
    assert value.item() == pytest.approx(3 * expected, rel=1e-4)
    value.backward()
    for parameter in (step.network.final.kernel, step.network.final.bias):
        assert (parameter.grad[:, K:] == 0).all()  # new outputs are free
        assert (parameter.grad[:, :K] != 0).any()


def test_at_the_anchor_the_penalty_and_its_gradient_are_zero():
    method = EWC()
    step = at_step_1(method, move=0.0)
    batch = toy_batch(STEP_LABELS)
    value = method.loss(step, batch, *forward(step, batch))["penalty"]
    value.backward()
    assert value.item() == 0
    assert all((parameter.grad == 0).all() for parameter in step.network.parameters())


class Walk:
    """Gradient descent that notes weights and gradients of every update."""

    def __init__(self, method, step, updates=3, rate=0.05):
        self.weights, self.gradients = [], []
        for number in range(updates):
            batch = toy_batch(STEP_LABELS if step.index else BASE_LABELS, 30 + number)
            new, old = forward(step, batch)
            terms = method.loss(step, batch, new, old) if step.index else method.base_loss(step, batch, new)
            step.network.zero_grad()
            sum(terms.values()).backward()
            self.gradients.append({n: p.grad.double() for n, p in step.network.named_parameters()})
            with torch.no_grad():
                for parameter in step.network.parameters():
                    parameter -= rate * parameter.grad
            self.weights.append({n: p.double() for n, p in parameters_of(step.network).items()})
            method.updated(step)

    def falls(self, name):
        """-gradient * move of every update but the first, with which the way begins."""
        for number in range(1, len(self.weights)):
            move = self.weights[number][name] - self.weights[number - 1][name]
            yield -self.gradients[number][name] * move, move, self.gradients[number][name]

    def path(self, name):
        return sum(fall for fall, _, _ in self.falls(name))

    def fisher_and_score(self, name):
        fisher = score = 0.0
        for fall, move, gradient in self.falls(name):
            fisher = 0.9 * gradient**2 + 0.1 * fisher
            score = score + fall / (0.5 * fisher * move**2 + 1e-8)
        return fisher, score

    def omega(self, name, damping):
        got = self.weights[-1][name] - self.weights[0][name]
        return self.path(name).clamp(min=0) / (got**2 + damping)


def pad_like(old, like):
    return F.pad(old, (0, like.shape[-1] - old.shape[-1]))


def test_pis_importance_is_the_fall_of_the_loss_along_the_way():
    network, method = toy_network(), PI(damping=1e-3)
    first = toy_step(0, network)
    way = Walk(method, first)
    names = list(way.weights[0])
    assert_close(method.state["path"], {name: way.path(name) for name in names})
    assert all((way.path(name) >= -1e-12).all() for name in names)  # descent goes down
    method.end(first)
    expected = {name: way.omega(name, 1e-3) for name in names}
    assert_close(method.state["importance"], expected)

    step = at_next_step(method, network, 1, [])
    second_way = Walk(method, step)
    method.end(step)
    second = {name: second_way.omega(name, 1e-3) for name in names}
    assert_close(
        method.state["importance"],
        {name: pad_like(expected[name], second[name]) + second[name] for name in names},
    )
    assert method.state["importance"]["final.kernel"].shape[1] == C


def test_rws_importance_is_fisher_and_score():
    network, method = toy_network(), RW()
    first = toy_step(0, network)
    way = Walk(method, first)
    names = list(way.weights[0])
    method.end(first)

    def share(values):
        return torch.tensor(slow_scaled(values), dtype=torch.float64).view(values.shape)

    scores, expected = {}, {}
    for name in names:
        fisher, score = way.fisher_and_score(name)
        scores[name] = score.clamp(min=0)
        expected[name] = share(fisher) + share(scores[name])
    assert_close(method.state["importance"], expected)

    step = at_next_step(method, network, 1, [])
    second_way = Walk(method, step)
    method.end(step)
    for name in names:
        fisher, score = second_way.fisher_and_score(name)
        scores[name] = (pad_like(scores[name], score) + score.clamp(min=0)) / 2
        expected[name] = share(fisher) + share(scores[name])
    assert_close(method.state["importance"], expected)


def test_both_path_methods_gather_the_same_in_step_0():
    states = []
    for method in (PI(), RW()):
        Walk(method, toy_step(0, toy_network()))
        states.append(copy.deepcopy(method.state))
    assert PI.base == RW.base == "path"
    for key in ("start", "last", "path", "fisher", "riemann"):
        assert all(torch.equal(states[0][key][name], value) for name, value in states[1][key].items())


@pytest.mark.parametrize("kind", [EWC, PI, RW])
def test_what_a_checkpoint_brought_back_is_moved_to_the_networks_device(kind):
    """A checkpoint is loaded on the CPU; the meta device stands for a GPU."""
    method = kind()
    step = at_step_1(method)
    descend(method, step, 2)
    elsewhere = torch.device("meta")
    step.device, weights = elsewhere, parameters_of(step.network.to(elsewhere))
    step.network.zero_grad()
    for parameter in step.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    if kind.base:
        method.updated(step)
        method.end(step)
        assert method.state["last"].keys() == weights.keys()
        assert all(value.device == elsewhere for value in method.state["importance"].values())
    assert method._penalty(step.network).device == elsewhere
