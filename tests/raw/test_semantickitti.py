"""SemanticKITTI: scans and labels as the release has them, and one short training run."""

import re

import numpy as np
import pytest

from scannet_css.errors import InputError
from scannet_css.raw.readers import reader_for
from scannet_css.raw.semantickitti import CLASSES, SPLIT_OF, SemanticKITTIReader
from scannet_css.records.record import load_record
from scannet_css.scenes import load_manifest, load_scene

# The learning map of the benchmark, written out once more: raw id -> number of the class from 1, 0 ignored.
LEARNING_MAP = {
    **{0: 0, 1: 0, 52: 0, 99: 0},
    **{10: 1, 11: 2, 13: 5, 15: 3, 16: 5, 18: 4, 20: 5, 30: 6, 31: 7, 32: 8},
    **{40: 9, 44: 10, 48: 11, 49: 12, 50: 13, 51: 14, 60: 9, 70: 15, 71: 16, 72: 17, 80: 18, 81: 19},
    **{252: 1, 253: 7, 254: 6, 255: 8, 256: 5, 257: 5, 258: 4, 259: 5},
}


def write_scan(root, sequence="08", number=123, points=None, remission=None, ids=None, instances=None):
    """Writes one scan, with labels unless ids are None; gives the files."""
    folder = root / "sequences" / sequence
    scan, labels = folder / "velodyne" / f"{number:06d}.bin", folder / "labels" / f"{number:06d}.label"
    for file in (scan, labels):
        file.parent.mkdir(parents=True, exist_ok=True)
    points = np.array([[0, 0, 0], [3, 4, -1.5], [-2, 0.25, 1]] if points is None else points, np.float32)
    remission = np.zeros(len(points)) if remission is None else remission
    np.column_stack([points, remission]).astype("<f4").tofile(scan)
    if ids is not None:
        instances = np.zeros(len(ids)) if instances is None else instances
        (np.asarray(ids, np.uint32) | np.asarray(instances, np.uint32) << 16).astype("<u4").tofile(labels)
    return scan, labels


def read(root):
    reader = SemanticKITTIReader(root)
    return reader.read(reader.find().sources[0])


def test_a_scan_is_read_as_it_stands(tmp_path):
    write_scan(tmp_path, remission=[0, 0.5, 1], ids=[252, 40, 10], instances=[7, 0, 7])
    reader = reader_for(tmp_path)
    assert (reader.dataset, reader.voxel_size, reader.settings) == ("semantickitti", 0.05, {})
    (source,) = reader.find().sources
    assert (source.name, source.split) == ("08_000123", "val")
    scan = reader.read(source)
    assert scan.points.dtype == np.float32
    assert scan.points.tolist() == [[0, 0, 0], [3, 4, -1.5], [-2, 0.25, 1]]
    assert scan.colours.tolist() == [[0, 0, 0], [128, 128, 128], [255, 255, 255]]
    assert scan.colours.dtype == np.uint8
    assert [CLASSES[label] for label in scan.labels] == ["car", "road", "car"]
    assert scan.instances.tolist() == [7, -1, 7] and scan.instances.dtype == np.int32
    assert scan.normals is None and scan.faces.shape == (0, 3)
    assert not scan.findings and not scan.unknown_ids


def test_the_learning_map(tmp_path):
    assert len(CLASSES) == 19 and len(LEARNING_MAP) == 34
    assert (CLASSES[0], CLASSES[8], CLASSES[18]) == ("car", "road", "traffic-sign")
    ids = list(LEARNING_MAP)
    write_scan(tmp_path, points=np.arange(len(ids) * 3).reshape(-1, 3), ids=ids)
    scan = read(tmp_path)
    assert scan.labels.tolist() == [(LEARNING_MAP[raw] - 1) % 256 for raw in ids]
    assert scan.findings == {"unannotated_vertices": 1} and not scan.unknown_ids


def test_unknown_ids_are_ignored_and_counted(tmp_path):
    write_scan(tmp_path, ids=[2, 65535, 65535], instances=[1, 2, 3])
    scan = read(tmp_path)
    assert scan.labels.tolist() == [255, 255, 255] and scan.instances.tolist() == [-1, -1, -1]
    assert scan.unknown_ids == {2: 1, 65535: 2}


def test_instances_are_one_per_class_and_number(tmp_path):
    points = np.arange(18).reshape(-1, 3)
    write_scan(tmp_path, points=points, ids=[10, 252, 30, 254, 99, 81], instances=[1, 1, 1, 2, 1, 65535])
    instances = read(tmp_path).instances
    person = CLASSES.index("person") << 16
    assert instances.tolist() == [1, 1, person + 1, person + 2, -1, (18 << 16) + 65535]


def test_scans_are_found_by_sequence(tmp_path):
    for sequence, number in (("00", 1), ("00", 0), ("08", 4070), ("21", 5), ("22", 0)):
        write_scan(tmp_path / "dataset", sequence, number, ids=[10, 10, 10] if sequence < "11" else None)
    (tmp_path / "dataset" / "sequences" / "00" / "velodyne" / "000002.bin.part").write_bytes(b"")
    found = reader_for(tmp_path).find()
    assert [(source.name, source.split, len(source.files)) for source in found.sources] == [
        ("00_000000", "train", 2),
        ("00_000001", "train", 2),
        ("08_004070", "val", 2),
        ("21_000005", "test", 1),
    ]
    assert found.unlisted == ["22"]
    assert found.absent == {"train": 19130 - 2, "val": 4071 - 1, "test": 20351 - 1}
    assert read(tmp_path / "dataset").labels.tolist() == [0, 0, 0]
    assert [sequence for sequence, split in SPLIT_OF.items() if split == "train"] == (
        ["00", "01", "02", "03", "04", "05", "06", "07", "09", "10"]
    )


def test_a_test_scan_has_no_labels(tmp_path):
    write_scan(tmp_path, "11")
    scan = read(tmp_path)
    assert scan.labels is None and scan.instances is None


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        ({"points": np.empty((0, 3)), "ids": []}, "the scan is empty"),
        ({"points": [[0, 0, 0], [1, np.nan, 0]], "ids": [10, 10]}, "vertex 1 is not finite"),
        ({"points": [[0, 0, 0], [1, np.inf, 0]], "ids": [10, 10]}, "vertex 1 is not finite"),
        ({"points": [[0, 0, 0], [1500, 0, 0]], "ids": [10, 10]}, "vertex 1 is 1000 m or more"),
        ({"points": [[0, 0, 0], [700, 0, 0]], "ids": [10, 10]}, "the scan is 700 m long"),
        ({"points": [[0, 0, 0], [0.5, 0, 0]], "ids": [10, 10]}, "the scan is 0.5 m long"),
        ({"remission": [0, 17, 0.5], "ids": [10] * 3}, "point 1 has remission 17; expected 0 to 1"),
        ({"remission": [0, 0, np.nan], "ids": [10] * 3}, "point 2 has remission nan"),
        ({"ids": [10] * 4}, "000123.label: 4 labels, but the scan has 3 points"),
        ({"ids": []}, "000123.label: 0 labels, but the scan has 3 points"),
    ],
)
def test_what_is_no_scan_is_refused(tmp_path, scan, reason):
    write_scan(tmp_path, **scan)
    with pytest.raises(InputError, match=re.escape(reason)) as error:
        read(tmp_path)
    assert "000123" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("which", "size"), [(0, 47), (0, 44), (1, 11), (1, 13)])
def test_files_that_are_cut_off_are_refused(tmp_path, which, size):
    file = write_scan(tmp_path, ids=[10] * 3)[which]
    file.write_bytes((file.read_bytes() + b"????")[:size])
    with pytest.raises(
        InputError, match=f"{file.name}: {size} bytes; expected {(16, 4)[which]} for each point"
    ):
        read(tmp_path)


def test_folders_without_scans_are_refused(tmp_path):
    (tmp_path / "sequences" / "00" / "velodyne").mkdir(parents=True)
    with pytest.raises(InputError, match="no scans; expected files like sequences/00/velodyne/000000.bin"):
        SemanticKITTIReader(tmp_path).find()


@pytest.fixture(scope="module")
def small_street(tmp_path_factory, command_line):
    """Scans of three sequences with all classes, one of them lacks its labels; prepared by the tool."""
    root = tmp_path_factory.mktemp("semantickitti")
    standing = {number: raw for raw, number in reversed(LEARNING_MAP.items()) if raw < 252}
    for sequence, number in (("00", 0), ("10", 3), ("08", 0), ("08", 1)):
        dice = np.random.default_rng(number)
        classes = np.repeat(np.arange(20), 100)
        points = np.column_stack([classes % 5, classes // 5, 0 * classes]) * 3 + dice.random((2000, 3))
        ids = np.array([standing[c] for c in classes])
        write_scan(root / "raw", sequence, number, points, dice.random(2000), ids, classes % 7)
    (root / "raw/sequences/08/labels/000001.label").unlink()
    tool = ("tools/prepare_scannet.py", "--scans", root / "raw", "--out", root / "prepared")
    done = command_line(*tool, "--voxel-size", 0.25, "--workers", 1)
    assert done.returncode == 1 and "08_000001" in done.stderr, done.stderr
    return root


def test_the_tool_prepares_scans_and_names_one_without_labels(small_street):
    manifest = load_manifest(small_street / "prepared")
    assert (manifest.dataset, manifest.classes) == ("semantickitti", CLASSES)
    assert sorted(manifest.scenes) == ["00_000000", "08_000000", "10_000003"]
    (entry,) = manifest.split("val")
    assert entry.class_counts == (100,) * 19 and entry.ignored == 100
    assert entry.findings["unannotated_vertices"] == 100
    scene = load_scene(manifest.path(entry))
    assert (scene.colours[:, 0] == scene.colours[:, 2]).all() and scene.colours.max() > 250
    assert not scene.normals.any()


def test_the_published_protocol_trains_on_scans(small_street, command_line):
    options = "--method lwf --protocol semantickitti/three-steps-sequential --network minkunet14s"
    done = command_line(
        "benchmarks/run.py",
        *(*options.split(), "--base-epochs", 1, "--epochs", 1),
        *("--data", small_street / "prepared", "--run", small_street / "run"),
        *("--runs", small_street / "runs"),
    )
    assert done.returncode == 0, done.stderr
    record = load_record(small_street / "run" / "record.json")
    assert (record.data.dataset, record.data.train_scenes) == ("semantickitti", 2)
    assert [len(step.classes) for step in record.steps] == [7, 12, 20]
    for step, hidden in zip(record.steps, (13, 8, 0), strict=True):
        assert np.sum(step.confusion.vertices, axis=1).tolist() == [hidden * 100] + [100] * (
            len(step.classes) - 1
        )
