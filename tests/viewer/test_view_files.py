"""What else tools/view.py writes and opens: point clouds, whole runs, windows."""

import io
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from plyfile import PlyData
from safetensors.torch import save_file

from scannet_css.classes import CLASSES, COLOURS, NYU40_IDS, SCANNET20
from scannet_css.scenes.store import SceneEntry, SceneHeader, save_scene, scene_file
from scannet_css.viewer.ply import room_plys
from scannet_css.viewer.predictions import find_runs
from tests.viewer.viewed_room import FLOOR_RGB, HOSTILE, UNLABELLED, make_room, make_run


@pytest.fixture
def scene_path(tmp_path):
    room = make_room()
    count = len(room.points)
    none = torch.zeros(count, dtype=torch.int32)
    room = replace(
        room,
        instances=none,
        inverse=none.clone(),
        voxel_coordinates=none[:1].repeat(1, 3),
        voxel_labels=none[:1].to(torch.uint8),
    )
    counts = tuple(int((room.labels == label).sum()) for label in range(20))
    entry = SceneEntry(
        name=room.name,
        split="val",
        file=scene_file("val", room.name),
        sha256="",
        vertices=count,
        voxels=1,
        class_counts=counts,
        ignored=count - sum(counts),
        unknown_ids={},
        labelled=True,
    )
    path = tmp_path / "scene.safetensors"
    save_scene(path, room, SceneHeader(settings="test", raw={}, entry=entry))
    return path


@pytest.fixture
def run_folder(tmp_path):
    """A run of two steps, as benchmarks/run.py --keep-predictions leaves it."""
    room = make_room()
    for one in make_run(room, "", (0.1, 0.45)).steps:
        path = tmp_path / "seed0" / "predictions" / f"step{one.step}" / f"{room.name}.safetensors"
        path.parent.mkdir(parents=True)
        names = ", ".join(f'"{name}"' for name in one.channels)
        metadata = {"channels": f"[{names}]", "scene": room.name}
        save_file({"prediction": torch.from_numpy(one.values)}, path, metadata)
    (tmp_path / "seed0" / "settings.json").write_text('{"method": "lgkd"}')
    return tmp_path / "seed0"


def test_a_name_gives_every_file_and_a_suffix_one(run, scene_path, run_folder, tmp_path):
    done = run(tmp_path, "tools/view.py", scene_path, "--run", run_folder, "--out", "made/room")
    assert done.returncode == 0, done.stderr
    names = ["room-lgkd-errors.ply", "room-lgkd.ply", "room-truth.ply", "room.html", "room.ply", "room.png"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == names
    for name in ("one.ply", "one.html"):
        done = run(tmp_path, "tools/view.py", scene_path, "--out", f"alone/{name}")
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == ["one.html", "one.ply"]
    ply = PlyData.read(tmp_path / "made" / "room.ply")["vertex"]
    assert [one.name for one in ply.properties][-3:] == ["label", "lgkd_step0", "lgkd_step1"]


def test_point_clouds_hold_exactly_what_was_predicted():
    room = make_room()
    runs = [make_run(room, title, (0.1, 0.45)) for title in (HOSTILE, HOSTILE, "truth")]
    files = {name: PlyData.read(io.BytesIO(data)) for name, data in room_plys(room, runs, CLASSES).items()}
    assert len(files) == 2 + 2 * 3
    assert all(all(c.isalnum() or c in "-_" for c in name) for name in files)
    whole = files[""]["vertex"]
    assert np.array_equal(np.stack([whole[axis] for axis in "xyz"], 1), room.points.numpy())
    normals = np.stack([whole[name] for name in ("nx", "ny", "nz")], 1)
    assert np.array_equal(normals, room.normals.numpy())
    assert tuple(whole.data[0])[6:9] == FLOOR_RGB
    labels = room.labels.numpy()
    ids = np.array([NYU40_IDS[label] if label != UNLABELLED else -1 for label in labels])
    assert np.array_equal(whole["label"], ids)
    names = [one.name for one in whole.properties]
    assert names[-2:] == ["truth_2_step0", "truth_2_step1"] and len(set(names)) == len(names)
    for run, stem in ((runs[0], names[10][:-1]), (runs[2], "truth_2_step")):
        for one in run.steps:
            expected = SCANNET20.channel_ids(one.channels)[one.values]
            assert np.array_equal(whole[f"{stem}{one.step}"], expected)
    painted = files["-truth_2"]["vertex"]
    last = runs[2].steps[-1]
    colours = np.array([(150, 150, 150), *(COLOURS[CLASSES.index(name)] for name in last.channels[1:])])
    assert np.array_equal(np.stack([painted[c] for c in ("red", "green", "blue")], 1), colours[last.values])
    assert "label 1 wall" in files[""].comments and "label -1 unlabelled" in files[""].comments


def test_runs_are_found_by_their_folders(run_folder, tmp_path):
    room = make_room()
    empty = tmp_path / "empty"
    empty.mkdir()
    found = find_runs([run_folder, empty], room, CLASSES)
    assert [(one.title, [step.step for step in one.steps]) for one in found] == [("lgkd", [0, 1])]
    expected = make_run(room, "", (0.1, 0.45)).steps
    assert all(np.array_equal(a.values, b.values) for a, b in zip(found[0].steps, expected, strict=True))
    twice = find_runs([run_folder, run_folder.parent / "." / "seed0"], room, CLASSES)
    assert [one.title for one in twice] == ["lgkd (seed0)"] * 2


def test_what_cannot_be_shown_is_said_in_one_line(run, scene_path, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = {
        ("--run", tmp_path / "empty", "--out", "x"): "/empty: no predictions/step*/scene0000_00.safetensors",
        (): "nothing to do; expected --out, --window or both",
    }
    for options, message in cases.items():
        done = run(tmp_path, "tools/view.py", scene_path, *options)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr
    assert not list(tmp_path.glob("x*"))


def test_without_rerun_and_open3d_a_window_says_what_to_install(run, scene_path, tmp_path, monkeypatch):
    for name in ("rerun", "open3d"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run(tmp_path, "tools/view.py", scene_path, "--window")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "pip install rerun-sdk (or open3d)" in done.stderr


def test_open3d_gets_a_cloud_for_each_panel(run, scene_path, run_folder, tmp_path, monkeypatch):
    shown = []
    open3d = types.SimpleNamespace(
        geometry=types.SimpleNamespace(PointCloud=types.SimpleNamespace),
        utility=types.SimpleNamespace(Vector3dVector=np.asarray),
        visualization=types.SimpleNamespace(draw_geometries=lambda clouds, window_name: shown.append(clouds)),
    )
    monkeypatch.setitem(sys.modules, "rerun", None)
    monkeypatch.setitem(sys.modules, "open3d", open3d)
    done = run(tmp_path, "tools/view.py", scene_path, "--run", run_folder, "--window")
    assert done.returncode == 0, done.stderr
    (clouds,) = shown
    assert len(clouds) == 4
    for place, cloud in enumerate(clouds):
        assert cloud.points.shape == cloud.colors.shape == (len(make_room().points), 3)
        assert cloud.points[0, 0] == pytest.approx(place * 1.2 * 7.9, abs=1e-4)
    assert tuple(np.rint(255 * clouds[0].colors[0])) == FLOOR_RGB
