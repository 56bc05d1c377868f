"""Replay: which scenes the memory keeps, and which labels it shows."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from baselines.replay import Replay
from scannet_css.network import build_network
from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest
from scannet_css.scenes.loader import BatchSet
from scannet_css.training.epochs import StepTrainer
from scannet_css.training.machine import Machine
from scannet_css.training.recipe import Recipe
from scannet_css.training.run import ContinualRun
from scannet_css.training.setting import Setting
from tests.baselines.toy import CLASSES, PROTOCOL


def scene(name, **points):
    return SimpleNamespace(name=name, class_counts=tuple(points.get(each, 0) for each in CLASSES))


SCENES = [
    scene("a", wall=9, floor=1),
    scene("b", wall=8, floor=2),
    scene("c", wall=7, floor=3, chair=5),
    scene("d", bed=1, chair=9),
    scene("e", sofa=4, chair=1),
]


def after(index, method, names):
    scenes = [each for each in SCENES if each.name in names]
    return SimpleNamespace(index=index, protocol=PROTOCOL, scenes=scenes)


def make(scenes_kept):
    method = Replay(scenes_kept=scenes_kept)
    method.check(PROTOCOL, SimpleNamespace(folder="toy", classes=CLASSES, split=lambda name: SCENES))
    return method


def test_classes_take_turns_with_the_scene_that_has_most_of_them():
    method = make(3)
    method.end(after(0, method, "abcd"))
    base = ["wall", "floor", "bed"]
    assert method.state["memory"] == {"a": base, "c": base, "d": base}  # not the three with most wall
    step = after(1, method, "cde")
    assert method.remembered(step) == method.state["memory"]
    assert [entry.name for entry in method.scenes(step)] == ["c", "d", "e", "a"]  # each once
    method.end(step)
    # c and d were scenes of both steps, a of step 0 alone, e of step 1 alone
    assert set(method.state["memory"]) == {"a", "c", "d"}
    assert method.state["memory"]["a"] == base
    assert method.state["memory"]["c"] == [*base, "chair", "sofa"]


@pytest.mark.parametrize("scenes_kept", [1, 2, 4, 5])
def test_the_budget_is_kept(scenes_kept):
    method = make(scenes_kept)
    method.end(after(0, method, "abcd"))
    assert len(method.state["memory"]) == min(scenes_kept, 4)
    method.end(after(1, method, "cde"))
    assert len(method.state["memory"]) == scenes_kept


@pytest.fixture(scope="module")
def setting(small_set, three_steps):
    recipe = Recipe(network="minkunet14s", elastic=False)
    return Setting(load_manifest(small_set), load_protocol(three_steps), recipe, seed=0)


def test_the_loader_shows_what_the_memory_kept_and_ignores_the_rest(setting, tmp_path):
    method = Replay(scenes_kept=4)
    run = ContinualRun(setting, method, tmp_path / "run", tmp_path / "bases", Machine(torch.device("cpu")))
    protocol, manifest = setting.protocol, setting.manifest
    network = build_network("minkunet14s", 3, protocol.channels(1))
    step = run._make_step(1, network, None)
    own = {entry.name for entry in step.scenes}
    first = list(protocol.steps[0])
    kept = sorted(entry.name for entry in manifest.split("train"))[:4]
    step.scenes = [
        entry for entry in step.scenes if entry.name not in kept[:2]
    ]  # two of them are not of the step
    own -= set(kept[:2])
    method.state["memory"] = dict.fromkeys(kept, first)
    trainer = StepTrainer(step, method, setting.recipe, manifest, 0, run.machine, tmp_path / "step")
    channel = {name: c for c, name in enumerate(protocol.channel_names(1))}
    scenes = method.scenes(step)
    assert len(scenes) == len(own | set(kept))

    raw = torch.arange(256)  # a table that leaves the data set's labels as they are
    seen = Counter()
    for entry in scenes:
        (found,) = trainer.load([[entry]], (0, 1, 0))
        (true,) = BatchSet(manifest, [[entry]], raw, identity=(0, 1, 0))
        for label, shown in zip(true.labels.tolist(), found.labels.tolist(), strict=True):
            name = "" if label == 255 else manifest.classes[label]
            if name in protocol.steps[1] and entry.name not in own:
                continue  # with such points it would be a scene of the step
            if name == "":
                expected = 255
            elif name in first:  # old: only a memory shows it, others take it for background
                expected = channel[name] if entry.name in kept else 0
            elif entry.name not in own:  # the memory has never seen it
                expected = 255
            else:
                expected = channel[name] if name in protocol.steps[1] else 0
            assert shown == expected, (entry.name, name)
            seen[entry.name in kept, entry.name in own, min(shown, 1)] += 1
    assert seen[True, False, 1] and not seen[True, False, 0]  # a memory alone shows no background
    assert seen[True, True, 0] and seen[True, True, 1] and seen[False, True, 0]
