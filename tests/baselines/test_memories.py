"""Memories: cross-entropy of what a scene shows, and objects that are cut out and put onto free floor."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import baselines  # noqa: F401  registers the methods
from scannet_css.errors import InputError
from scannet_css.methods.losses import cross_entropy_of_shown, unbiased_cross_entropy
from scannet_css.methods.method import find_method
from scannet_css.methods.objects import FreeFloor, objects_of, pasted
from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.scenes.loader import BatchSet
from scannet_css.training.machine import Machine
from scannet_css.training.recipe import Recipe
from scannet_css.training.run import ContinualRun
from scannet_css.training.setting import Setting
from tests.baselines.original_values import assert_close, assert_gradients, original
from tests.baselines.toy import STEP_LABELS, K, at_step_1, forward, toy_batch, toy_method


def test_cross_entropy_of_memory_and_step_are_mib_augms():
    values = original("replay")
    old = values["old_channels"]
    for part, first, last in (("memory", 1, old), ("current", old, 9)):
        logits, labels = values[f"{part}_logits"].requires_grad_(), values[f"{part}_labels"]
        if (
            part == "memory"
        ):  # the published code takes what is to be ignored, and new classes, for background
            labels = torch.where(labels >= old, 0, labels)
        else:  # and here old classes
            labels = torch.where(labels < old, 0, labels)
        shown = torch.zeros(len(labels), 9, dtype=torch.bool)
        shown[:, first:last] = True
        found = cross_entropy_of_shown(logits, labels, shown)
        found = found * (labels != 255).sum() / len(labels)  # its mean is over all rows
        assert_close(found, values[f"{part}_ce"])
        assert_gradients(found, "replay", f"{part}_ce", only=(logits, lambda gradient: gradient))


def test_scenes_of_a_step_have_mibs_cross_entropy_and_a_memory_its_own():
    batch = toy_batch(STEP_LABELS)
    for name in ("replay", "mib-augm"):
        method = toy_method(name)
        step = at_step_1(method, batch)
        step.scenes = [SimpleNamespace(name="scene1"), SimpleNamespace(name="scene2")]
        method.state["memory"] = {"scene0": ["wall"], "scene2": ["floor"]}
        shown = method.shown(step, batch)
        scene = batch.coordinates[:, 0].long()
        expected = torch.tensor([[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 1, 0, 1, 1]]).bool()
        assert torch.equal(shown, expected[scene])
        method.state["memory"] = {}
        new, old = forward(step, batch)
        mine = method.loss(step, batch, new, old)["ce"]
        torch.testing.assert_close(mine, unbiased_cross_entropy(new.logits, batch.labels, K))


def test_a_plain_one_teaches_that_remembered_classes_are_background():
    """The gradient at an old class's logit, on a row of the step that is background to it."""
    pulls = {}
    for kind in ("plain", "unbiased"):
        batch = toy_batch((0,))
        method = find_method("replay")(scenes_kept=1, cross_entropy=kind)
        step = at_step_1(method, batch)
        method.state["memory"] = {}
        step.scenes = [SimpleNamespace(name=name) for name in batch.names]
        new, old = forward(step, batch)
        logits = torch.zeros_like(new.logits).index_fill(1, torch.tensor([2]), 5.0).requires_grad_()
        method.loss(step, batch, replace(new, logits=logits), old)["ce"].backward()
        pulls[kind] = logits.grad[:, 2].sum().item()
    assert pulls["plain"] > 0.5  # down, hard
    assert pulls["unbiased"] < 0


@pytest.fixture(scope="module")
def setting(small_set, three_steps):
    recipe = Recipe(network="minkunet14s", elastic=False)
    return Setting(load_manifest(small_set), load_protocol(three_steps), recipe, seed=0)


def test_objects_are_the_instances_of_a_class(setting):
    manifest = setting.manifest
    seen = 0
    for label, name in enumerate(manifest.classes):
        for entry in manifest.split("train"):
            scene = load_scene(manifest.path(entry))
            found = objects_of(scene, label, name, 10)
            sizes = [len(each["points"]) for each in found]
            assert sizes == sorted(sizes, reverse=True) and min(sizes, default=10) >= 10
            of_class = scene.labels == label
            assert sum(sizes) <= int(of_class.sum())
            for each in found:
                seen += 1
                assert each["points"][:, :2].abs().max() <= 1.2501
                low, high = each["points"].amin(0), each["points"].amax(0)
                torch.testing.assert_close((low + high)[:2], torch.zeros(2), atol=1e-5, rtol=0)
                assert low[2] == 0 and each["class"] == name
    assert seen > 20


def room(side=4.0, step=0.05):
    """A floor of points, with a block in one half."""
    x, y = torch.meshgrid(torch.arange(0, side, step), torch.arange(0, side, step), indexing="ij")
    floor = torch.stack([x.flatten(), y.flatten(), torch.zeros(x.numel())], 1)
    block = floor[floor[:, 0] > side / 2] + torch.tensor([0, 0, 0.6])
    points = torch.cat([floor, block])
    return {
        "points": points,
        "normals": torch.zeros_like(points),
        "colours": torch.zeros(len(points), 3, dtype=torch.uint8),
        "labels": torch.zeros(len(points), dtype=torch.uint8),
    }


def an_object(height):
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) - torch.tensor([0.5, 0.5, 0])
    points = points * torch.tensor([0.5, 0.5, height])
    points[:, 2] -= points[:, 2].min()
    return {"class": "chair", "points": points, "normals": points, "colours": points.byte()}


@pytest.mark.parametrize("seed", range(5))
def test_pasted_objects_stand_on_free_floor_and_apart(seed):
    scene = room()
    generator = torch.Generator().manual_seed(seed)
    found, placed = pasted(scene, [an_object(1.0)] * 3, [7, 8, 9], 0.1, generator)
    assert placed >= 2
    assert all(len(found[name]) == len(scene["points"]) + 200 * placed for name in scene)
    cells = []
    for label in (7, 8, 9):
        points = found["points"][found["labels"] == label]
        if len(points):
            assert len(points) == 200
            assert points[:, 2].min() == pytest.approx(0, abs=1e-5)
            assert points[:, 0].max() < 2.05  # a metre high: not under the block
            assert points[:, :2].min() >= 0 and points[:, :2].max() < 4.1
            cells.append({tuple(cell) for cell in (points[:, :2] / 0.1).long().tolist()})
    assert len(set.union(*cells)) == sum(map(len, cells))
    assert torch.equal(found["points"][: len(scene["points"])], scene["points"])


def test_a_room_without_free_floor_gets_nothing():
    scene = room()
    roof = scene["points"][scene["points"][:, 2] == 0] + torch.tensor([0, 0, 0.5])
    assert (
        FreeFloor(torch.cat([scene["points"], roof]), 0.1).place_for(
            an_object(1.0)["points"], torch.Generator().manual_seed(0)
        )
        is None
    )


def test_the_loader_shows_pasted_objects_and_hides_the_rooms_own(setting, tmp_path):
    method = find_method("eir")(objects_kept=30)
    run = ContinualRun(setting, method, tmp_path / "run", tmp_path / "bases", Machine(torch.device("cpu")))
    protocol, manifest = setting.protocol, setting.manifest
    step = run._make_step(0, None, None)
    method.end(step)
    kept = method.state["objects"]
    assert 9 < len(kept) <= 30 and {each["class"] for each in kept} <= set(protocol.steps[0])
    step = run._make_step(1, None, None)
    table = protocol.training_table(1, manifest.classes)
    options = (manifest, [[entry] for entry in step.scenes], table)
    changed = BatchSet(*options, identity=(0, 1, 0), change=partial(method.change, step))
    plain = BatchSet(*options, identity=(0, 1, 0))
    again = BatchSet(*options, identity=(0, 1, 0), change=partial(method.change, step))
    old = 0
    for number in range(len(step.scenes)):
        with_objects, without = changed[number], plain[number]
        shown = (with_objects.labels > 0) & (with_objects.labels < protocol.channels(0))
        assert not ((without.labels > 0) & (without.labels < protocol.channels(0))).any()
        assert with_objects.voxels > without.voxels or not shown.any()
        assert torch.equal(with_objects.labels, again[number].labels)  # of (seed, step, epoch, scene) alone
        old += int(shown.sum())
    assert old > 20


def test_data_without_instances_are_refused_before_anything_is_trained(setting, monkeypatch, tmp_path):
    def without(path):
        scene = load_scene(path)
        return replace(scene, instances=torch.full_like(scene.instances, -1))

    monkeypatch.setattr("baselines.eir.load_scene", without)
    with pytest.raises(
        InputError, match="method 'eir': .* has no instances .*expected data with objects"
    ) as caught:
        ContinualRun(
            setting, find_method("eir")(), tmp_path / "run", tmp_path / "bases", Machine(torch.device("cpu"))
        )
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["replay", "mib-augm", "ssul-m"])
def test_a_memory_larger_than_the_data_is_refused(name, setting, tmp_path):
    with pytest.raises(InputError, match=f"method '{name}': scenes_kept is 100; expected at most the 10"):
        ContinualRun(
            setting, find_method(name)(), tmp_path / "run", tmp_path / "bases", Machine(torch.device("cpu"))
        )


def test_objects_of_old_classes_make_room_for_those_of_new_ones(setting, tmp_path):
    method = find_method("eir")(objects_kept=20)
    run = ContinualRun(setting, method, tmp_path / "run", tmp_path / "bases", Machine(torch.device("cpu")))
    for index in range(3):
        method.end(run._make_step(index, None, None))
        of_class = {}
        for each in method.state["objects"]:
            of_class[each["class"]] = of_class.get(each["class"], 0) + 1
        assert max(of_class.values()) <= max(1, 20 // len(setting.protocol.seen(index)))
        assert set(of_class) & set(setting.protocol.steps[index])
