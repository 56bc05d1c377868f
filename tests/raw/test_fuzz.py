"""Damaged files through the real command: refused in one line each, or read like an independent reader does.

All mutants of a test are scans of one preparation, with good ones among them that must come out whole.
Counts in the normal run are small; `make test-deep` runs them in full.
"""

import csv
import io
import json
import random
import re
import resource

import numpy as np
import plyfile
import pytest

from scannet_css.classes import NYU40_IDS
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.synthetic.scans import label_map
from tests.raw import mutants

MESH, LABELS = "_vh_clean_2.ply", "_vh_clean_2.labels.ply"
SEGMENTS, OBJECTS = "_vh_clean_2.0.010000.segs.json", ".aggregation.json"
POINTS = 500
MEMORY = 2 << 30  # address space of each process: three times what an idle one has
GOOD = 5  # scans among the mutants that nothing happens to


def counts(few, many):
    """The number of mutants: few in the normal run, many in the deep one."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.deep)])


@pytest.fixture
def good(tmp_path, write_scan):
    """The files of a good scan, by suffix."""
    dice = np.random.default_rng(0)
    folder = write_scan(
        tmp_path / "scene0000_00",
        points=dice.random((POINTS, 3)) * [4, 3, 2] - 1,
        faces=dice.integers(0, POINTS, (900, 3)),
        colours=dice.integers(0, 256, (POINTS, 3)),
        nyu40=dice.integers(0, 41, POINTS),
        segments=dice.integers(0, 30, POINTS),
        objects={i: [i, i + 12] for i in range(12)},
    )
    return {path.name.removeprefix(folder.name): path.read_bytes() for path in folder.iterdir()}


def write_set(folder, scans):
    """Writes {name: (split, {suffix: bytes})} with its split lists."""
    for name, (_, files) in scans.items():
        (folder / name).mkdir(parents=True)
        for suffix, content in files.items():
            (folder / name / f"{name}{suffix}").write_bytes(content)
    for split in ("train", "test"):
        names = [name for name, (where, _) in scans.items() if where == split]
        (folder / f"scannetv2_{split}.txt").write_text("".join(f"{name}\n" for name in names))


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


@pytest.fixture
def fuzz(tmp_path, good, command_line):
    """Prepares mutants (split, files) and checks what holds for all; gives folder, refused, accepted."""

    def run(mutated, *options):
        names = [f"scene{i:04d}_00" for i in range(len(mutated) + GOOD)]
        scans = dict(zip(names, [*mutated, *[("train", good)] * GOOD], strict=True))
        write_set(tmp_path / "scans", scans)
        out = tmp_path / "out"
        arguments = ("--scans", tmp_path / "scans", "--out", out, "--workers", 2, *options)
        # a hang on any file is more than 10 s without progress; a mutant takes milliseconds
        limit = 10 + 0.1 * len(scans)
        done = command_line("tools/prepare_scannet.py", *arguments, preexec_fn=limit_memory, timeout=limit)
        lines = [re.match(r"(scene\d{4}_00): (.*)", line) for line in done.stdout.splitlines()]
        refused = {line[1]: line[2] for line in lines if line}
        scenes = load_manifest(out).scenes
        assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stderr
        assert set(refused) | set(scenes) == set(names) and not set(refused) & set(scenes)
        assert set(names[-GOOD:]) <= set(scenes)
        for name, reason in refused.items():
            check_reason(reason, name, scans[name][1], good)
        accepted = {name: load_scene(out / entry.file) for name, entry in scenes.items()}
        for name, scene in accepted.items():
            check_scene(scene, scenes[name])
        assert {path.stem for path in out.rglob("*.safetensors")} == set(accepted)
        assert sorted(path.name for path in out.rglob("*.tmp")) == []
        return tmp_path / "scans", refused, accepted

    return run


def check_reason(reason, name, files, good):
    """One short line that says why, and names a file that is damaged or one that disagrees with the mesh."""
    damaged = [suffix for suffix, content in files.items() if content != good[suffix]]
    assert len(reason) < 1100 and reason.isprintable(), reason
    named = [suffix for suffix in files if f"{name}{suffix}: " in reason]
    assert len(named) == 1 and (named[0] in damaged or (MESH in damaged and "the mesh" in reason)), reason


def check_scene(scene, entry):
    """What holds for every scene, whatever it was made from."""
    points = scene.points.numpy()
    assert len(points) == entry.vertices > 0 and np.isfinite(points).all()
    assert np.abs(points).max() < 1000 and 0.1 <= np.ptp(points, axis=0).max() <= 200
    assert ((scene.labels < 20) | (scene.labels == 255)).all() and (scene.instances >= -1).all()
    assert np.isfinite(scene.normals.numpy()).all() and np.abs(scene.normals.numpy()).max() <= 1
    assert sum(entry.class_counts) + entry.ignored == entry.vertices


def columns(vertices, names):
    return np.stack([vertices[name] for name in names], axis=1)


def by_plyfile(path):
    """The vertices of a file, or None where plyfile refuses it, in whatever way.

    Checks that they and the faces are all that is in the file: plyfile itself overlooks what follows.
    """
    try:
        content = plyfile.PlyData.read(path)
        vertices = content["vertex"].data
    except Exception:
        return None
    again = io.BytesIO()
    content.write(again)
    bodies = [
        re.split(rb"\nend_header\r?\n", data, maxsplit=1)[1] for data in (path.read_bytes(), again.getvalue())
    ]
    assert bodies[0] == bodies[1], path
    return vertices


def as_labels(ids):
    return [NYU40_IDS.index(number) if number in NYU40_IDS else 255 for number in ids]


@counts(60, 1000)
def test_ply(fuzz, good, count):
    """Meshes of test scans, which have no other file to compare with, and both files of train scans."""
    dice = random.Random(0)
    scans = []
    for number in range(count):
        operator = mutants.PLY_OPERATORS[number % len(mutants.PLY_OPERATORS)]
        split, suffix = dice.choice([("test", MESH), ("test", MESH), ("train", MESH), ("train", LABELS)])
        files = {MESH: good[MESH]} if split == "test" else dict(good)
        files[suffix] = mutants.ply_mutant(good[suffix], operator, dice)
        scans.append((split, files))
    folder, refused, accepted = fuzz(scans)
    compared = 0
    for name, scene in accepted.items():
        vertices = by_plyfile(folder / name / f"{name}{MESH}")
        if vertices is not None:
            assert np.array_equal(scene.points, columns(vertices, "xyz"))
            assert np.array_equal(scene.colours, columns(vertices, ("red", "green", "blue")))
            compared += 1
        labelled = by_plyfile(folder / name / f"{name}{LABELS}")
        if labelled is not None:
            assert scene.labels.tolist() == as_labels(labelled["label"].tolist())
    print(
        f"{count} ply mutants: {len(refused)} refused, {len(accepted) - GOOD} accepted, {compared} compared"
    )
    assert count // 2 < len(refused) < count and compared > GOOD


def each_key_once(pairs):
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def instances_of(segments, groups):
    """The object of every vertex: the first group that claims its segment."""
    owner = {}
    for group in groups:
        for segment in group["segments"]:
            owner.setdefault(segment, group["objectId"])
    return [owner.get(segment, -1) for segment in segments]


@counts(30, 200)
def test_json(fuzz, good, count):
    dice = random.Random(1)
    scans = []
    for number in range(count):
        suffix = (SEGMENTS, OBJECTS)[number % 2]
        operator = mutants.JSON_OPERATORS[number // 2 % len(mutants.JSON_OPERATORS)]
        content = mutants.json_mutant(good[suffix], operator, dice)
        scans.append(("train", {**good, suffix: content}))
    folder, refused, accepted = fuzz(scans)
    for name, scene in accepted.items():
        files = [folder / name / f"{name}{suffix}" for suffix in (SEGMENTS, OBJECTS)]
        contents = [json.loads(path.read_bytes(), object_pairs_hook=each_key_once) for path in files]
        segments, groups = contents[0]["segIndices"], contents[1]["segGroups"]
        assert {type(number) for number in segments} == {int} and len(segments) == POINTS
        assert {type(number) for group in groups for number in group["segments"]} <= {int}
        assert scene.instances.tolist() == instances_of(segments, groups)
    print(f"{count} JSON mutants: {len(refused)} refused, {len(accepted) - GOOD} accepted")
    assert count // 2 < len(refused) < count


def table_of(content):
    """{raw category: nyu40id} of a label map, empty cells left out, by the csv module."""
    lines = re.split("[\r\n]+", content.decode("utf-8-sig"))
    rows = csv.DictReader((line for line in lines if line.strip()), delimiter="\t", quoting=csv.QUOTE_NONE)
    return {row["raw_category"]: int(row["nyu40id"]) for row in rows if row["nyu40id"].strip()}


@counts(10, 100)
def test_tsv(tmp_path, good, prepare_scannet, count):
    """The label map is one for all scans: a bad one is refused before anything is written."""
    dice, original = random.Random(2), label_map().encode()
    objects = json.loads(good[OBJECTS])
    for group, category in zip(objects["segGroups"], list(table_of(original))[::5], strict=False):
        group["label"] = category
    category_of = {group["objectId"]: group["label"] for group in objects["segGroups"]}
    segments = json.loads(good[SEGMENTS])["segIndices"]
    categories = [category_of.get(number) for number in instances_of(segments, objects["segGroups"])]
    scans, refused = tmp_path / "scans", 0
    write_set(scans, {"scene0000_00": ("train", {**good, OBJECTS: json.dumps(objects).encode()})})
    path = scans / "scannetv2-labels.combined.tsv"
    for number in range(count):
        operator = mutants.TSV_OPERATORS[number % len(mutants.TSV_OPERATORS)]
        path.write_bytes(mutants.tsv_mutant(original, operator, dice))
        out = tmp_path / f"out{number}"
        options = ("--labels", "segments", "--workers", 1)
        code, _, errors = prepare_scannet("--scans", scans, "--out", out, *options)
        if code == 2:
            assert (
                re.fullmatch(rf"error: {re.escape(str(path))}(:\d+)?: \S.*\n", errors) and len(errors) < 1100
            )
            assert errors[:-1].isprintable() and not out.exists()
            refused += 1
            continue
        table = table_of(path.read_bytes())
        if operator in ("truncate", "row cut short", "twice"):  # what is left must be what was there
            assert table.items() <= table_of(original).items()
        scene = load_scene(out / "train" / "scene0000_00.safetensors")
        assert scene.labels.tolist() == as_labels([table.get(category) for category in categories])
    print(f"{count} tsv mutants: {refused} refused, {count - refused} accepted")
    assert count // 3 < refused < count
