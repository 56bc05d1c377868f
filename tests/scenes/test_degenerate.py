"""Scenes that hardly are any, and numbers that are none: left out, trained on, or refused by name."""

from dataclasses import replace

import pytest
import torch

from scannet_css.classes import CLASSES
from scannet_css.errors import InputError
from scannet_css.scenes import Manifest, Scene, SceneEntry, load_manifest
from scannet_css.scenes.loader import BatchSet, batches_of, plan_batches
from scannet_css.scenes.store import SceneHeader, save_manifest, save_scene, scene_file
from scannet_css.scenes.voxelize import majority_labels, voxelize

INPUTS = "colour+normal+height"
VOXEL_SIZE = 0.05
TABLE = torch.arange(256)  # labels as they are


def random_points(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, generator=generator) * torch.tensor([3.0, 2.0, 2.5])


def a_scene(name, points, label=3, **changes):
    count = len(points)
    coordinates, inverse = voxelize(torch.nan_to_num(points), VOXEL_SIZE)
    labels = torch.full((count,), label, dtype=torch.uint8)
    scene = Scene(
        name=name,
        points=points,
        colours=torch.full((count, 3), 51, dtype=torch.uint8),
        normals=torch.tensor([0.0, 0.0, 1.0]).repeat(count, 1),
        labels=labels,
        instances=torch.zeros(count, dtype=torch.int32),
        voxel_coordinates=coordinates,
        voxel_labels=majority_labels(labels, inverse, len(coordinates)),
        inverse=inverse.int(),
    )
    return replace(scene, **changes)


def store(folder, *scenes):
    """A prepared set of these train scenes."""
    entries = {}
    for scene in scenes:
        counts = torch.bincount(scene.labels[scene.labels != 255].long(), minlength=len(CLASSES)).tolist()
        entry = SceneEntry(
            name=scene.name,
            split="train",
            file=scene_file("train", scene.name),
            sha256="",
            vertices=len(scene.points),
            voxels=len(scene.voxel_coordinates),
            class_counts=tuple(counts),
            ignored=len(scene.points) - sum(counts),
            unknown_ids={},
            labelled=True,
        )
        save_scene(folder / entry.file, scene, SceneHeader("a" * 64, {}, entry))
        entries[scene.name] = entry
    save_manifest(Manifest(folder, "own", CLASSES, VOXEL_SIZE, entries))
    return load_manifest(folder)


def both_kinds(manifest, batches):
    """The set for training, all augmentation on, and the one for evaluation."""
    training = BatchSet(manifest, batches, TABLE, INPUTS, (0, 1, 2), with_elastic=True)
    return training, BatchSet(manifest, batches, TABLE, INPUTS)


def test_scenes_without_voxels_are_left_out_of_a_plan(tmp_path):
    nothing = [a_scene(f"empty{number}", torch.zeros(0, 3)) for number in range(3)]
    whole = [a_scene(f"whole{number}", random_points(50)) for number in range(2)]
    scenes = store(tmp_path, nothing[0], whole[0], nothing[1], whole[1], nothing[2]).scenes
    names = ("empty0", "whole0", "empty1", "empty2", "whole1")
    assert plan_batches([scenes[name] for name in names], 10**6) == [[scenes["whole0"], scenes["whole1"]]]
    assert plan_batches([scenes[name] for name in names], 1) == [[scenes["whole0"]], [scenes["whole1"]]]
    assert plan_batches([scenes["empty0"]], 1) == []


@pytest.mark.parametrize("vertices", [1, 2, 3])
@pytest.mark.parametrize("label", [3, 255])
def test_a_few_vertices_are_a_scene(tmp_path, vertices, label):
    manifest = store(tmp_path, a_scene("tiny", random_points(vertices), label))
    for batch_set in both_kinds(manifest, plan_batches(manifest.split("train"), 100)):
        (batch,) = batches_of(batch_set, 0)
        assert batch.names == ["tiny"] and 1 <= batch.voxels <= vertices
        assert batch.features.shape == (batch.voxels, 7)
        assert batch.labels.tolist() == [label] * batch.voxels
        # normals turn, the lowest point is the floor
        lengths = batch.features[:, 3:6].norm(dim=1)
        assert torch.allclose(lengths, torch.ones(batch.voxels), atol=1e-5)
        assert batch.features[:, 6].min() == 0
        assert batch.features.isfinite().all() and batch.features[:, :3].abs().max() <= 1
    assert [labels.tolist() for labels in batch.vertex_labels] == [[label] * vertices]


def test_a_normal_scene_is_the_same_beside_one_of_one_vertex(tmp_path):
    manifest = store(
        tmp_path, a_scene("normal", random_points(4000)), a_scene("tiny", random_points(1), label=255)
    )
    normal, tiny = manifest.scenes["normal"], manifest.scenes["tiny"]
    for alone, mixed in zip(
        both_kinds(manifest, [[normal]]), both_kinds(manifest, [[tiny, normal, tiny]]), strict=True
    ):
        alone, mixed = alone[0], mixed[0]
        assert mixed.coordinates[0, 0] == 0 and mixed.coordinates[-1, 0] == 2
        assert mixed.voxels == alone.voxels + 2
        assert torch.equal(mixed.features[1:-1], alone.features)
        assert torch.equal(mixed.coordinates[1:-1, 1:], alone.coordinates[:, 1:])
        assert mixed.labels[0] == mixed.labels[-1] == 255 and torch.equal(mixed.labels[1:-1], alone.labels)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_scenes_has_no_rows(tmp_path, workers):
    manifest = store(tmp_path, a_scene("normal", random_points(100)))
    entry = manifest.scenes["normal"]
    for batch_set in both_kinds(manifest, [[], [entry], []]):
        first, normal, last = batches_of(batch_set, workers)
        assert normal.voxels > 1
        for batch in (first, last):
            assert (batch.names, batch.inverse, batch.vertex_labels) == ([], [], []) and batch.voxels == 0
            for name in ("features", "coordinates", "labels"):
                empty, full = getattr(batch, name), getattr(normal, name)
                assert len(empty) == 0 and empty.dtype == full.dtype and empty.shape[1:] == full.shape[1:]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["points", "normals"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_with_the_files_name(tmp_path, workers, name, value):
    spoiled = getattr(a_scene("bad", random_points(100)), name).clone()
    spoiled[17, 1] = value
    bad = replace(a_scene("bad", random_points(100)), **{name: spoiled})
    manifest = store(tmp_path, a_scene("good", random_points(100)), bad)
    batches = plan_batches([manifest.scenes["good"], manifest.scenes["bad"]], 1)
    for batch_set in both_kinds(manifest, batches):
        results = batches_of(batch_set, workers)
        assert next(results).names == ["good"]
        with pytest.raises(InputError) as raised:
            next(results)
        path = manifest.path(manifest.scenes["bad"])
        expected = f"{path}: points or normals are not finite; prepare it again from whole data"
        assert str(raised.value) == expected


@pytest.mark.parametrize("distance", [1e4, 1e7])
def test_points_that_are_too_far_away_are_refused_with_the_files_name(tmp_path, distance):
    points = random_points(100)
    far = a_scene("far", points)
    far.points[5] = distance
    manifest = store(tmp_path, far)
    training, _ = both_kinds(manifest, [manifest.split("train")])
    with pytest.raises(InputError, match=r"far\.safetensors: points spread over .* cells of 0.2 m"):
        training[0]
    training.with_elastic = False
    if distance == 1e4:
        assert training[0].voxels > 1
    else:
        with pytest.raises(InputError, match=r"far\.safetensors: points .* lie beyond"):
            training[0]


def test_a_missing_file_is_one_line_from_a_worker_too(tmp_path):
    manifest = store(tmp_path, a_scene("gone", random_points(10)))
    path = manifest.path(manifest.scenes["gone"])
    path.unlink()
    for workers in (0, 1):
        with pytest.raises(InputError) as raised:
            list(batches_of(both_kinds(manifest, [manifest.split("train")])[0], workers))
        assert str(raised.value) == f"{path}: no such scene; run tools/prepare_scannet.py"
