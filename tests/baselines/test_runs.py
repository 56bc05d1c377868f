"""Every method through the real loop: two steps, one epoch each."""

from dataclasses import replace

import pytest
import torch

import baselines  # noqa: F401  registers the methods
from scannet_css.methods.method import find_method, method_names
from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest
from scannet_css.training.machine import Machine
from scannet_css.training.recipe import Recipe
from scannet_css.training.run import ContinualRun
from scannet_css.training.setting import Setting

RECIPE = Recipe(
    network="minkunet14s",
    base_epochs=1,
    epochs=1,
    base_learning_rate=0.02,
    learning_rate=0.01,
    batch_voxels=8000,
    elastic=False,
)
MEMORIES = ("replay", "mib-augm", "ssul-m", "climb3d")
OPTIONS = {**{name: {"scenes_kept": 4} for name in MEMORIES}, "cfsseg": {"width": 64}}
ALL = [name for name in method_names() if find_method(name).__module__.startswith("baselines.")]


@pytest.fixture(scope="module")
def setting(small_set, three_steps):
    protocol = load_protocol(three_steps)
    first, second, third = protocol.steps
    two = replace(protocol, steps=(first, (*second, *third)))
    return Setting(load_manifest(small_set), two, RECIPE, seed=3)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return tmp_path_factory.mktemp("bases")


@pytest.mark.parametrize("name", ALL)
def test_a_run_scores_every_point_after_every_step(name, setting, bases, tmp_path):
    method = find_method(name)(**OPTIONS.get(name, {}))
    if method.offline:
        setting = replace(setting, protocol=setting.protocol.offline())
    results = ContinualRun(setting, method, tmp_path / "run", bases, Machine(torch.device("cpu"))).run().steps
    assert [len(step.classes) for step in results] == ([18] if method.offline else [10, 18])
    validation = setting.manifest.split("val")
    total = sum(sum(entry.class_counts) for entry in validation)
    for step in results:
        counts = torch.tensor(step.vertices)
        assert counts.sum() == total
        for channel, label in enumerate(step.classes[1:], start=1):
            points = sum(entry.class_counts[setting.manifest.classes.index(label)] for entry in validation)
            assert counts[channel].sum() == points
    assert results[-1].epochs == int(method.trains)
