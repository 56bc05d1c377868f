import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData

from scannet_css.classes import CLASSES, NYU40_IDS
from scannet_css.errors import InputError
from scannet_css.synthetic.rooms import archetypes, choose_archetype, make_room
from scannet_css.synthetic.scanning import categories
from scannet_css.synthetic.scans import SETTINGS_FILE, TSV_COLUMNS, label_map, make_scan, make_set, scan_name
from scannet_css.synthetic.shapes import MAKERS, building, kitchen_and_bath, seating, storage, tables
from scannet_css.synthetic.surfaces import bounds, box, lathe, post, quad, triangulate, vertex_normals

REPOSITORY = Path(__file__).parents[2]
VERTICES = 6000


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    out = tmp_path_factory.mktemp("scans")
    assert make_set(out, train=3, val=1, seed=5, vertices=VERTICES) == 4
    return out


@pytest.fixture(scope="module")
def forty_and_twelve():
    """Vertices per NYU40 id, (scans, 41), of a set of the default size; smaller scans, the same rooms."""
    scans = {
        split: [make_scan(0, split, k, 2 * VERTICES) for k in range(n)]
        for split, n in (("train", 40), ("val", 12))
    }
    return {
        split: np.array([np.bincount(s.nyu40(), minlength=41) for s in rows]) for split, rows in scans.items()
    }


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def command(*arguments) -> subprocess.CompletedProcess:
    line = [sys.executable, REPOSITORY / "tools" / "make_scans.py", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY)


def test_files_are_those_of_scannet(small_set):
    names = {p.name for p in small_set.iterdir()}
    lists = {"scannetv2_train.txt", "scannetv2_val.txt", "scannetv2-labels.combined.tsv", SETTINGS_FILE}
    assert names == {"scene0000_00", "scene0001_00", "scene0002_00", "scene5000_00"} | lists
    assert (small_set / "scannetv2_train.txt").read_text().split() == [
        "scene0000_00",
        "scene0001_00",
        "scene0002_00",
    ]
    assert (small_set / "scannetv2_val.txt").read_text().split() == ["scene5000_00"]
    settings = {
        "dataset": "synthetic",
        "seed": 5,
        "vertices": VERTICES,
        "generator_version": 1,
        "train": 3,
        "val": 1,
    }
    assert json.loads((small_set / SETTINGS_FILE).read_text()) == settings
    suffixes = [
        "_vh_clean_2.ply",
        "_vh_clean_2.labels.ply",
        "_vh_clean_2.0.010000.segs.json",
        ".aggregation.json",
        ".txt",
    ]
    assert {p.name for p in (small_set / "scene0001_00").iterdir()} == {f"scene0001_00{s}" for s in suffixes}


def test_ply_layout(small_set):
    folder = small_set / "scene0000_00"
    scan = PlyData.read(folder / "scene0000_00_vh_clean_2.ply")
    labels = PlyData.read(folder / "scene0000_00_vh_clean_2.labels.ply")
    assert not scan.text and scan.byte_order == "<"
    kinds = [(p.name, p.val_dtype) for p in scan["vertex"].properties]
    assert kinds == [(axis, "f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue", "alpha")]
    assert [(p.name, p.val_dtype) for p in labels["vertex"].properties] == [*kinds, ("label", "u2")]
    assert scan["face"].properties[0].len_dtype == "u1" and scan["face"].properties[0].val_dtype == "i4"
    for axis in "xyz":
        np.testing.assert_array_equal(scan["vertex"][axis], labels["vertex"][axis])
    assert set(scan["vertex"]["alpha"]) == {255}
    faces = np.stack(scan["face"]["vertex_indices"])
    np.testing.assert_array_equal(faces, np.stack(labels["face"]["vertex_indices"]))
    assert faces.shape[1] == 3 and faces.min() == 0 and faces.max() == len(scan["vertex"]) - 1
    assert (np.diff(np.sort(faces, axis=1), axis=1) > 0).all()
    assert len(np.unique(faces)) == len(scan["vertex"])


@pytest.mark.parametrize("name", ["scene0000_00", "scene0002_00", "scene5000_00"])
def test_segments_and_aggregation_give_the_labels(small_set, name):
    folder = small_set / name
    labels = PlyData.read(folder / f"{name}_vh_clean_2.labels.ply")["vertex"]["label"]
    segs = json.loads((folder / f"{name}_vh_clean_2.0.010000.segs.json").read_text())
    aggregation = json.loads((folder / f"{name}.aggregation.json").read_text())
    rows = [
        line.split("\t") for line in (small_set / "scannetv2-labels.combined.tsv").read_text().splitlines()
    ]
    nyu40 = {row[1]: int(row[TSV_COLUMNS.index("nyu40id")]) for row in rows[1:]}
    of_segment, owner = {}, {}
    for group in aggregation["segGroups"]:
        for segment in group["segments"]:
            assert owner.setdefault(segment, group["id"]) == group["id"]
            of_segment[segment] = nyu40[group["label"]]
    index = np.array(segs["segIndices"])
    assert set(of_segment) <= set(index.tolist())
    np.testing.assert_array_equal([of_segment.get(k, 0) for k in index.tolist()], labels)
    assert len(set(owner)) > 1.5 * len(aggregation["segGroups"])
    assert (labels == 0).any()


def test_axis_alignment_turns_walls_back():
    scan = make_scan(5, "train", 0, VERTICES)
    raw = scan.points.astype(float)
    assert (raw[:, :2].min(0) >= 0).all() and (raw[:, :2].min(0) < 0.31).all()
    aligned = raw @ scan.alignment[:3, :3].T + scan.alignment[:3, 3]
    np.testing.assert_allclose(scan.alignment[:3, :3] @ scan.alignment[:3, :3].T, np.eye(3), atol=1e-12)
    labels = scan.nyu40()
    assert abs(np.median(aligned[labels == 2, 2])) < 0.01
    normals = vertex_normals(aligned, scan.faces.astype(np.int64))[labels == 1]
    along_axes = np.abs(normals[:, :2]).max(1) > 0.97
    assert along_axes.mean() > 0.85


def test_same_seed_same_bytes_for_any_number_of_workers(small_set, tmp_path):
    make_set(tmp_path / "two", train=3, val=1, seed=5, vertices=VERTICES, workers=2)
    assert folder_bytes(tmp_path / "two") == folder_bytes(small_set)
    other = make_scan(6, "train", 0, VERTICES)
    assert not np.array_equal(other.points[:500], make_scan(5, "train", 0, VERTICES).points[:500])


def test_second_run_makes_what_is_missing_and_extends(tmp_path):
    make_set(tmp_path, train=1, val=0, seed=3, vertices=3000)
    before = folder_bytes(tmp_path / "scene0000_00")
    kept = (tmp_path / "scene0000_00" / "scene0000_00.txt").stat().st_mtime_ns
    assert make_set(tmp_path, train=2, val=1, seed=3, vertices=3000) == 2
    assert folder_bytes(tmp_path / "scene0000_00") == before
    assert (tmp_path / "scene0000_00" / "scene0000_00.txt").stat().st_mtime_ns == kept
    assert make_set(tmp_path, train=2, val=1, seed=3, vertices=3000) == 0
    assert not list(tmp_path.glob(".*tmp"))


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_every_class_stands_in_the_rooms_of_both_splits(seed):
    wanted = set(NYU40_IDS)
    for stream, count in ((0, 40), (1, 12)):
        found = set()
        for index in range(count):
            room = make_room(seed, stream, index, np.random.default_rng([seed, stream, 0, index]))
            found |= {categories()[piece.category]["nyu40"] for piece in room.pieces if piece.category}
        assert wanted <= found


def test_every_class_is_seen_by_the_camera(forty_and_twelve):
    for split, counts in forty_and_twelve.items():
        seen = dict(zip(CLASSES, (counts[:, NYU40_IDS] >= 15).sum(0).tolist(), strict=True))
        assert min(seen.values()) >= 1, (split, seen)


def test_statistics_follow_scannet(forty_and_twelve):
    counts = np.concatenate(list(forty_and_twelve.values()))
    benchmark = counts[:, NYU40_IDS]
    ignored = 1 - benchmark.sum() / counts.sum()
    assert 0.15 < ignored < 0.30
    assert 0.75 < np.median(counts.sum(1)) / (2 * VERTICES) < 1.35
    assert 0.25 < np.log(counts.sum(1)).std() < 0.75
    assert 6.5 < (benchmark > 0).sum(1).mean() < 9.5
    share = dict(zip(CLASSES, benchmark.sum(0) / benchmark.sum(), strict=True))
    assert 0.25 < share["wall"] < 0.38 and 0.18 < share["floor"] < 0.30
    assert max(share[c] for c in ("sink", "toilet", "bathtub", "shower curtain", "picture", "counter")) < 0.02
    present = dict(zip(CLASSES, (benchmark > 0).mean(0), strict=True))
    real = {"toilet": 0.157, "sink": 0.268, "bathtub": 0.094, "refrigerator": 0.147, "shower curtain": 0.088}
    real |= {"chair": 0.664, "bed": 0.204, "table": 0.519, "door": 0.728, "sofa": 0.232, "picture": 0.267}
    for name, frequency in real.items():
        assert abs(present[name] - frequency) < 0.15, name


def test_toilets_stand_with_sinks_and_never_with_bookshelves(forty_and_twelve):
    counts = np.concatenate(list(forty_and_twelve.values()))
    with_toilet = counts[counts[:, 33] > 0]
    assert (with_toilet[:, 34] > 0).mean() > 0.7
    assert (with_toilet[:, 10] > 0).mean() < 0.2


def test_archetypes_keep_their_shares_in_every_prefix():
    shares = {name: entry["share"] for name, entry in archetypes()["archetypes"].items()}
    assert sum(shares.values()) == pytest.approx(1)
    names = [choose_archetype(11, 0, k)[0] for k in range(200)]
    for length in (12, 40, 200):
        for name, share in shares.items():
            assert abs(names[:length].count(name) - share * length) < 1.5


# 10th and 90th percentile of ScanNet's boxes (long side, height), widened by 20 %
SIZES = {
    "bed": ((2.06, 2.38), (0.5, 1.61)),
    "office_chair": ((0.52, 0.87), (0.39, 1.1)),
    "sofa": ((1.37, 2.9), (0.71, 1.0)),
    "toilet": ((0.64, 0.77), (0.46, 0.87)),
    "bathtub": ((1.28, 1.62), (0.39, 0.70)),
    "refrigerator": ((0.53, 0.96), (0.79, 1.77)),
    "bookshelf": ((0.75, 3.63), (0.81, 2.41)),
    "desk": ((1.18, 2.36), (0.69, 1.31)),
    "door": ((0.60, 1.25), (1.12, 2.14)),
    "window": ((0.63, 3.04), (0.50, 1.86)),
    "picture": ((0.27, 1.05), (0.27, 0.98)),
    "wardrobe": ((0.52, 2.44), (0.55, 2.1)),
}


@pytest.mark.parametrize("name", SIZES)
def test_object_sizes(name):
    maker = next(
        vars(module)[name]
        for module in (seating, tables, building, storage, kitchen_and_bath)
        if name in vars(module)
    )
    (low_long, high_long), (low_height, high_height) = SIZES[name]
    for seed in range(10):
        low, high = maker(np.random.default_rng(seed))[0].bounds()
        size = high - low
        assert 0.8 * low_long <= max(size[:2]) <= 1.2 * high_long
        assert 0.8 * low_height <= size[2] <= 1.2 * high_height


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_makers_stand_on_the_floor_and_have_known_categories(name):
    for seed in range(4):
        pieces = MAKERS[name](np.random.default_rng(seed))
        assert all(piece.category in categories() or piece.category == "" for piece in pieces)
        low, high = bounds([piece for piece in pieces if piece.category])
        assert low[2] >= -0.1 and high[2] < 2.6 and low[1] > -1.0
        assert 0.05 < max(high[:2] - low[:2]) < 5.0


def test_furniture_does_not_interpenetrate():
    overlaps = []
    for index in range(20):
        room = make_room(4, 0, index, np.random.default_rng([4, 0, 0, index]))
        big = {"bed", "couch", "desk", "bookshelf", "refrigerator", "wardrobe", "bathtub", "toilet", "table"}
        found = [np.concatenate(piece.bounds()) for piece in room.pieces if piece.category in big]
        for i, a in enumerate(found):
            for b in found[i + 1 :]:
                overlap = np.minimum(a[3:], b[3:]) - np.maximum(a[:3], b[:3])
                overlaps.append(np.prod(np.maximum(overlap, 0)))
    assert max(overlaps) < 0.05


def test_boxes_and_rings_look_outwards():
    solids = [
        box((-1, -2, 0), (1, 2, 3), None, skip=()),
        [lathe((0, 0, 0), [(0, 0, -1), (1, 2, -1), (1, 2, 1), (0, 0, 1)], None)],
        [post((0, 0, -1), (0.5, 0.2, 1), 0.1, None)],
    ]
    for patches in solids:
        middle = np.mean([patch.grid.reshape(-1, 3).mean(0) for patch in patches], axis=0)
        mesh = triangulate(patches, np.full((len(patches), 2), 6), np.random.default_rng(0))
        corners = mesh.points[mesh.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        outwards = (normals * (corners.mean(1) - middle)).sum(1)
        assert (outwards > -1e-9).all() and (outwards > 1e-9).mean() > 0.8


def test_triangulation_keeps_the_surface():
    patch = quad((0, 0, 0), (2, 0, 0), (0, 3, 0), None)
    mesh = triangulate([patch], np.array([[17, 23]]), np.random.default_rng(1))
    corners = mesh.points[mesh.faces]
    doubled = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (doubled[:, 2] > 0).all()
    assert doubled[:, 2].sum() / 2 == pytest.approx(6.0)
    assert len(mesh.points) == 18 * 24 and len(mesh.faces) == 2 * 17 * 23


def test_label_map_has_scannets_columns():
    rows = [line.split("\t") for line in label_map().splitlines()]
    assert rows[0] == list(TSV_COLUMNS) and len(TSV_COLUMNS) == 17
    assert all(len(row) == 17 for row in rows)
    assert {int(row[4]) for row in rows[1:]} >= set(NYU40_IDS) | {15, 18, 22, 23, 25, 29, 38, 40}


def test_command_as_a_user_types_it(tmp_path):
    out = tmp_path / "set"
    done = command("--out", out, "--train", 1, "--val", 1, "--vertices", 3000, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 2 scans made, 0 there already\n" and done.stderr == ""
    again = command("--out", out, "--train", 1, "--val", 1, "--vertices", 3000)
    assert again.stdout == f"{out}: 0 scans made, 2 there already\n"
    refused = command("--out", out, "--train", 1, "--val", 1, "--vertices", 4000)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"error: {out}/synthetic.json: made with vertices 3000, asked for 4000; choose another folder\n"
    )


@pytest.mark.parametrize(
    "numbers, message",
    [
        ({"train": -1}, "--train -1: expected a number from 0 to 5000"),
        ({"val": 5001}, "--val 5001: expected a number from 0 to 5000"),
        ({"vertices": 10}, "--vertices 10: expected a number from 2000 to 1000000"),
        ({"workers": 0}, "--workers 0: expected a number from 1 to 512"),
        ({"seed": -3}, "--seed -3: expected a number from 0 to 4294967295"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path, numbers, message):
    with pytest.raises(InputError, match=message):
        make_set(tmp_path / "x", **({"train": 1, "val": 0, "seed": 0, "vertices": 3000} | numbers))
    assert not (tmp_path / "x").exists()


def test_a_folder_of_real_scans_is_refused(tmp_path):
    (tmp_path / "scene0000_00").mkdir()
    with pytest.raises(InputError, match="holds scans that are not synthetic"):
        make_set(tmp_path, train=1, val=0, seed=0)


def test_broken_settings_are_refused(tmp_path):
    (tmp_path / SETTINGS_FILE).write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        make_set(tmp_path, train=1, val=0, seed=0)


def test_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = command("--out", tmp_path / "file" / "set", "--train", 1, "--val", 0)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and str(tmp_path / "file") in done.stderr


def test_names_of_scans():
    assert scan_name("train", 7) == "scene0007_00" and scan_name("val", 7) == "scene5007_00"
