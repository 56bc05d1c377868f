"""ScanNet's known faults, each in a small scan: the documented outcome, counted, the same on a second run.

The table of docs/data.md, row by row.
"""

import itertools

import numpy as np
import pytest
import torch

from scannet_css.classes import CLASSES, SCANNET200
from scannet_css.errors import InputError
from scannet_css.raw.readers import reader_for
from scannet_css.raw.scannet import ScanNetReader
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.scenes.prepare import prepare

NAME = "scene0000_00"
HEADER = "id\traw_category\tcategory\tcount\tnyu40id"
TABLE = {
    "wall": (1, 1),
    "floor": (3, 2),
    "chair": (2, 5),
    "rack": (87, 39),
    "books": (22, 23),
    "object": (1163, 40),
}
# eight vertices in four segments; the last segment belongs to no object
POINTS = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0.5, 0.5, 0.5], [0.2, 0.5, 0.5]]
GOOD = {
    "points": POINTS,
    "faces": [[0, 1, 2], [0, 2, 3], [0, 1, 5], [0, 5, 4]],
    "nyu40": [2, 2, 1, 1, 5, 5, 0, 0],
    "segments": [0, 0, 2, 2, 4, 4, 6, 6],
    "objects": {0: [0], 1: [2], 2: [4]},
    "categories": {0: "floor", 1: "wall", 2: "chair"},
}
LABELS = [1, 1, 0, 0, 4, 4, 255, 255]


@pytest.fixture
def scan(tmp_path, write_scan):
    """Writes the good scan with changes, its list and its label table; gives the folder of scans, a new one
    each time."""
    numbers = itertools.count()

    def write(table=TABLE, split="train", **changes):
        folder = tmp_path / str(next(numbers)) / "scans"
        write_scan(folder / NAME, **(GOOD | changes))
        (folder / f"scannetv2_{split}.txt").write_text(f"{NAME}\n")
        rows = [f"{number}\t{category}\t\t1\t{nyu40}" for category, (number, nyu40) in table.items()]
        (folder / "scannetv2-labels.combined.tsv").write_text("\n".join([HEADER, *rows]) + "\n")
        return folder

    return write


def prepared(scans, **options):
    """Entry and scene; a second run keeps them."""
    out = scans.parent / "-".join(["out", *options.values()])
    report = prepare(reader_for(scans, **options), out)
    assert report.failures == {}
    manifest = load_manifest(out)
    again = prepare(reader_for(scans, **options), out)
    assert again.kept == 1 and again.manifest == manifest == report.manifest
    entry = manifest.scenes[NAME]
    return entry, load_scene(manifest.path(entry))


def failure(scans, **options):
    report = prepare(reader_for(scans, **options), scans.parent / "out")
    assert report.manifest is None and list(report.failures) == [NAME]
    return report.failures[NAME]


@pytest.mark.parametrize("route", ["ply", "segments"])
def test_a_good_scan_has_unannotated_vertices_only(scan, route):
    entry, scene = prepared(scan(), labels=route)
    assert entry.findings == {"unannotated_vertices": 2} and entry.labelled and entry.unknown_ids == {}
    assert scene.labels.tolist() == LABELS and scene.instances.tolist() == [0, 0, 1, 1, 2, 2, -1, -1]
    assert len(scene.points) == 8 and entry.ignored == 2  # they stay, in their place


def test_ids_50_and_149(scan):
    """As in scene0270_00 and scene0384_00: by the other route the same vertices are other furniture."""
    scans = scan(nyu40=[2, 2, 50, 50, 149, 5, 0, 0], categories={0: "floor", 1: "rack", 2: "chair"})
    entry, scene = prepared(scans, labels="ply")
    assert scene.labels.tolist() == [1, 1, 255, 255, 255, 4, 255, 255]
    assert entry.unknown_ids == {50: 2, 149: 1}
    assert entry.findings == {"unknown_ids": 3, "unannotated_vertices": 2, "label_routes_differ": 3}
    entry, scene = prepared(scans, labels="segments")
    furniture = CLASSES.index("otherfurniture")
    assert scene.labels.tolist() == [1, 1, furniture, furniture, 4, 4, 255, 255]
    assert entry.findings == {"unannotated_vertices": 2, "label_routes_differ": 3} and entry.unknown_ids == {}


def test_a_labels_file_full_of_foreign_ids_is_damaged(scan):
    scans = scan(nyu40=[41, 50, 149, 300, 1, 1, 0, 0])
    for route in ("ply", "segments"):
        message = failure(scans, labels=route)
        assert "_vh_clean_2.labels.ply: 4 different ids that NYU40 does not have, such as 41" in message


def test_the_routes_disagree(scan):
    """Counted by either route; without the label table only the count is missing."""
    scans = scan(nyu40=[2, 2, 1, 1, 1, 5, 0, 5])
    by_ply, scene = prepared(scans, labels="ply")
    assert by_ply.findings["label_routes_differ"] == 2 and scene.labels.tolist() == [1, 1, 0, 0, 0, 4, 255, 4]
    by_segments, other = prepared(scans, labels="segments")
    assert by_segments.findings["label_routes_differ"] == 2 and other.labels.tolist() == LABELS
    (scans / "scannetv2-labels.combined.tsv").unlink()
    without, third = prepared(scans)
    assert "label_routes_differ" not in without.findings and torch.equal(third.labels, scene.labels)
    assert without.content == by_ply.content != by_segments.content


def test_segments_need_the_table(scan):
    scans = scan()
    (scans / "scannetv2-labels.combined.tsv").unlink()
    for options in ({"labels": "segments"}, {"classes": "scannet200"}):
        with pytest.raises(
            InputError, match="scannetv2-labels.combined.tsv: no such file; labels by segments"
        ):
            reader_for(scans, **options)


def test_categories_without_an_id(scan):
    """A copy of the table that lost a row, and one with a blank cell: ignored and counted."""
    for table in ({k: v for k, v in TABLE.items() if k != "chair"}, TABLE | {"chair": (2, "")}):
        scans = scan(table)
        entry, scene = prepared(scans, labels="segments")
        assert scene.labels.tolist() == [1, 1, 0, 0, 255, 255, 255, 255]
        assert entry.findings == {
            "unannotated_vertices": 2,
            "unmapped_categories": 2,
            "label_routes_differ": 2,
        }
        report = prepare(reader_for(scans, labels="segments"), scans.parent / "again")
        assert report.findings == ({"blank_ids": 1} if "chair" in table else {})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_copies_of_the_table(scan, end):
    """Three line ends and a repeated row: the same digest, so the same settings, and the same labels."""
    scans = scan()
    table = scans / "scannetv2-labels.combined.tsv"
    expected = ScanNetReader(scans, "segments").settings
    table.write_bytes((table.read_text() + "22\tbooks\tbook\t5\t23\n").replace("\n", end).encode())
    reader = ScanNetReader(scans, "segments")
    assert reader.settings == expected and reader.find().findings["repeated_rows"] == 1
    entry, scene = prepared(scans, labels="segments")
    assert scene.labels.tolist() == LABELS


def test_another_table_is_another_data_set(scan):
    scans = scan()
    out = scans.parent / "out"
    prepare(reader_for(scans, "segments"), out)
    table = scans / "scannetv2-labels.combined.tsv"
    table.write_text(table.read_text().replace("\t5\n", "\t6\n"))
    with pytest.raises(InputError, match="prepared with label_map .*; choose another --out"):
        prepare(reader_for(scans, "segments"), out)
    with pytest.raises(InputError, match="prepared with labels 'segments', now asked for 'ply'"):
        prepare(reader_for(scans, "ply"), out)


def test_objects_listed_twice(scan):
    """As in scene0217_00: the second is left out; other segments claimed twice stay with the first."""
    scans = scan(
        objects={0: [0], 1: [2, 4], 7: [0], 8: [4, 2], 9: [4, 6]},
        categories={0: "floor", 1: "wall", 7: "chair", 8: "wall", 9: "chair"},
    )
    entry, scene = prepared(scans, labels="segments")
    assert scene.instances.tolist() == [0, 0, 1, 1, 1, 1, 9, 9]
    assert scene.labels.tolist() == [1, 1, 0, 0, 0, 0, 4, 4]
    assert entry.findings["duplicate_objects"] == 2 and entry.findings["shared_segments"] == 1


@pytest.mark.parametrize("route", ["ply", "segments"])
def test_the_objects_of_the_other_mesh(scan, route):
    """_vh_clean.aggregation.json under the name of the other one: its segments do not exist here."""
    scans = scan(objects={0: [0], 1: [1234]})
    message = failure(scans, labels=route)
    assert message.startswith(
        f"{scans / NAME / NAME}.aggregation.json: object 1 names segment 1234, which no"
    )


def test_scans_without_labels(scan):
    """Test scans have the mesh only and no label; any other scan needs them."""
    bare = {"nyu40": None, "segments": None, "objects": None}
    for route in ("ply", "segments"):
        entry, scene = prepared(scan(split="test", **bare), labels=route)
        assert not entry.labelled and entry.ignored == 8 and entry.findings == {}
        assert set(scene.labels.tolist()) == {255} and set(scene.instances.tolist()) == {-1}


def test_a_training_scan_without_labels(scan):
    scans = scan(nyu40=None)
    assert "no labels, but the scan is in the train list" in failure(scans, labels="ply")
    entry, _ = prepared(scans, labels="segments")
    assert entry.labelled and "label_routes_differ" not in entry.findings


def test_duplicate_vertices(scan):
    points = [*POINTS[:6], POINTS[0], [0.0, -0.0, 0.0]]
    entry, scene = prepared(scan(points=points))
    assert entry.findings["duplicate_vertices"] == 2 and len(scene.points) == 8


def test_no_faces(scan):
    entry, scene = prepared(scan(faces=()))
    assert entry.findings["no_faces"] == 1 and not scene.normals.any()


def test_labels_with_other_vertices(scan, write_scan, tmp_path):
    scans = scan()
    other = write_scan(tmp_path / "other" / NAME, **GOOD | {"points": np.array(POINTS) + [0, 0, 0.01]})
    name = f"{NAME}_vh_clean_2.labels.ply"
    (scans / NAME / name).write_bytes((other / name).read_bytes())
    assert f"{name}: vertex 0 stands elsewhere than in the mesh" in failure(scans)


def test_scannet200(scan):
    entry, scene = prepared(scan(), classes="scannet200")
    names = [SCANNET200.names[label] for label in scene.labels.tolist() if label != 255]
    assert names == ["floor", "floor", "wall", "wall", "chair", "chair"] and len(entry.class_counts) == 200
    assert entry.findings == {"unannotated_vertices": 2}
    entry, scene = prepared(scan(categories={0: "floor", 1: "books", 2: "object"}), classes="scannet200")
    assert [SCANNET200.names[label] for label in scene.labels.tolist()[:6:2]] == ["floor", "book", "object"]
    with pytest.raises(InputError, match="labels.ply has NYU40 ids only"):
        reader_for(scan(), labels="ply", classes="scannet200")


def test_other_classes_are_another_data_set(scan):
    scans = scan()
    prepare(reader_for(scans, "segments"), scans.parent / "out")
    with pytest.raises(InputError, match="prepared with classes .*'wall', 'floor'.*now asked for") as caught:
        prepare(reader_for(scans, "segments", "scannet200"), scans.parent / "out")
    assert len(str(caught.value)) < 400


def test_a_table_that_changed_is_read_again(scan):
    """By labels.ply the same labels, but another count of what differs."""
    scans = scan()
    first, _ = prepared(scans, labels="ply")
    table = scans / "scannetv2-labels.combined.tsv"
    table.write_text(table.read_text().replace("floor\t\t1\t2\n", "floor\t\t1\t10\n"))
    report = prepare(reader_for(scans, "ply"), scans.parent / "out-ply")
    entry = report.manifest.scenes[NAME]
    assert report.made == 1 and entry.findings["label_routes_differ"] == 2 and entry.content == first.content
