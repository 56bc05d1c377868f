"""PLOP's and REMINDER's parts against the values of their code, exact to 1e-9."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from baselines.plop3d import PLOP3D
from baselines.pseudo import Pseudo
from baselines.reminder import similarity_distillation
from scannet_css.methods.prototypes import learn_prototypes, means_of_classes
from scannet_css.methods.pseudo_labels import (
    adaptive_factor,
    published_median,
    thresholds_of_histograms,
    uncertainty_and_prediction,
)
from scannet_css.network import Output
from tests.baselines.originals import assert_original, golden, leaf, places, rows, step_of

HISTOGRAMS = ("hist_edge", "hist_few_bins", "hist_spread", "hist_bins20")


@pytest.mark.parametrize("case", HISTOGRAMS)
def test_thresholds_of_histograms(case):
    """Infinite values, not a number and the misread bins among them."""
    counts = golden(f"plop/{case}/counts")
    raw = [published_median(row) for row in counts.tolist()]
    np.testing.assert_allclose(raw, golden(f"plop/{case}/raw"), rtol=1e-12, atol=0)
    found = thresholds_of_histograms(counts, "published", 1.0)
    np.testing.assert_allclose(found.clamp(min=0.001), golden(f"plop/{case}/floored"), rtol=1e-12, atol=0)


def test_the_published_thresholds_depend_on_how_much_was_counted():
    """No bin holds half: above 9,900 rows everything is kept, below nothing, at 9,900 the threshold is
    none."""

    def threshold(total):
        return published_median([4 * total // 10, 3 * total // 10, total - 7 * total // 10 + 1, *[0] * 97])

    assert threshold(9910) == math.inf and threshold(10**7) == math.inf
    assert threshold(9890) == threshold(30) == -math.inf
    assert math.isnan(published_median([4000, 3000, 2900, *[0] * 97]))
    assert published_median([6000, 3000, 2000, *[0] * 97]) <= 0.01  # half in the first bin: right
    assert 0.01 < published_median([3000, 6000, 2000, *[0] * 97]) <= 0.02


def plop(case):
    old, labels = golden(f"plop/{case}/old_logits"), rows(golden(f"plop/{case}/labels"))
    new = leaf(golden(f"plop/{case}/new_logits"))
    coordinates = torch.nn.functional.pad(places(old), (0, 1))
    batch = SimpleNamespace(
        labels=labels, coordinates=coordinates, features=rows(old), names=["image"] * len(old)
    )
    output = Output(rows(old), rows(old), [])
    step = step_of(new.shape[1], old.shape[1], old_output=lambda voxels: output)
    step.add_up = lambda name, compute: compute(batch)
    return step, batch, new, output


@pytest.mark.parametrize("case", ["voc_15_5", "voc_15_1", "small"])
def test_plops_pseudo_labels_and_loss(case):
    step, batch, new, old = plop(case)
    key = f"plop/{case}"
    assert math.log(step.channels) == golden(f"{key}/max_entropy")
    uncertainty, predicted = uncertainty_and_prediction(old.logits, step.channels)
    np.testing.assert_allclose(
        uncertainty, rows(golden(f"{key}/uncertainty")[:, None])[:, 0], rtol=0, atol=1e-12
    )

    method = PLOP3D()
    method.begin(step)
    thresholds = golden(f"{key}/thresholds")
    np.testing.assert_allclose(
        method.state["thresholds"], thresholds[: step.old_channels], rtol=0, atol=1e-12
    )
    assert (thresholds[step.old_channels :] == method.smallest_threshold).all()  # never predicted
    labels = method.pseudo_labels(step, batch.labels, old.logits)
    assert torch.equal(labels, rows(golden(f"{key}/pseudo_labels")))
    kept = (batch.labels == 0) & (labels != 255)
    assert torch.equal(kept, rows(golden(f"{key}/kept")) & (batch.labels == 0))
    scene = batch.coordinates[:, 0]
    factor = adaptive_factor(batch.labels, labels, scene, len(batch.names))
    np.testing.assert_allclose(factor, golden(f"{key}/factor"), rtol=0, atol=1e-12)
    assert_original(method.classification(step, batch, Output(new, new, []), old), f"{key}/ce", {"grad": new})


def test_the_true_median_keeps_half_of_every_class():
    step, batch, _, old = plop("voc_15_1")
    method = Pseudo(median="true", smallest_threshold=0.0)
    method.begin(step)
    labels = method.pseudo_labels(step, batch.labels, old.logits)
    predicted = old.logits.argmax(1)
    for channel in predicted[batch.labels == 0].unique().tolist():
        own = (batch.labels == 0) & (predicted == channel)
        kept, total = int((own & (labels == channel)).sum()), int(own.sum())
        assert total / 2 <= kept <= total / 2 + 2


# REMINDER


@pytest.mark.parametrize("case", ["same_size", "coarse"])
@pytest.mark.parametrize("delta", [0, 1])
def test_reminders_distillation(case, delta):
    key = f"reminder/{case}"
    features, labels = golden(f"{key}/features"), golden(f"{key}/labels")
    if features.shape[-2:] != labels.shape[-2:]:
        enlarge = {"size": labels.shape[-2:], "mode": "bilinear", "align_corners": True}
        features = torch.nn.functional.interpolate(features, **enlarge)
    features, labels = leaf(features), rows(labels)
    new = leaf(golden(f"{key}/new_logits"))
    old = rows(golden(f"{key}/old_logits"))
    prototypes = golden(f"{key}/old_prototypes")
    means, _ = means_of_classes(features.detach(), labels, new.shape[1])
    is_new = torch.arange(len(means)) >= old.shape[1]
    np.testing.assert_allclose(means * is_new[:, None], golden(f"{key}/batch_prototypes"), rtol=0, atol=1e-12)
    value = similarity_distillation(
        Output(new, features, []), Output(old, old, []), labels, prototypes, 3.0, float(delta)
    )
    assert_original(value, f"{key}/csw_delta{delta}", {"grad_z": new})
    assert torch.autograd.grad(value, features, allow_unused=True) == (None,)
    assert (golden(f"{key}/csw_delta{delta}_grad_x") == 0).all()


def test_reminders_prototypes():
    """Every batch counts alike, whatever its pixels; rows of earlier classes stay."""
    batches, outputs = [], []
    for number in range(3):
        features, labels = (
            golden(f"reminder/running/features{number}"),
            golden(f"reminder/running/labels{number}"),
        )
        enlarge = {"size": labels.shape[-2:], "mode": "bilinear", "align_corners": True}
        outputs.append(rows(torch.nn.functional.interpolate(features, **enlarge)))
        coordinates = torch.nn.functional.pad(places(labels), (0, 1))
        batches.append(SimpleNamespace(labels=rows(labels), coordinates=coordinates, features=outputs[-1]))
    left = iter(outputs)

    def add_up(name, compute):
        found = [compute(batch) for batch in batches]
        return {key: sum(each[key] for each in found) for key in found[0]}

    step = step_of(9, 6, add_up=add_up, autocast=torch.no_grad)
    step.network = lambda voxels: SimpleNamespace(features=next(left))
    found = learn_prototypes(step, torch.zeros(6, 8))
    expected = golden("reminder/running/prototypes")
    assert (expected[:6] == 0).all()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)  # kept in float32
    assert golden("reminder/running/counts").tolist()[6:] == [
        sum(int((batch.labels == channel).any()) for batch in batches) for channel in (6, 7, 8)
    ]
