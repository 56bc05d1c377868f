"""Scenes of 0, 1 and 2 vertices and without labels, in training and validation: the whole loop goes through,
every scene with a voxel once an epoch, by the rules of docs/training.md."""

import json
import shutil
from dataclasses import dataclass, replace

import pytest
import torch

import baselines  # noqa: F401  registers the methods
from scannet_css.methods.method import Method, find_method
from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.scenes.store import SceneHeader, save_manifest, save_scene, scene_file
from scannet_css.training.machine import Machine
from scannet_css.training.recipe import Recipe
from scannet_css.training.run import ContinualRun
from scannet_css.training.setting import Setting

RECIPE = Recipe(
    network="minkunet14s",
    base_epochs=1,
    epochs=1,
    base_learning_rate=0.02,
    batch_voxels=1,  # every scene is a batch of its own
)


@pytest.fixture(scope="module")
def manifest(small_set, tmp_path_factory):
    """Three scenes and, beside them, cuts of the first: `one`, `two`, `empty`, `ignored`."""
    folder = tmp_path_factory.mktemp("degenerate") / "prepared"
    shutil.copytree(small_set, folder)
    manifest = load_manifest(folder)
    scenes = {entry.name: entry for split in ("train", "val") for entry in manifest.split(split)[:3]}
    source = load_scene(manifest.path(manifest.split("train")[0]))
    chair = manifest.classes.index("chair")
    order = torch.argsort((source.labels != chair).int(), stable=True)  # chairs first
    for split in ("train", "val"):
        for name, count, label in (
            ("empty", 0, chair),
            ("one", 1, chair),
            ("two", 2, chair),
            ("ignored", 400, 255),
        ):
            rows = order[:count]
            voxels = source.voxel_coordinates[source.inverse[rows].long()]
            voxels, inverse = torch.unique(voxels, dim=0, return_inverse=True)
            scene = replace(
                source,
                name=f"{name}_{split}",
                points=source.points[rows],
                colours=source.colours[rows],
                normals=source.normals[rows],
                instances=source.instances[rows],
                labels=torch.full((count,), label, dtype=torch.uint8),
                voxel_coordinates=voxels,
                voxel_labels=torch.full((len(voxels),), label, dtype=torch.uint8),
                inverse=inverse.int(),
            )
            labelled = count if label != 255 else 0
            entry = replace(
                manifest.split(split)[0],
                name=scene.name,
                file=scene_file(split, scene.name),
                vertices=count,
                voxels=len(voxels),
                class_counts=tuple(labelled * (c == chair) for c in range(len(manifest.classes))),
                ignored=count - labelled,
                unknown_ids={},
                findings={},
                sha256="",
                content="",
            )
            save_scene(folder / entry.file, scene, SceneHeader("a" * 64, {}, entry))
            scenes[entry.name] = entry
    save_manifest(replace(manifest, scenes=scenes))
    return load_manifest(folder)


@dataclass
class Everything(Method):
    """Trains on every scene of the split in every step, labelled or not, as a replay might."""

    name = "everything"
    needs_teacher = False

    def scenes(self, step):
        return self.all_scenes


@pytest.mark.parametrize("name", ["finetune", "lgkd+plop3d", "everything"])
def test_the_loop_goes_through(manifest, three_steps, tmp_path, name):
    setting = Setting(manifest, load_protocol(three_steps), RECIPE, seed=0)
    method = find_method(name)()
    method.all_scenes = manifest.split("train")
    run = ContinualRun(setting, method, tmp_path / "run", tmp_path / "bases", Machine(torch.device("cpu")))
    results = run.run().steps
    scored = sum(sum(entry.class_counts) for entry in manifest.split("val"))
    assert [sum(map(sum, result.vertices)) for result in results] == [scored] * 3
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "step1" / "metrics.jsonl").read_text().splitlines()
    ]
    expected = [entry for entry in manifest.split("train") if entry.voxels]
    if name != "everything":
        shown = [manifest.classes.index(each) for each in setting.protocol.steps[1]]
        expected = [entry for entry in expected if any(entry.class_counts[c] for c in shown)]
        assert {"one_train", "two_train"} < {entry.name for entry in expected}
    assert len(rows) == len(expected) and all(row["scenes"] == 1 for row in rows)
    assert all(row["loss"]["total"] == row["loss"]["total"] for row in rows)
