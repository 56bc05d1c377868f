"""ScanNet as Pointcept prepares it: the same scenes as from the raw scans, and arrays that do not fit."""

import re

import numpy as np
import pytest

from scannet_css.classes import CLASSES, NYU40_IDS, SCANNET200
from scannet_css.errors import InputError
from scannet_css.raw.pointcept import PointceptReader
from scannet_css.raw.readers import reader_for
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.scenes.convert import vertex_normals
from scannet_css.scenes.prepare import prepare

UP = [[0, 0, 1]] * 3


def write_arrays(root, split="train", name="scene0000_00", **changes):
    """Writes one scan of three vertices; a change of None leaves the array out."""
    arrays = {
        "coord": np.array([[0, 0, 0], [1, 2, 3], [-1, 0.5, 2]], np.float32),
        "color": np.array([[0, 1, 2], [253, 254, 255], [9, 8, 7]], np.uint8),
        "normal": np.array(UP, np.float32),
        "segment20": np.array([0, 19, -1]),
        "instance": np.array([4, 0, -1], np.int16),
    } | changes
    folder = root / split / name
    folder.mkdir(parents=True, exist_ok=True)
    for field, array in arrays.items():
        if array is not None:
            np.save(folder / f"{field}.npy", array)
    return folder


def read(root, **options):
    reader = PointceptReader(root, **options)
    return reader.read(reader.find().sources[0])


@pytest.mark.parametrize("integers", [np.int64, np.int16])
def test_arrays_are_read_as_they_stand(tmp_path, integers):
    write_arrays(tmp_path, segment20=np.array([0, 19, -1], integers), instance=np.array([4, 0, -1], integers))
    reader = reader_for(tmp_path)
    assert (reader.dataset, reader.classes, reader.voxel_size) == ("scannet", CLASSES, 0.02)
    assert reader.settings == {"labels": "segments", "source": "pointcept"}
    scan = reader.read(reader.find().sources[0])
    assert scan.points.tolist() == [[0, 0, 0], [1, 2, 3], [-1, 0.5, 2]] and scan.points.dtype == np.float32
    assert scan.colours.tolist() == [[0, 1, 2], [253, 254, 255], [9, 8, 7]]
    assert scan.normals.tolist() == UP and scan.normals.dtype == np.float32
    assert scan.labels.tolist() == [0, 19, 255] and scan.labels.dtype == np.uint8
    assert scan.instances.tolist() == [4, 0, -1] and scan.instances.dtype == np.int32
    assert type(scan.points) is np.ndarray and scan.points.flags.writeable and scan.faces.shape == (0, 3)


def test_labels_of_scannet200(tmp_path):
    write_arrays(tmp_path, segment200=np.array([199, -1, 3]))
    reader = PointceptReader(tmp_path, classes="scannet200")
    assert reader.classes == SCANNET200.names
    assert read(tmp_path, classes="scannet200").labels.tolist() == [199, 255, 3]


def test_scans_are_found_by_split(tmp_path):
    write_arrays(tmp_path, "val", "scene0011_00")
    write_arrays(tmp_path, "train", "scene0191_01")
    write_arrays(tmp_path, "test", "scene0707_00", segment20=None, instance=None)
    (tmp_path / "val" / "notes").mkdir()
    reader = reader_for(tmp_path)
    found = reader.find()
    assert [(source.name, source.split) for source in found.sources] == [
        ("scene0011_00", "val"),
        ("scene0191_01", "train"),
        ("scene0707_00", "test"),
    ]
    assert [len(source.files) for source in found.sources] == [5, 5, 3]
    scan = reader.read(found.sources[2])
    assert scan.labels is None and scan.instances is None
    write_arrays(tmp_path, "test", "scene0011_00")
    with pytest.raises(InputError, match="test/scene0011_00: the scan is also in val"):
        reader.find()


def test_the_scenes_are_those_of_the_raw_scans(tmp_path, write_scan):
    """Labels, voxels and all else are equal when both sources say the same."""
    dice = np.random.default_rng(0)
    for name, split in (("scene0191_00", "train"), ("scene0011_00", "val")):
        points = (dice.random((300, 3)) * 2).astype(np.float32)
        faces, labels = dice.integers(0, 300, (500, 3)), dice.integers(-1, 20, 300)
        colours, objects = dice.integers(0, 256, (300, 3)).astype(np.uint8), dice.integers(-1, 9, 300)
        write_arrays(
            tmp_path / "pointcept",
            split,
            name,
            coord=points,
            color=colours,
            normal=vertex_normals(points, faces),
            segment20=labels,
            instance=objects,
        )
        write_scan(
            tmp_path / "raw" / name,
            points,
            faces,
            colours,
            nyu40=np.array([*NYU40_IDS, 0])[labels],
            segments=objects,
            objects={i: [i] for i in range(9)},
        )
    for source in ("raw", "pointcept"):
        assert not prepare(reader_for(tmp_path / source), tmp_path / f"{source}_out").failures
    first, second = (load_manifest(tmp_path / f"{source}_out") for source in ("raw", "pointcept"))
    assert first.dataset == second.dataset and first.hash != second.hash
    for name in ("scene0191_00", "scene0011_00"):
        ours, theirs = (load_scene(m.path(m.scenes[name])) for m in (first, second))
        for field, tensor in vars(ours).items():
            assert field == "name" or tensor.equal(getattr(theirs, field)), field


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"coord": None}, "coord.npy: No such file or directory"),
        ({"color": None}, "color.npy: No such file or directory"),
        ({"normal": None}, "normal.npy: No such file or directory"),
        ({"coord": np.zeros((0, 3), np.float32)}, "coord.npy: "),
        ({"coord": np.zeros((3, 2), np.float32)}, "coord.npy: 3 x 2 float32; expected P x 3 float32"),
        ({"coord": np.zeros((3, 3))}, "coord.npy: 3 x 3 float64; expected P x 3 float32"),
        ({"coord": np.float32(1)}, "coord.npy: "),
        ({"coord": np.array([[0, 0, 0], [np.nan] * 3, [1, 1, 1]], np.float32)}, "vertex 1 is not finite"),
        ({"coord": np.array([[0, 0, 0], [0, 0, 0], [1e9, 1, 1]], np.float32)}, "vertex 2 is 1000 m or more"),
        ({"coord": np.zeros((3, 3), np.float32)}, "the scan is 0 m long"),
        ({"color": np.zeros((2, 3), np.uint8)}, "color.npy: 2 x 3 uint8; expected 3 x 3 uint8"),
        ({"color": np.zeros((3, 3), np.float32)}, "color.npy: 3 x 3 float32; expected 3 x 3 uint8"),
        ({"normal": np.zeros((4, 3), np.float32)}, "normal.npy: 4 x 3 float32; expected 3 x 3 float32"),
        ({"normal": np.full((3, 3), 2, np.float32)}, "the normal of vertex 0 has length 3.4641"),
        ({"normal": np.full((3, 3), np.nan, np.float32)}, "the normal of vertex 0 has length nan"),
        ({"segment20": np.array([0, 1])}, "segment20.npy: 2 int64; expected 3 integer"),
        ({"segment20": np.array([[0], [1], [2]])}, "segment20.npy: 3 x 1 int64; expected 3 integer"),
        ({"segment20": np.array([0.0, 1, 2])}, "segment20.npy: 3 float64; expected 3 integer"),
        ({"segment20": np.array([0, 20, 1])}, "segment20.npy: vertex 1 has 20; expected -1 to 19"),
        ({"segment20": np.array([0, 1, -2])}, "segment20.npy: vertex 2 has -2; expected -1 to 19"),
        ({"segment20": np.array([0, 2**64 - 1, 0], np.uint64)}, "segment20.npy: vertex 1 has"),
        ({"instance": np.array([0, 0, 2**31])}, "instance.npy: vertex 2 has 2147483648"),
        ({"instance": np.array(["a", "b", "c"])}, "instance.npy: 3 <U1; expected 3 integer"),
        ({"instance": np.array([{}, {}, {}])}, "instance.npy: not a numpy array"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, reason):
    write_arrays(tmp_path, **changes)
    outcome = prepare(PointceptReader(tmp_path), tmp_path / "out").outcomes["scene0000_00"]
    assert reason in outcome.failure and "scene0000_00" in outcome.failure and "\n" not in outcome.failure


def test_a_training_scan_without_labels_is_refused(tmp_path):
    write_arrays(tmp_path, segment20=None)
    report = prepare(PointceptReader(tmp_path), tmp_path / "out")
    assert "no labels, but the scan is in the train list" in report.failures["scene0000_00"]


@pytest.mark.filterwarnings("ignore")  # of Python, about what stands in damaged headers
def test_damaged_files_are_refused_in_one_line(tmp_path):
    file = write_arrays(tmp_path) / "coord.npy"
    good, dice = file.read_bytes(), np.random.default_rng(1)
    huge = re.sub(rb"\(3, 3\), \} {16}", b"(3000000000000, 3), }    ", good)
    mutants = [
        huge,
        good[:-1],
        good + b"x",
        b"",
        b"PK\x03\x04" + good,
        good[:40],
        good.replace(b"3, 3", b"3,-3"),
    ]
    for _ in range(150):
        content = bytearray(good)
        for position in dice.integers(0, 128, dice.integers(1, 6)):
            content[position] = dice.integers(0, 256)
        mutants.append(bytes(content))
    refused = 0
    for content in mutants:
        file.write_bytes(content)
        try:
            points = read(tmp_path).points
        except InputError as error:
            assert "coord.npy" in str(error) and "\n" not in str(error)
            refused += 1
        else:
            assert points.shape == (3, 3) and np.isfinite(points).all()
    assert refused > 120


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "train" / "scene0000_00").mkdir(parents=True)
    with pytest.raises(InputError, match="no scans"):
        reader_for(tmp_path)
    with pytest.raises(InputError, match="expected folders like train/scene0000_00"):
        PointceptReader(tmp_path / "train").find()
