"""Feature distillation on images, PLOP's and RCIL's, against the values of their code, exact to 1e-9."""

from types import SimpleNamespace

import pytest
import torch

from baselines.plop3d import PLOP3D
from baselines.rcil import RCIL
from scannet_css.network import Output
from scannet_css.network.minkunet import Level
from tests.baselines.originals import IMAGES, assert_original, golden, leaf, places, rows, step_of

PLOP_WEIGHTS = {"voc_15_1": (0.01, 0.0005), "voc_15_5": (0.01, 0.0005), "ade_100_50": (0.001, 1e-5)}
RCIL_WEIGHTS = {"voc_15_1": (0.01, 0.0005), "voc_15_5": (0.01, 0.0005), "ade_100_50": (5e-6, 5e-7)}


def images(case):
    """Student and teacher: the maps are levels, of which the last holds the logits."""
    number = sum(key.startswith(f"{case}/old") for key in IMAGES.files)
    outputs = []
    for kind, make in (("new", leaf), ("old", rows)):
        maps = [golden(f"{case}/{kind}{index}", IMAGES) for index in range(number)]
        levels = [Level(places(each), make(each), 1) for each in maps[:-1]]
        outputs.append(Output(make(maps[-1]), levels[-1].features, levels))
    new, old = outputs
    labels = torch.zeros(len(new.logits), dtype=torch.int64)
    batch = SimpleNamespace(labels=labels, coordinates=places(maps[-1]), names=["image"] * len(maps[-1]))
    gradients = {f"grad{index}": level.features for index, level in enumerate(new.levels)}
    gradients[f"grad{number - 1}"] = new.logits
    return step_of(new.logits.shape[1], old.logits.shape[1]), batch, new, old, gradients


@pytest.mark.parametrize("case", PLOP_WEIGHTS)
def test_local_pod(case):
    step, batch, new, old, gradients = images(case)
    features, logits = PLOP_WEIGHTS[case]
    method = PLOP3D(feature_weight=features, logit_weight=logits)
    method.state["thresholds"] = torch.zeros(step.old_channels)
    term = method.loss(step, batch, new, old)["pod"]
    assert_original(term, f"{case}/plop", gradients, IMAGES)


@pytest.mark.parametrize("case", RCIL_WEIGHTS)
def test_pooled_cubes(case):
    step, batch, new, old, gradients = images(case)
    features, logits = RCIL_WEIGHTS[case]
    terms = RCIL(feature_weight=features, logit_weight=logits).loss(step, batch, new, old)
    assert_original(terms["cubes"], f"{case}/rcil_spatial", gradients, IMAGES)
    assert_original(terms["channels"], f"{case}/rcil_channel", gradients, IMAGES)
