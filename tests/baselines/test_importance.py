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
    return [(value - least) / (most - least + 1e-8) for value in numbers]


def test_scaling_goes_from_0_to_1_and_leaves_equal_values_at_0():
    values = torch.tensor([[1.0, 3.0], [2.0, 1.0]])
    torch.testing.assert_close(scaled(values), torch.tensor([[0.0, 1.0], [0.5, 0.0]]))
    assert scaled(torch.full((3,), 0.7)).tolist() == [0, 0, 0]
    # as published, what is far below 1e-8 counts as equal
    assert scaled(torch.tensor([0.0, 1e-8])).tolist() == pytest.approx([0, 0.5])


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
    assert_close(method.state["importance"][0], first)
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
    assert_close(method.state["importance"][0], expected)


def running_ewc(**settings):
    return EWC(fisher="running", **settings)


@pytest.mark.parametrize("kind", [EWC, running_ewc, PI, RW])
def test_the_penalty_is_a_sum_over_old_weights(kind):
    method = kind(weight=3.0)
    step = at_step_1(method)
    batch = toy_batch(STEP_LABELS)
    value = method.loss(step, batch, *forward(step, batch))["penalty"]
    expected = 0.0
    for name, parameter in step.network.named_parameters():
        anchor = method.state["anchor"][name]
        now = parameter[..., :K] if name.startswith("final") else parameter
        assert now.shape == anchor.shape
        for importance in method.state["importance"]:
            shares = slow_scaled(importance[name])
            rows = zip(shares, now.flatten().tolist(), anchor.flatten().tolist(), strict=True)
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
    """Gradient descent that notes weights and gradients of every update: `weights[i]` are those at which
    `gradients[i]` was taken, the last those at the end."""

    def __init__(self, method, step, updates=12, rate=0.002):
        method.begin(step)
        self.weights, self.gradients = [self.now(step)], []
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
            self.weights.append(self.now(step))
            method.updated(step)

    def now(self, step):
        return {name: value.double() for name, value in parameters_of(step.network).items()}

    def path(self, name):
        """Of every update but the first: its gradient times the move that led to where it was taken."""
        moves = [self.weights[i][name] - self.weights[i - 1][name] for i in range(1, len(self.gradients))]
        return sum(-self.gradients[i + 1][name] * move for i, move in enumerate(moves))

    def fisher_and_score(self, name, fisher=1.0):
        """The score at update 10 alone, the second visit."""
        score = 0.0
        for number, gradients in enumerate(self.gradients):
            if number == 10:
                move = self.weights[10][name] - self.weights[0][name]
                score = -gradients[name] * move / (0.5 * fisher * move**2 + 1e-8)
            fisher = 0.9 * gradients[name] ** 2 + 0.1 * fisher
        return fisher, score

    def omega(self, name, damping):
        got = self.weights[-1][name] - self.weights[0][name]
        return self.path(name).clamp(min=0) / (got**2 + damping)


def pad_like(old, like, value=0.0):
    return F.pad(old, (0, like.shape[-1] - old.shape[-1]), value=value)


def test_pis_importance_is_the_fall_of_the_loss_along_the_way():
    network, method = toy_network(), PI(damping=1e-3)
    first = toy_step(0, network)
    way = Walk(method, first)
    names = list(way.weights[0])
    assert_close(method.state["path"], {name: way.path(name) for name in names})
    method.end(first)
    expected = {name: way.omega(name, 1e-3) for name in names}
    assert_close(method.state["importance"][0], expected)

    step = at_next_step(method, network, 1, [])
    second_way = Walk(method, step)
    method.end(step)
    second = {name: second_way.omega(name, 1e-3) for name in names}
    assert_close(
        method.state["importance"][0],
        {name: pad_like(expected[name], second[name]) + second[name] for name in names},
    )
    assert method.state["importance"][0]["final.kernel"].shape[1] == C


def test_rws_importance_is_fisher_and_score():
    network, method = toy_network(), RW()
    first = toy_step(0, network)
    way = Walk(method, first)
    names = list(way.weights[0])
    method.end(first)
    found = {name: way.fisher_and_score(name) for name in names}
    fishers = {name: fisher for name, (fisher, _) in found.items()}
    scores = {name: score.clamp(min=0) for name, (_, score) in found.items()}
    assert_close(method.state["importance"][0], fishers)
    assert_close(method.state["importance"][1], scores)

    step = at_next_step(method, network, 1, [])
    second_way = Walk(method, step)
    method.end(step)
    for name in names:
        before = pad_like(fishers[name], second_way.gradients[0][name], 1.0)  # new outputs start at 1
        fishers[name], score = second_way.fisher_and_score(name, before)
        score, known = score.clamp(min=0), scores[name].shape[-1]
        score[..., :known] = (scores[name] + score[..., :known]) / 2  # new outputs have nothing before
        scores[name] = score
    assert_close(method.state["importance"][0], fishers)
    assert_close(method.state["importance"][1], scores)


def test_all_path_methods_gather_the_same_in_step_0():
    states = []
    for method in (PI(), RW(), EWC(fisher="running")):
        Walk(method, toy_step(0, toy_network()))
        states.append(copy.deepcopy(method.state))
        assert method.base == "path"
    for other in states[1:]:
        for key in ("start", "before", "at", "visited", "path", "fisher", "riemann"):
            assert all(torch.equal(states[0][key][name], value) for name, value in other[key].items())


def test_ewc_with_the_exact_fisher_shares_step_0_and_gathers_nothing():
    method = EWC()
    assert method.base == ""
    step = at_step_1(method)
    descend(method, step, 2)
    assert method.state.keys() == {"importance", "anchor"}


@pytest.mark.parametrize("kind", [EWC, running_ewc, PI, RW])
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
    if method.base:
        method.updated(step)
        method.end(step)
        assert method.state["at"].keys() == weights.keys()
        for importance in method.state["importance"]:
            assert all(value.device == elsewhere for value in importance.values())
    assert method._penalty(step.network).device == elsewhere
