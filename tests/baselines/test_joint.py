"""Joint training: as many updates as the sequence that it bounds."""

from dataclasses import replace

import pytest

from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest
from scannet_css.scenes.loader import plan_batches
from scannet_css.training.recipe import Recipe
from scannet_css.training.setting import Setting


@pytest.fixture(scope="module")
def setting(small_set, three_steps):
    recipe = Recipe(network="minkunet14s", base_epochs=7, epochs=3, batch_voxels=8000)
    return Setting(load_manifest(small_set), load_protocol(three_steps), recipe, seed=0)


def test_joint_has_as_many_updates_as_its_sequence(setting):
    protocol, manifest = setting.protocol, setting.manifest

    def batches(protocol, step):
        return len(plan_batches(protocol.scenes(step, manifest), 8000))

    updates = 7 * batches(protocol, 0) + 3 * (batches(protocol, 1) + batches(protocol, 2))
    together = setting.offline()
    assert together.protocol == protocol.offline()
    epoch = batches(together.protocol, 0)
    assert abs(together.recipe.base_epochs * epoch - updates) <= epoch / 2
    assert together.recipe.base_epochs > 7
    longer = replace(setting, recipe=replace(setting.recipe, epochs=30)).offline()
    assert longer.recipe.base_epochs > together.recipe.base_epochs
    assert longer.base_identity() != together.base_identity()  # a base of its own
    # what is one step already stays as it is
    assert together.offline().recipe == together.recipe
