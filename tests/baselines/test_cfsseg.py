"""CFSSeg: steps of sums are one ridge regression, and the paper's recursion."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines.cfsseg import CFSSeg
from scannet_css.sparse import SparseTensor
from tests.baselines.toy import BASE_LABELS, STEP_LABELS, C, K, at_next_step, toy_batch, toy_network, toy_step

WIDTH, RIDGE = 24, 0.5


def make():
    return CFSSeg(width=WIDTH, ridge=RIDGE, dropout=0.0)


def expanded(method, network, batch, labels):
    """Rows that have a label: expansion and one-hot labels, float64."""
    with torch.no_grad():
        features = network(SparseTensor(batch.features, batch.coordinates)).features
    known = labels != 255
    rows = np.maximum(features[known].double().numpy() @ method.state["expansion"].double().numpy(), 0)
    return rows, np.eye(C)[labels[known].numpy()]


@pytest.fixture
def run():
    """Two steps, with the data that each saw after pseudo-labelling."""
    torch.manual_seed(0)
    method, network = make(), toy_network()
    first = [toy_batch(BASE_LABELS, seed) for seed in (3, 4)]
    method.end(toy_step(0, network, batches=first))
    parts = [[expanded(method, network, batch, batch.labels) for batch in first]]
    states = [copy.deepcopy(method.state)]
    second = [toy_batch(STEP_LABELS, seed) for seed in (5, 6)]
    step = at_next_step(method, network, 1, second)
    seen = []
    original = method._labels

    def labels(step, batch, output):
        seen.append(original(step, batch, output))
        return seen[-1]

    method._labels = labels
    method.end(step)
    del method._labels
    parts.append([expanded(method, network, b, y) for b, y in zip(second, seen, strict=True)])
    states.append(method.state)
    joined = [[np.concatenate(each) for each in zip(*part, strict=True)] for part in parts]
    return method, step, states, joined, (second, seen)


def assert_near(found, expected):
    assert np.abs(found.double().numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_steps_of_sums_are_one_ridge_regression(run):
    _, _, states, parts, _ = run
    for state, upto in zip(states, (1, 2), strict=True):
        rows, labels = (np.concatenate([part[i] for part in parts[:upto]]) for i in (0, 1))
        penalised = np.concatenate([rows, RIDGE**0.5 * np.eye(WIDTH)])
        target = np.concatenate([labels, np.zeros((WIDTH, C))])
        expected = np.linalg.lstsq(penalised, target, rcond=None)[0]
        channels = K if upto == 1 else C
        assert state["classifier"].shape == (WIDTH, channels)
        assert_near(state["classifier"], expected[:, :channels])


def test_the_papers_recursion_gives_the_same_classifier(run):
    """Psi = (Psi^-1 + E'E)^-1; old columns Phi - Psi E'E Phi + Psi E'Y, new columns Psi E'Y."""
    _, _, states, parts, _ = run
    (rows, labels), (more, new_labels) = parts
    psi = np.linalg.inv(rows.T @ rows + RIDGE * np.eye(WIDTH))
    phi = psi @ rows.T @ labels[:, :K]
    assert_near(states[0]["classifier"], phi)
    psi = np.linalg.inv(np.linalg.inv(psi) + more.T @ more)
    old = phi - psi @ more.T @ more @ phi + psi @ more.T @ new_labels[:, :K]
    new = psi @ more.T @ new_labels[:, K:]
    assert_near(states[1]["classifier"], np.concatenate([old, new], 1))


def test_pseudo_labels_stand_only_where_background_is_shown(run):
    _, _, _, _, (batches, seen) = run
    for batch, labels in zip(batches, seen, strict=True):
        shown = batch.labels != 0
        assert torch.equal(labels[shown], batch.labels[shown])
        assert set(labels[~shown].tolist()) <= {1, 2, 3, 255}
    assert any((labels[batch.labels == 0] < 255).any() for batch, labels in zip(batches, seen, strict=True))


def test_scores_are_the_regressions_values(run):
    method, step, _, _, (batches, _) = run
    batch = replace(batches[0], labels=torch.zeros_like(batches[0].labels))
    rows, _ = expanded(method, step.network, batch, batch.labels)
    with torch.no_grad():
        scores = method.predict(step.network(SparseTensor(batch.features, batch.coordinates)))
    assert scores.shape == (batch.voxels, C)
    assert_near(scores, rows @ method.state["classifier"].double().numpy())
    assert not CFSSeg.trains


def test_what_it_draws_does_not_depend_on_where_a_pass_was_resumed():
    """A pass that goes on after a kill draws for the batches that are left what it would have drawn."""
    torch.manual_seed(0)
    method, network = CFSSeg(width=WIDTH, threshold=0.05, dropout=0.5), toy_network()
    method.end(toy_step(0, network, batches=[toy_batch(BASE_LABELS, 3)]))
    batches = [toy_batch(STEP_LABELS, seed) for seed in (5, 6)]
    batches[1].names = ["scene3", "scene4", "scene5"]
    step = at_next_step(method, network, 1, batches)

    def labels(batch):
        with torch.no_grad():
            output = network(SparseTensor(batch.features, batch.coordinates))
        return method._labels(step, batch, output)

    whole = [labels(batch) for batch in batches]
    assert torch.equal(labels(batches[1]), whole[1])
    batches[1].names = ["scene6", "scene7", "scene8"]
    assert not torch.equal(labels(batches[1]), whole[1])  # but on the scenes
