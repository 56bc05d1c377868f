"""SDR's terms and running prototypes against loops over voxels in float64."""

import math

import pytest
import torch

from baselines.sdr import SDR, repulsion, sparsity
from scannet_css.sparse import SparseTensor
from tests.baselines.toy import C, F, fake_step, outputs, slow_means, toy_batch, toy_network, toy_step


def squares(a, b):
    return [(x - y) ** 2 for x, y in zip(a, b, strict=True)]


def mean(values):
    return sum(values) / len(values)


def test_sdrs_four_terms_and_running_prototypes():
    batch, new, old = outputs()
    before = torch.randn(C, F, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before[0], counts = 0, torch.tensor([0, 50, 0, 7, 30, 0])
    shown, hidden = batch.labels.tolist(), []
    for label, scores in zip(shown, old.logits.tolist(), strict=True):
        likely = scores.index(max(scores))
        hidden.append(likely if label == 0 and likely > 0 else 255)
    features = new.features.tolist()
    of_shown, of_hidden = (slow_means(new.features, torch.tensor(labels)) for labels in (shown, hidden))

    after = before.clone()
    for label in of_shown.keys() - {0}:
        own = [f for f, y in zip(features, shown, strict=True) if y == label]
        columns = zip(zip(*own, strict=True), before[label], strict=True)
        total = [sum(column) + counts[label] * p for column, p in columns]
        after[label] = torch.tensor([t / (len(own) + counts[label]) for t in total])
    expected = {"matching": mean([mean(squares(of_hidden[c], after[c].tolist())) for c in of_hidden])}
    by_class = [
        mean([mean(squares(f, after[c].tolist())) for f, y in zip(features, shown, strict=True) if y == c])
        for c in of_shown
    ]
    expected["attraction"] = mean(by_class)
    pairs = [(a, b) for a in of_shown for b in of_shown if a != b]
    expected["repulsion"] = mean([1 / math.sqrt(sum(squares(of_shown[a], of_shown[b]))) for a, b in pairs])
    largest = {y: max(max(f) for f, label in zip(features, shown, strict=True) if label == y) for y in shown}
    normalised = [[x / largest[y] for x in f] for f, y in zip(features, shown, strict=True)]
    expected["sparsity"] = mean([sum(map(math.exp, row)) / sum(row) for row in normalised])

    method, step = SDR(), fake_step(device=torch.device("cpu"))
    method.state = {"prototypes": before, "counts": counts}
    method.before_batch(step)
    for _ in range(2):  # a loss may be computed twice before an update
        terms = method.loss(step, batch, new, old)
    for name, value in expected.items():
        weight = 0.01 if name == "matching" else 0.001
        assert terms[name].item() == pytest.approx(weight * value, rel=1e-9), name
    assert torch.equal(method.state["prototypes"], before)
    method.updated(step)
    torch.testing.assert_close(method.state["prototypes"], after)
    seen = [shown.count(c) if c else 0 for c in range(C)]
    assert method.state["counts"].tolist() == (counts + torch.tensor(seen)).tolist()


def test_sdrs_prototypes_of_step_0_are_means_over_its_scenes():
    method, network = SDR(), toy_network()
    batches = [toy_batch((0, 1, 3, 3, 255), seed) for seed in (5, 6)]
    method.end(toy_step(0, network, batches=batches))
    with torch.no_grad():
        features = [network(SparseTensor(batch.features, batch.coordinates)).features for batch in batches]
    labels = torch.cat([batch.labels for batch in batches])
    means = slow_means(torch.cat(features).double(), labels)
    for channel in (1, 3):
        expected = torch.tensor(means[channel], dtype=torch.float64)
        torch.testing.assert_close(method.state["prototypes"][channel], expected, rtol=1e-5, atol=1e-6)
    assert (method.state["prototypes"][[0, 2]] == 0).all()  # background never, and a class without a voxel
    assert method.state["counts"].tolist() == [0, (labels == 1).sum(), 0, (labels == 3).sum()]


def test_sdr_with_one_class_alone_has_nothing_to_repulse():
    features, labels = torch.rand(5, F).requires_grad_(), torch.full((5,), 4)
    found = [repulsion(features, labels, C), sparsity(features, labels)]
    assert found[0].item() == 0
    sum(found).backward()
    assert features.grad.isfinite().all()
    zeros = torch.zeros(5, F).requires_grad_()
    sparsity(zeros, labels).backward()
    assert zeros.grad.isfinite().all()
