"""Batches: what a plan holds, and that a scene looks the same whatever batch it comes in."""

import pytest
import torch

from scannet_css.errors import InputError
from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.scenes.loader import (
    BatchSet,
    batches_of,
    derived_generator,
    input_channels,
    plan_batches,
    point_features,
    shuffled,
)


@pytest.fixture(scope="module")
def manifest(small_set):
    return load_manifest(small_set)


@pytest.fixture(scope="module")
def table(manifest):
    return load_protocol("offline").training_table(0, manifest.classes)


def test_a_plan_holds_every_scene_once_and_keeps_the_budget(manifest):
    scenes = manifest.split("train")
    for budget in (1, 2000, 5000, 10**9):
        batches = plan_batches(scenes, budget)
        assert [scene for batch in batches for scene in batch] == scenes
        for batch in batches:
            assert len(batch) == 1 or sum(scene.voxels for scene in batch) <= budget


def test_shuffling_depends_on_the_identity_alone(manifest):
    scenes = manifest.split("train")
    order = shuffled(scenes, 0, 1, 2, "order")
    assert order == shuffled(scenes, 0, 1, 2, "order")
    assert order != shuffled(scenes, 0, 1, 3, "order")
    assert sorted(entry.name for entry in order) == [entry.name for entry in scenes]
    first = torch.rand(3, generator=derived_generator(7, "scene"))
    assert torch.equal(first, torch.rand(3, generator=derived_generator(7, "scene")))


def test_a_training_scene_does_not_depend_on_its_batch(manifest, table):
    scenes = manifest.split("train")[:3]
    together = BatchSet(manifest, [scenes], table, "colour+normal", (0, 1, 2), with_elastic=True)[0]
    alone = BatchSet(manifest, [[scenes[1]]], table, "colour+normal", (0, 1, 2), with_elastic=True)[0]
    rows = together.coordinates[:, 0] == 1
    assert torch.equal(together.coordinates[rows, 1:], alone.coordinates[:, 1:])
    assert torch.equal(together.features[rows], alone.features)
    assert torch.equal(together.labels[rows], alone.labels)
    other_epoch = BatchSet(manifest, [[scenes[1]]], table, "colour+normal", (0, 1, 3), with_elastic=True)[0]
    assert not torch.equal(other_epoch.features, alone.features[: len(other_epoch.features)])


def test_an_evaluation_batch_is_the_prepared_scene(manifest, table):
    entry = manifest.split("val")[0]
    scene = load_scene(manifest.path(entry))
    batch = BatchSet(manifest, [[entry]], table)[0]
    assert torch.equal(batch.coordinates[:, 1:], scene.voxel_coordinates)
    assert torch.equal(batch.inverse[0], scene.inverse.long())
    assert torch.equal(batch.vertex_labels[0], table[scene.labels.long()])
    members = scene.colours[scene.inverse == 7].double().mean(0)
    assert torch.allclose(batch.features[7].double(), members / 127.5 - 1, atol=1e-6)


def test_workers_deliver_the_same_batches_in_the_same_order(manifest, table):
    batches = plan_batches(manifest.split("train"), 3000)
    for identity in ((1, 2, 3), None):
        batch_set = BatchSet(manifest, batches, table, identity=identity)
        for here, there in zip(batches_of(batch_set, 0), batches_of(batch_set, 2), strict=True):
            assert here.names == there.names
            for one, other in zip(here.tensors, there.tensors, strict=True):
                assert torch.equal(one, other)


def test_point_features_are_what_their_names_say():
    points = torch.tensor(
        [[0.0, 0.0, -5.0]] + [[float(x), 0.0, 0.25] for x in range(150)] + [[0.0, 0.0, 1.25]]
    )
    normals = torch.zeros_like(points)
    normals[:, 2] = 1
    colours = torch.full_like(points, 255.0)
    features = point_features("height+colour+normal", points, normals, colours)
    assert features.shape == (152, input_channels("height+colour+normal")) == (152, 7)
    assert features[-1].tolist() == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0]  # the stray below is not the floor
    for count in (1, 2, 100, 101, 102, 5000):
        points = torch.randn(count, 3, generator=derived_generator(count))
        floor = points[:, 2].kthvalue(1 + (count - 1) // 100).values
        assert torch.equal(point_features("height", points, points, points), points[:, 2:] - floor)
    for wrong in ("color", "colour+colour", ""):
        with pytest.raises(InputError, match="expected some of colour, normal, height"):
            input_channels(wrong)
