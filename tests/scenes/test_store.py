"""Scene files and the manifest: what goes in comes out, and nothing else is taken for one."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from scannet_css.classes import CLASSES
from scannet_css.errors import InputError
from scannet_css.scenes import Manifest, Scene, SceneEntry, load_manifest, load_scene
from scannet_css.scenes.store import SceneHeader, read_header, save_manifest, save_scene

TENSORS = (
    "points",
    "colours",
    "normals",
    "labels",
    "instances",
    "voxel_coordinates",
    "voxel_labels",
    "inverse",
)


def a_scene():
    return Scene(
        name="scene0000_00",
        points=torch.tensor([[0.0, 0.5, 1.0], [0.25, -1.0, 2.0], [3.0, 1.0, 0.0]]),
        colours=torch.tensor([[0, 1, 2], [253, 254, 255], [9, 9, 9]], dtype=torch.uint8),
        normals=torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
        labels=torch.tensor([0, 255, 19], dtype=torch.uint8),
        instances=torch.tensor([-1, 4, 2**31 - 1], dtype=torch.int32),
        voxel_coordinates=torch.tensor([[-1, 0, 0], [7, 8, 9]], dtype=torch.int32),
        voxel_labels=torch.tensor([255, 19], dtype=torch.uint8),
        inverse=torch.tensor([0, 0, 1], dtype=torch.int32),
    )


def an_entry(name="scene0000_00", split="train", sha256="0" * 64, **changes):
    counts = [0] * len(CLASSES)
    counts[0] = counts[19] = 1
    entry = SceneEntry(
        name=name,
        split=split,
        file=f"{split}/{name}.safetensors",
        sha256=sha256,
        vertices=3,
        voxels=2,
        class_counts=tuple(counts),
        ignored=1,
        unknown_ids={50: 1},
        labelled=True,
        findings={"unknown_ids": 1},
    )
    return replace(entry, **changes)


def canonical_sha256(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def a_manifest(folder, **changes):
    entries = [an_entry("scene0001_00"), an_entry("scene0000_00"), an_entry("scene0568_00", "val")]
    manifest = Manifest(folder, "scannet", CLASSES, 0.02, {e.name: e for e in entries}, {"labels": "ply"})
    return replace(manifest, **changes)


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "train" / "scene0000_00.safetensors"
    save_scene(path, a_scene(), SceneHeader("a" * 64, {"_vh_clean_2.ply": 99}, an_entry(sha256="")))
    return path


def test_a_scene_comes_back(stored):
    found, expected = load_scene(stored), a_scene()
    assert found.name == expected.name
    for name in TENSORS:
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert set(load_file(stored)) == set(TENSORS)
    header = read_header(stored)
    assert header == SceneHeader("a" * 64, {"_vh_clean_2.ply": 99}, an_entry(sha256=""))


def test_the_same_scene_gives_the_same_bytes(stored, tmp_path):
    again = tmp_path / "again.safetensors"
    save_scene(again, a_scene(), read_header(stored))
    assert again.read_bytes() == stored.read_bytes()


def refusal(function, path):
    with pytest.raises(InputError) as caught:
        function(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def test_files_that_are_no_scene(tmp_path, stored):
    path = tmp_path / "other.safetensors"
    assert "no such scene" in refusal(load_scene, path)
    for content in (b"", b"x" * 100, stored.read_bytes()[:-1], stored.read_bytes()[:200]):
        path.write_bytes(content)
        assert "not a prepared scene" in refusal(load_scene, path)
    save_file({"points": torch.zeros(3, 3)}, path)
    assert "not a scene of this suite" in refusal(load_scene, path)
    save_file({"points": torch.zeros(3, 3)}, path, metadata={"scannet_css": '{"settings": 1}'})
    assert "not a scene of this suite" in refusal(load_scene, path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("points", torch.zeros(3, 3, dtype=torch.float64)),
        ("points", torch.zeros(2, 3)),
        ("labels", torch.tensor([0, 20, 255], dtype=torch.uint8)),
        ("labels", torch.zeros(3, 1, dtype=torch.uint8)),
        ("inverse", torch.tensor([0, 0, 2], dtype=torch.int32)),
        ("inverse", torch.tensor([-1, 0, 1], dtype=torch.int32)),
        ("voxel_labels", torch.zeros(3, dtype=torch.uint8)),
    ],
)
def test_tensors_that_do_not_fit(stored, name, value):
    header = read_header(stored)
    save_scene(stored, replace(a_scene(), **{name: value}), header)
    assert "prepare it again" in refusal(load_scene, stored)


def test_a_manifest_comes_back(tmp_path):
    manifest = a_manifest(tmp_path)
    save_manifest(manifest)
    found = load_manifest(str(tmp_path))
    assert found == manifest and found.hash == manifest.hash
    assert [entry.name for entry in found.split("train")] == ["scene0000_00", "scene0001_00"]
    assert [entry.name for entry in found.split("val")] == ["scene0568_00"]
    assert found.path(found.split("val")[0]) == tmp_path / "val" / "scene0568_00.safetensors"
    assert found.scenes["scene0000_00"].unknown_ids == {50: 1}


def test_the_hash_names_content_and_nothing_else(tmp_path):
    manifest = a_manifest(tmp_path)
    # this value stands in records; it may change only together with FORMAT
    settings = canonical_sha256([2, "scannet", list(CLASSES), 0.02, {"labels": "ply"}])
    scenes = {n: [e.split, e.content] for n, e in manifest.scenes.items()}
    assert manifest.hash == canonical_sha256([settings, scenes])
    assert replace(manifest, folder=tmp_path / "elsewhere").hash == manifest.hash
    same_tensors = {name: replace(e, sha256="1" * 64) for name, e in manifest.scenes.items()}
    assert replace(manifest, scenes=same_tensors).hash == manifest.hash
    entries = dict(reversed(list(manifest.scenes.items())))
    assert replace(manifest, scenes=entries).hash == manifest.hash
    one = manifest.scenes["scene0000_00"]
    others = [
        replace(manifest, dataset="synthetic"),
        replace(manifest, classes=CLASSES[::-1]),
        replace(manifest, voxel_size=0.05),
        replace(manifest, settings={"labels": "segments"}),
        replace(manifest, scenes={**manifest.scenes, one.name: replace(one, content="1" * 64)}),
        replace(manifest, scenes={**manifest.scenes, one.name: replace(one, split="val")}),
        replace(manifest, scenes={one.name: one}),
    ]
    assert len({manifest.hash, *(other.hash for other in others)}) == 8


def test_no_manifest(tmp_path):
    assert "run tools/prepare_scannet.py" in str(pytest.raises(InputError, load_manifest, tmp_path).value)
    (tmp_path / "file").write_text("")
    assert "run tools/prepare_scannet.py" in str(
        pytest.raises(InputError, load_manifest, tmp_path / "file").value
    )


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '{"format": 1}', '{"format": 2}', '{"format": 2, "scenes": 3}']
)
def test_files_that_are_no_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    message = str(pytest.raises(InputError, load_manifest, tmp_path).value)
    assert message.startswith(f"{tmp_path / 'manifest.json'}: ") and "\n" not in message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(voxel_size=0.05), "was it edited"),
        (lambda c: c["scenes"].pop("scene0000_00"), "was it edited"),
        (lambda c: c["scenes"]["scene0000_00"].update(file="../../etc/passwd"), "unexpected split or file"),
        (lambda c: c["scenes"]["scene0000_00"].update(split="../x"), "unexpected split or file"),
        (lambda c: c["scenes"].update({"../x": c["scenes"]["scene0000_00"]}), "unexpected split or file"),
        (lambda c: c["scenes"]["scene0000_00"].update(ignored=2), "do not add up"),
        (lambda c: c["scenes"]["scene0000_00"].update(vertices=2.5), "vertices is 2.5: expected an integer"),
        (lambda c: c["scenes"]["scene0000_00"].update(voxels=-1), "whole numbers"),
        (lambda c: c["scenes"]["scene0000_00"].update(sha256="zz"), "unexpected sha256"),
        (lambda c: c["scenes"]["scene0000_00"].pop("labelled"), "labelled"),
        (lambda c: c["scenes"]["scene0000_00"]["findings"].update(no_faces=-1), "whole numbers"),
        (lambda c: c["settings"].update(labels=3), "settings.labels is 3: expected text"),
        (lambda c: c["settings"].update(labels="segments"), "was it edited"),
        (lambda c: c["scenes"].update(scene0000_00=[]), "damaged"),
    ],
)
def test_manifests_that_were_changed(tmp_path, change, reason):
    save_manifest(a_manifest(tmp_path))
    content = json.loads((tmp_path / "manifest.json").read_text())
    change(content)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    message = str(pytest.raises(InputError, load_manifest, tmp_path).value)
    assert reason in message and "\n" not in message
