"""From raw folders to a prepared data set: exact values, order and workers, what is made again, refusals."""

import hashlib
import importlib.util
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scannet_css.classes import CLASSES
from scannet_css.commands import run_command
from scannet_css.errors import InputError
from scannet_css.raw.readers import reader_for
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.scenes.convert import prepare_scene, vertex_normals
from scannet_css.scenes.prepare import prepare
from scannet_css.scenes.verify_prepared import REPORTS

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "prepare_scannet.py"

# a square floor and a wall: two unit normals, one vertex on both, one vertex without a face
POINTS = [
    [0, 0, 0],
    [1, 0, 0],
    [1, 1, 0],
    [0, 1, 0],
    [0, 0, 1],
    [1, 0, 1],
    [0.5, 0.5, 0.5],
    [0.505, 0.5, 0.5],
]
FACES = [[0, 1, 2], [0, 2, 3], [0, 1, 5], [0, 5, 4]]
NYU40 = [2, 50, 39, 0, 1, 149, 13, 36]
LABELS = [1, 255, 19, 255, 0, 255, 255, 18]


CATEGORIES = {"floor": (3, 2), "wall": (1, 1), "chair": (2, 5), "book": (22, 23)}
LABEL_MAP = "id\traw_category\tnyu40id\n" + "".join(
    f"{number}\t{category}\t{nyu40}\n" for category, (number, nyu40) in CATEGORIES.items()
)


def room(seed, points=400):
    """A random mesh in a box with every NYU40 id."""
    dice = np.random.default_rng(seed)
    return {
        "points": dice.random((points, 3)) * [2, 2, 1],
        "faces": dice.integers(0, points, (800, 3)),
        "colours": dice.integers(0, 256, (points, 3)),
        "nyu40": dice.integers(0, 41, points),
        "segments": dice.integers(0, 20, points),
        "objects": {i: [i] for i in range(10)},
        "categories": {i: list(CATEGORIES)[i % 4] for i in range(10)},
    }


def make_scans(folder, write_scan, train=3, val=1, points=400):
    names = [f"scene{i:04d}_00" for i in range(train + val)]
    for seed, name in enumerate(names):
        write_scan(folder / name, **room(seed, points))
    write_lists(folder, train=names[:train], val=names[train:])
    return folder


def write_lists(folder, **lists):
    for split, names in lists.items():
        (folder / f"scannetv2_{split}.txt").write_text("".join(f"{name}\n" for name in names))


def content(folder):
    """Every file below a folder with its bytes, but for the report, which holds times."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in REPORTS)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def load_tool():
    spec = importlib.util.spec_from_file_location("prepare_scannet", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tool(capfd, *arguments):
    """Exit code, standard output and standard error of the command."""
    code = run_command(load_tool().main, [str(argument) for argument in arguments])
    return (code, *capfd.readouterr())


@pytest.fixture
def one_scan(tmp_path, write_scan):
    scans = tmp_path / "scans"
    write_scan(scans / "scene0191_00", POINTS, FACES, None, NYU40, [0, 0, 0, 0, 1, 1, 2, 2], {0: [0], 5: [2]})
    return scans


def test_values(tmp_path, one_scan):
    report = prepare(reader_for(tmp_path), tmp_path / "out")
    manifest = load_manifest(tmp_path / "out")
    assert report.manifest == manifest and (report.made, report.kept, report.failures) == (1, 0, {})
    assert (manifest.dataset, manifest.classes, manifest.voxel_size) == ("scannet", CLASSES, 0.02)
    entry = manifest.scenes["scene0191_00"]
    assert (entry.split, entry.vertices, entry.voxels, entry.labelled) == ("train", 8, 7, True)
    assert entry.class_counts == tuple(int(c in (0, 1, 18, 19)) for c in range(20)) and entry.ignored == 4
    assert entry.unknown_ids == {50: 1, 149: 1}
    assert entry.findings == {"unknown_ids": 2, "unannotated_vertices": 1}
    assert entry.sha256 == hashlib.sha256(manifest.path(entry).read_bytes()).hexdigest()

    scene = load_scene(manifest.path(entry))
    assert scene.name == "scene0191_00" and torch.equal(scene.points, torch.tensor(POINTS))
    assert scene.labels.tolist() == LABELS
    assert scene.instances.tolist() == [0, 0, 0, 0, -1, -1, 5, 5]
    floor, wall, none = [0, 0, 1], [0, -1, 0], [0, 0, 0]
    both = [0, -(0.5**0.5), 0.5**0.5]
    # at vertex 1 floor and wall meet with one face each, at vertex 0 with two each
    expected = [both, both, floor, floor, wall, wall, none, none]
    assert torch.allclose(scene.normals, torch.tensor(expected, dtype=torch.float32), atol=1e-7)
    cells = [[0, 0, 0], [0, 0, 50], [0, 50, 0], [25, 25, 25], [50, 0, 0], [50, 0, 50], [50, 50, 0]]
    assert scene.voxel_coordinates.tolist() == cells
    assert scene.inverse.tolist() == [0, 4, 6, 2, 1, 5, 3, 3]
    assert scene.voxel_labels.tolist() == [1, 0, 255, 18, 255, 255, 19]


def test_voxel_size_is_that_of_the_option(tmp_path, one_scan):
    manifest = prepare(reader_for(one_scan), tmp_path / "out", voxel_size=0.6).manifest
    scene = load_scene(manifest.path(manifest.scenes["scene0191_00"]))
    assert manifest.voxel_size == 0.6
    assert scene.voxel_coordinates.tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 0],
        [1, 0, 0],
        [1, 0, 1],
        [1, 1, 0],
    ]
    assert scene.voxel_labels.tolist() == [
        1,
        0,
        255,
        255,
        255,
        19,
    ]  # floor and bathtub tie: the smaller label


def test_normals_are_those_of_a_loop():
    dice = np.random.default_rng(5)
    points, faces = dice.random((50, 3)).astype(np.float32), dice.integers(0, 45, (80, 3)).astype(np.int32)
    sums = np.zeros((50, 3))
    for a, b, c in faces:
        area = np.cross(points[b].astype(float) - points[a], points[c].astype(float) - points[a])
        for corner in (a, b, c):
            sums[corner] += area
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    expected = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    normals = vertex_normals(points, faces)
    assert normals.dtype == np.float32 and np.abs(normals - expected).max() < 1e-6
    assert (normals[45:] == 0).all()
    assert (vertex_normals(points, np.empty((0, 3), np.int32)) == 0).all()


@pytest.mark.parametrize(("labels", "classes"), [("ply", "scannet20"), ("segments", "scannet200")])
def test_another_order_of_the_vertices_changes_per_vertex_arrays_only(tmp_path, write_scan, labels, classes):
    raw = room(3)
    order = np.random.default_rng(0).permutation(400)
    shuffled = {name: raw[name][order] for name in ("points", "colours", "nyu40", "segments")}
    shuffled["faces"] = np.argsort(order)[raw["faces"]]
    write_scan(tmp_path / "a" / "scene0000_00", **raw)
    write_scan(tmp_path / "b" / "scene0000_00", **{**raw, **shuffled})
    scenes, entries = [], []
    for scans in (tmp_path / "a", tmp_path / "b"):
        (scans / "scannetv2-labels.combined.tsv").write_text(LABEL_MAP)
        reader = reader_for(scans, labels, classes)
        scenes.append(prepare_scene(reader.read(reader.find().sources[0]), 0.3))
        manifest = prepare(reader, scans / "out", voxel_size=0.3).manifest
        entries.append(replace(manifest.scenes["scene0000_00"], sha256="", content=""))
    scene, other = scenes
    assert entries[0] == entries[1] and entries[0].findings["label_routes_differ"] > 200
    assert len(set(scene.labels.tolist())) > 3
    assert len(scene.voxel_coordinates) < 250
    assert torch.equal(scene.voxel_coordinates, other.voxel_coordinates)
    assert torch.equal(scene.voxel_labels, other.voxel_labels)
    for name in ("points", "colours", "normals", "labels", "instances", "inverse"):
        assert torch.equal(getattr(scene, name)[order], getattr(other, name)), name


def test_official_lists_and_both_folders_of_scannet(tmp_path, write_scan):
    write_scan(tmp_path / "scans" / "scene0191_00", POINTS, FACES, nyu40=NYU40)
    write_scan(tmp_path / "scans" / "scene0568_00", POINTS, FACES, nyu40=NYU40)
    write_scan(tmp_path / "scans_test" / "scene0707_00", POINTS, FACES)
    write_scan(tmp_path / "scans" / "scene9999_00", POINTS, FACES, nyu40=NYU40)
    (tmp_path / "scans" / "tasks").mkdir()
    report = prepare(reader_for(tmp_path), tmp_path / "out")
    assert {name: entry.split for name, entry in report.manifest.scenes.items()} == {
        "scene0191_00": "train",
        "scene0568_00": "val",
        "scene0707_00": "test",
    }
    assert report.unlisted == ["scene9999_00"]
    assert report.absent == {"train": 1200, "val": 311, "test": 99}
    hidden = report.manifest.scenes["scene0707_00"]
    assert not hidden.labelled and hidden.ignored == 8 and sum(hidden.class_counts) == 0
    scene = load_scene(report.manifest.path(hidden))
    assert scene.labels.tolist() == [255] * 8 and scene.instances.tolist() == [-1] * 8
    assert scene.voxel_labels.tolist() == [255] * 7


def test_the_official_lists_are_the_official_ones():
    folder = ROOT / "scannet_css" / "raw" / "splits"
    found = {
        s: hashlib.md5((folder / f"scannetv2_{s}.txt").read_bytes()).hexdigest()
        for s in ("train", "val", "test")
    }
    assert {s: m[:8] for s, m in found.items()} == {
        "train": "79fe2aff",
        "val": "006d6c14",
        "test": "34100efe",
    }


def test_synthetic_scans_have_their_own_name(tmp_path, write_scan):
    scans = make_scans(tmp_path / "scans", write_scan, 1, 1)
    (scans / "synthetic.json").write_text('{"dataset": "synthetic"}')
    assert prepare(reader_for(scans), tmp_path / "out").manifest.dataset == "synthetic"


def test_synthetic_scans_by_both_routes(small_set, tmp_path):
    """The generator's labels.ply, objects and table agree, and its categories are classes of ScanNet200."""
    scans = small_set.parent / "scans"
    by_ply = load_manifest(small_set)
    in_20 = prepare(reader_for(scans, "segments"), tmp_path / "20", 0.15).manifest
    in_200 = prepare(reader_for(scans, classes="scannet200"), tmp_path / "200", 0.15).manifest
    assert {n: e.content for n, e in in_20.scenes.items()} == {n: e.content for n, e in by_ply.scenes.items()}
    assert by_ply.settings == {"labels": "ply"} and in_20.settings == in_200.settings
    assert in_20.hash != by_ply.hash
    found = set()
    for entry in in_200.scenes.values():
        assert set(entry.findings) <= {"unannotated_vertices"}
        found |= {name for name, n in zip(in_200.classes, entry.class_counts, strict=True) if n}
        # what ScanNet200 names beyond the 20 is labelled now
        assert (
            entry.findings.get("unannotated_vertices", 0) <= entry.ignored < by_ply.scenes[entry.name].ignored
        )
    assert len(found) > 30 and {"wall", "floor", "chair", "door", "ceiling", "book", "pillow"} <= found


def test_workers_and_place_do_not_matter(tmp_path, write_scan):
    scans = make_scans(tmp_path / "scans", write_scan, 5, 2)
    first = prepare(reader_for(scans), tmp_path / "one", workers=1).manifest
    second = prepare(reader_for(scans), tmp_path / "elsewhere" / "three", workers=3).manifest
    assert content(tmp_path / "one") == content(tmp_path / "elsewhere" / "three")
    assert len(content(tmp_path / "one")) == 8 and first.hash == second.hash


def test_the_order_of_files_and_lists_does_not_matter(tmp_path, write_scan):
    """The same scans written last first, listed last first, in ScanNet's own folders."""
    scans = make_scans(tmp_path / "scans", write_scan, 5, 2)
    prepare(reader_for(scans), tmp_path / "one", workers=2)
    other = tmp_path / "root" / "scans"
    other.mkdir(parents=True)
    for folder in sorted(scans.glob("scene*"), reverse=True):
        shutil.copytree(folder, other / folder.name, copy_function=shutil.copy)
    for path in scans.glob("*.txt"):
        lines = path.read_text().splitlines()
        (other / path.name).write_bytes("\r\n".join(["", *lines[::-1]]).encode())
    prepare(reader_for(other.parent), tmp_path / "two", workers=1)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_the_hash_is_that_of_the_tensors(tmp_path, write_scan):
    """Spaces in a JSON file change the file's size, which the scene file remembers, but not the data set."""
    scans = make_scans(tmp_path / "scans", write_scan, 1, 1)
    first = prepare(reader_for(scans), tmp_path / "one").manifest
    segments = scans / "scene0000_00" / "scene0000_00_vh_clean_2.0.010000.segs.json"
    segments.write_text(segments.read_text() + "  ")
    second = prepare(reader_for(scans), tmp_path / "two").manifest
    assert first.hash == second.hash
    assert first.scenes["scene0000_00"].sha256 != second.scenes["scene0000_00"].sha256
    assert first.scenes["scene0001_00"] == second.scenes["scene0001_00"]


def test_a_second_run_does_nothing(tmp_path, write_scan, capfd):
    scans, out = make_scans(tmp_path / "scans", write_scan), tmp_path / "out"
    code, text, _ = run_tool(capfd, "--scans", scans, "--out", out, "--workers", 2)
    assert code == 0
    assert re.match(
        r"scannet: 4 scans \(4 made, 0 kept\), 1600 vertices, \d+ voxels of 0.02 m, [\d.]+ s\n"
        r"\d+ vertices that nobody annotated; kept, and ignored in training and evaluation\n"
        r"manifest [0-9a-f]{12} in ",
        text,
    )
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    before = content(out)
    code, text, _ = run_tool(capfd, "--scans", scans, "--out", out, "--workers", 2)
    assert code == 0 and "(0 made, 4 kept)" in text
    assert content(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == times


def test_what_changed_or_broke_is_made_again(tmp_path, write_scan):
    scans, out = make_scans(tmp_path / "scans", write_scan), tmp_path / "out"
    prepare(reader_for(scans), out)
    before = content(out)
    # a raw file that is newer, a prepared file with one flipped bit, a prepared file that is gone
    labels = scans / "scene0000_00" / "scene0000_00_vh_clean_2.labels.ply"
    os.utime(labels, (os.stat(labels).st_atime, os.stat(labels).st_mtime + 3600))
    damaged = out / "train" / "scene0001_00.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x77")
    (out / "val" / "scene0003_00.safetensors").unlink()
    report = prepare(reader_for(scans), out)
    assert (report.made, report.kept) == (3, 1) and content(out) == before
    # a raw file of another size, although it is old
    segments = scans / "scene0002_00" / "scene0002_00_vh_clean_2.0.010000.segs.json"
    segments.write_text(segments.read_text() + " ")
    os.utime(segments, (0, 0))
    # the first scan's labels are still newer than what was made of them
    assert prepare(reader_for(scans), out).made == 2


def test_a_scan_that_went_is_said(tmp_path, write_scan, capfd):
    scans, out = make_scans(tmp_path / "scans", write_scan), tmp_path / "out"
    prepare(reader_for(scans), out)
    write_lists(scans, train=["scene0000_00", "scene0001_00"], val=["scene0003_00", "scene0007_00"])
    code, text, _ = run_tool(capfd, "--scans", scans, "--out", out)
    assert code == 0 and "(0 made, 3 kept)" in text
    assert (
        "in no split list, left out: scene0002_00\n" in text
        and "val: 1 listed scans have no folder\n" in text
    )
    assert "without a scan, left out of the manifest: train/scene0002_00.safetensors\n" in text


def test_other_settings_are_refused(tmp_path, write_scan):
    scans, out = make_scans(tmp_path / "scans", write_scan), tmp_path / "out"
    prepare(reader_for(scans), out)
    before = content(out)
    with pytest.raises(
        InputError, match="prepared with voxel size 0.02, now asked for 0.05; choose another --out"
    ):
        prepare(reader_for(scans), out, voxel_size=0.05)
    (scans / "synthetic.json").write_text("{}")
    with pytest.raises(InputError, match="prepared with data set 'scannet', now asked for 'synthetic'"):
        prepare(reader_for(scans), out)
    assert content(out) == before
    # the scenes know it too, without a manifest
    (out / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"scene0000_00.safetensors: prepared with other settings"):
        prepare(reader_for(scans), out)


def test_a_foreign_folder_is_left_alone(tmp_path, write_scan):
    scans = make_scans(tmp_path / "scans", write_scan)
    foreign = tmp_path / "web"
    foreign.mkdir()
    (foreign / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(InputError, match="expected the manifest of a prepared data set"):
        prepare(reader_for(scans), foreign)
    (foreign / "manifest.json").unlink()
    (foreign / "train").mkdir()
    (foreign / "train" / "weights.safetensors").write_bytes(b"weights")
    with pytest.raises(InputError, match="not a prepared scene"):
        prepare(reader_for(scans), foreign)
    assert content(foreign) == {"train/weights.safetensors": b"weights"}


def test_bad_scans_are_said_and_the_others_go_on(tmp_path, write_scan, capfd):
    scans, out = make_scans(tmp_path / "scans", write_scan, train=8, val=1), tmp_path / "out"

    def damage(index, suffix, change):
        path = scans / f"scene000{index}_00" / f"scene000{index}_00{suffix}"
        change(path)

    damage(0, "_vh_clean_2.ply", Path.unlink)
    damage(1, "_vh_clean_2.ply", lambda p: p.write_bytes(p.read_bytes()[:-7]))
    damage(2, "_vh_clean_2.labels.ply", Path.unlink)
    other = write_scan(tmp_path / "scene0009_00", POINTS, FACES, nyu40=NYU40)
    other = other / "scene0009_00_vh_clean_2.labels.ply"
    damage(3, "_vh_clean_2.labels.ply", lambda p: p.write_bytes(other.read_bytes()))
    empty = write_scan(tmp_path / "scene0008_00", np.zeros((0, 3))) / "scene0008_00_vh_clean_2.ply"
    damage(4, "_vh_clean_2.ply", lambda p: p.write_bytes(empty.read_bytes()))
    damage(5, "_vh_clean_2.ply", lambda p: (p.unlink(), p.mkdir()))
    code, text, errors = run_tool(capfd, "--scans", scans, "--out", out, "--workers", 2)
    assert code == 1 and "scannet: 3 scans (3 made, 0 kept)" in text
    reasons = {
        "scene0000_00": "no such file",
        "scene0001_00": "cut off or damaged",
        "scene0002_00": "but the scan is in the train list",
        "scene0003_00": "8 vertices, but the mesh has 400",
        "scene0004_00": "the scan is empty",
        "scene0005_00": "Is a directory",
    }
    for name, reason in reasons.items():
        lines = [line for line in (text + errors).splitlines() if line.startswith(f"{name}: ")]
        assert len(lines) == 1 and reason in lines[0], (name, lines)
    assert f"failed 6: {', '.join(reasons)}\n" in errors
    assert sorted(load_manifest(out).scenes) == ["scene0006_00", "scene0007_00", "scene0008_00"]
    assert not [path for path in content(out) if "tmp" in path]


def test_ids_that_nyu40_does_not_have_are_said(tmp_path, one_scan, capfd):
    code, text, _ = run_tool(capfd, "--scans", one_scan, "--out", tmp_path / "out", "--workers", 1)
    assert code == 0 and "unknown ids: 50 (1 vertices), 149 (1 vertices)\n" in text


def test_when_no_scan_is_good_there_is_no_manifest(tmp_path, one_scan, capfd):
    (one_scan / "scene0191_00" / "scene0191_00_vh_clean_2.ply").unlink()
    code, _, errors = run_tool(capfd, "--scans", one_scan, "--out", tmp_path / "out", "--workers", 1)
    assert code == 1 and "failed 1: scene0191_00" in errors and content(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        ({"train": ["scene0000_00", "scene0000_00"]}, "scannetv2_train.txt:2: scene0000_00 is listed twice"),
        (
            {"train": ["scene0000_00"], "val": ["scene0000_00"]},
            "scannetv2_val.txt:1: scene0000_00 is listed twice",
        ),
        ({"train": ["../scene0000_00"]}, "scannetv2_train.txt:1: '../scene0000_00'; expected a name like"),
        ({"train": ["scene0007_00"]}, "none of its 1 scans is in a split list"),
    ],
)
def test_split_lists(tmp_path, write_scan, lists, reason):
    write_scan(tmp_path / "scans" / "scene0000_00", **room(0))
    write_lists(tmp_path / "scans", **lists)
    with pytest.raises(InputError, match=re.escape(reason)):
        prepare(reader_for(tmp_path / "scans"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_impossible_arguments(tmp_path, one_scan, capfd):
    good = ("--scans", one_scan, "--out", tmp_path / "out")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for arguments, reason in (
        ((*good, "--voxel-size", "0"), "voxel size 0.0: expected 0.001 to 1 metre"),
        ((*good, "--voxel-size", "nan"), "voxel size nan"),
        ((*good, "--workers", "0"), "--workers 0: expected at least 1"),
        ((*good, "--classes", "scannet200", "--labels", "ply"), "labels.ply has NYU40 ids only"),
        ((*good, "--labels", "segments"), "scannetv2-labels.combined.tsv: no such file"),
        ((*good, "--verify", tmp_path), "--verify checks a folder and prepares nothing"),
        (good[:2], "expected --scans and --out, or --verify"),
        (("--scans", tmp_path / "nowhere", "--out", tmp_path / "out"), "nowhere: no such folder"),
        (("--scans", tmp_path / "empty", "--out", tmp_path / "out"), "empty: no scans here"),
        (("--scans", one_scan, "--out", tmp_path / "file" / "out"), "Not a directory"),
        (("--scans", one_scan, "--out", "/proc/out"), "/proc/out"),
    ):
        code, text, errors = run_tool(capfd, *arguments)
        assert code == 2 and text == "" and errors.startswith("error: ") and errors.count("\n") == 1
        assert reason in errors
    assert not (tmp_path / "out").exists()
