"""S3DIS: text files as the release has them, its damaged lines, and one short training run."""

import re

import numpy as np
import pytest

from scannet_css.errors import InputError
from scannet_css.raw.readers import reader_for
from scannet_css.raw.s3dis import CLASSES, ROOMS, S3DISReader
from scannet_css.records.record import load_record
from scannet_css.scenes import load_manifest, load_scene

CHAIR = b"1.000 2.000 0.500 10 20 30\n1.250 2.000 0.500 255 0 7\n"
FLOOR = b"-0.125 0.000 0.001 100 101 102\n"


def write_room(root, room="Area_5/hallway_6", **objects):
    """Writes the objects (file name without .txt -> bytes) of one room."""
    folder = root / room / "Annotations"
    folder.mkdir(parents=True)
    for name, content in objects.items():
        (folder / f"{name}.txt").write_bytes(content)
    return folder


def read(root):
    reader = S3DISReader(root)
    return reader.read(reader.find().sources[0])


def text(points, colours):
    lines = [
        f"{x:.3f} {y:.3f} {z:.3f} {r} {g} {b}"
        for (x, y, z), (r, g, b) in zip(points.tolist(), colours.tolist(), strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()


def test_a_room_is_read_as_it_stands(tmp_path):
    write_room(tmp_path, chair_10=CHAIR, chair_2=CHAIR[:27], floor_1=FLOOR)
    reader = reader_for(tmp_path)
    assert (reader.dataset, len(reader.classes), reader.settings) == ("s3dis", 13, {})
    (source,) = reader.find().sources
    assert (source.name, source.split) == ("Area_5_hallway_6", "val")
    scan = reader.read(source)
    assert scan.points.dtype == np.float32 and scan.points.tolist() == [
        [1, 2, 0.5],
        [1.25, 2, 0.5],
        [1, 2, 0.5],
        [-0.125, 0, np.float32(0.001)],
    ]
    assert scan.colours.dtype == np.uint8
    assert scan.colours.tolist() == [[10, 20, 30], [255, 0, 7], [10, 20, 30], [100, 101, 102]]
    assert [CLASSES[label] for label in scan.labels] == ["chair", "chair", "chair", "floor"]
    assert scan.instances.tolist() == [0, 0, 1, 2] and scan.instances.dtype == np.int32
    assert scan.normals is None and scan.faces.shape == (0, 3)
    assert not any(scan.findings.values()) and scan.unknown_ids == {}


def test_numbers_are_those_of_python(tmp_path):
    dice = np.random.default_rng(3)
    points, colours = dice.uniform(-40, 40, (500, 3)), dice.integers(0, 256, (500, 3))
    content = text(points, colours)
    write_room(tmp_path, wall_1=content)
    scan = read(tmp_path)
    expected = [[float(word) for word in line.split()] for line in content.splitlines()]
    assert (scan.points == np.array(expected, np.float64)[:, :3].astype(np.float32)).all()
    assert (scan.colours == np.array(expected)[:, 3:]).all()


def test_the_class_order_and_the_rooms_are_those_of_the_release():
    order = "ceiling floor wall beam column window door table chair sofa bookcase board clutter"
    assert tuple(order.split()) == CLASSES
    assert {area: len(rooms) for area, rooms in ROOMS.items()} == {
        "Area_1": 44,
        "Area_2": 40,
        "Area_3": 23,
        "Area_4": 49,
        "Area_5": 68,
        "Area_6": 48,
    }
    assert {"office_42", "hallway_15", "storage_4"} <= set(ROOMS["Area_5"])


def test_rooms_are_found_by_area(tmp_path):
    for room in ("Area_1/office_3", "Area_5/WC_1", "Area_6/copyRoom_1", "Area_6/kitchen_1"):
        write_room(tmp_path, room, chair_1=CHAIR)
    (tmp_path / "Area_1" / "notes.txt").write_text("not a room")
    found = reader_for(tmp_path).find()
    assert [(source.name, source.split) for source in found.sources] == [
        ("Area_1_office_3", "train"),
        ("Area_5_WC_1", "val"),
        ("Area_6_copyRoom_1", "train"),
    ]
    assert found.unlisted == ["Area_6_kitchen_1"]
    assert found.absent == {"train": 202, "val": 67}


@pytest.mark.parametrize(
    ("damaged", "whole"),
    [
        # Area_5/hallway_6/ceiling_1, Area_5/office_19/ceiling_1, and two files of whole rooms
        (b"22.350 6.692 3.048 185\x00187 182", b"22.350 6.692 3.048 185 187 182"),
        (b"1.5 2.5 3.5 103.0\x100000 7.000000 8.000000", b"1.5 2.5 3.5 103 7 8"),
        (b"19.302 -9.1\x160 1.785 146 137 106", b"19.302 -9.160 1.785 146 137 106"),
        (
            b"0.577500 -12.407500 2.604000 167.\x1000000 175.000000 177.000000",
            b"0.5775 -12.4075 2.604 167 175 177",
        ),
        (b"22\x0e350 6.692 3.048 185 187 182", b"22.350 6.692 3.048 185 187 182"),
    ],
)
def test_a_lost_bit_is_put_back(tmp_path, damaged, whole):
    write_room(tmp_path / "damaged", ceiling_1=CHAIR + damaged + b"\n" + FLOOR)
    write_room(tmp_path / "whole", ceiling_1=CHAIR + whole + b"\n" + FLOOR)
    repaired, expected = read(tmp_path / "damaged"), read(tmp_path / "whole")
    assert len(expected.points) == 4
    assert (repaired.points == expected.points).all() and (repaired.colours == expected.colours).all()
    assert repaired.findings["repaired_lines"] == 1 and not repaired.findings["damaged_lines"]


@pytest.mark.parametrize(
    "line",
    [
        b"1.0 2.0 3.0 4 5",
        b"1.0 2.0 3.0 4 5 6 7",
        b"1.0 2.0 3.0 4 5 256",
        b"1.0 2.0 3.0 4 5 -6",
        b"1.0 2.0 3.0 4 5 6.5",
        b"1.0 2.0 nan 4 5 6",
        b"1.0 2.0.0 3.0 4 5 6",
        b"1.0 2.0 3.0 4 5 six",
        b"1.0 2.\x01 3.0 4 5 6",
        b"1.0 2.0 3.0 4\x005 6 7",
        b"\xef\xbb\xbf1.0 2.0 3.0 4 5 6",
    ],
)
def test_a_line_that_is_no_point_is_left_out_and_counted(tmp_path, line):
    write_room(tmp_path, chair_1=CHAIR + line + b"\n" + FLOOR)
    scan = read(tmp_path)
    assert scan.points[:, 0].tolist() == [1, 1.25, -0.125]
    assert scan.findings["damaged_lines"] == 1 and not scan.findings["repaired_lines"]


def test_endings_blank_lines_and_columns_of_spaces_are_no_damage(tmp_path):
    write_room(tmp_path, chair_1=CHAIR.replace(b"\n", b" \r\n\r\n").replace(b" 2", b"\t  2").rstrip())
    scan = read(tmp_path)
    assert scan.colours.tolist() == [[10, 20, 30], [255, 0, 7]] and not any(scan.findings.values())


def test_a_file_with_many_damaged_lines_is_refused(tmp_path):
    folder = write_room(tmp_path, chair_1=CHAIR + b"1 2 3\n" * 10)
    assert read(tmp_path).findings["damaged_lines"] == 10
    (folder / "chair_1.txt").write_bytes(CHAIR + b"1 2 3\n" * 11)
    with pytest.raises(InputError, match=r"chair_1.txt:3: '1 2 3', like 10 more lines, is no point"):
        read(tmp_path)


def test_an_unknown_class_is_clutter(tmp_path):
    write_room(tmp_path, chair_1=CHAIR, stairs_1=FLOOR, stairs_2=FLOOR)
    scan = read(tmp_path)
    assert scan.labels.tolist() == [8, 8, 12, 12] and scan.instances.tolist() == [0, 0, 1, 2]
    assert scan.findings["unknown_classes"] == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the object is empty, no points"),
        (b" \n\n", "the object is empty, no points"),
        (b"1 2 3 4 5 6\n2000 2 3 4 5 6\n", "vertex 1 is 1000 m or more from the origin"),
        (b"1 2 3 4 5 6\n1e999 2 3 4 5 6\n", "vertex 1 is not finite"),
        (b"1 2 3 4 5 6\n1.01 2 3 4 5 6\n", "the scan is 0.01 m long"),
        (b"1 2 3 4 5 6\n900 2 3 4 5 6\n", "the scan is 899 m long"),
        (bytes(range(256)) * 100, "more lines, is no point"),
    ],
)
def test_what_is_no_room_is_refused(tmp_path, content, reason):
    write_room(tmp_path, chair_1=content)
    with pytest.raises(InputError, match=re.escape(reason)) as error:
        read(tmp_path)
    assert "Area_5" in str(error.value) and "\n" not in str(error.value)


def test_rooms_without_objects_and_folders_without_rooms_are_refused(tmp_path):
    write_room(tmp_path)
    with pytest.raises(InputError, match=r"Annotations: no objects; expected files like chair_1.txt"):
        read(tmp_path)
    (tmp_path / "other" / "Area_1" / "cellar_1").mkdir(parents=True)
    with pytest.raises(InputError, match="no rooms of S3DIS"):
        S3DISReader(tmp_path / "other").find()


def test_fuzzed_files_are_read_whole_or_refused_in_one_line(tmp_path):
    dice = np.random.default_rng(0)
    good = text(dice.uniform(0, 5, (60, 3)), dice.integers(0, 256, (60, 3)))
    file = write_room(tmp_path, chair_1=good) / "chair_1.txt"
    for _ in range(300):
        content = bytearray(good)
        for position in dice.integers(0, len(good), dice.integers(1, 30)):
            content[position] = dice.integers(0, 256)
        file.write_bytes(bytes(content[: dice.integers(1, len(good) + 1)]))
        try:
            scan = read(tmp_path)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert np.isfinite(scan.points).all() and np.abs(scan.points).max() < 1000
            lines = sum(bool(line.strip()) for line in file.read_bytes().split(b"\n"))
            assert len(scan.points) + scan.findings.get("damaged_lines", 0) == lines


@pytest.fixture(scope="module")
def small_rooms(tmp_path_factory, command_line):
    """Three rooms with all classes, one of them of Area 5, prepared by the tool with voxels of 0.1 m."""
    root = tmp_path_factory.mktemp("s3dis")
    for seed, room in enumerate(("Area_1/office_1", "Area_6/office_1", "Area_5/office_1")):
        dice = np.random.default_rng(seed)
        objects = {}
        for label, name in enumerate(CLASSES):
            corner = np.array([label % 4, label // 4, 0])
            objects[f"{name}_1"] = text(
                corner + dice.random((150, 3)) * [1, 1, 0.3],
                np.full((150, 3), 19 * label) + dice.integers(0, 9),
            )
        write_room(root / "raw", room, **objects)
    tool = ("tools/prepare_scannet.py", "--scans", root / "raw", "--out", root / "prepared")
    done = command_line(*tool, "--voxel-size", 0.1, "--workers", 1)
    assert done.returncode == 0, done.stderr
    return root


def test_the_tool_prepares_rooms(small_rooms):
    manifest = load_manifest(small_rooms / "prepared")
    assert (manifest.dataset, manifest.classes) == ("s3dis", CLASSES)
    assert sorted(manifest.scenes) == ["Area_1_office_1", "Area_5_office_1", "Area_6_office_1"]
    (entry,) = manifest.split("val")
    assert entry.class_counts == (150,) * 13 and entry.ignored == 0 and entry.labelled
    scene = load_scene(manifest.path(entry))
    assert not scene.normals.any() and scene.instances.max() == 12
    assert len(scene.voxel_coordinates) == entry.voxels < 13 * 150


def test_a_protocol_trains_on_rooms(small_rooms, command_line):
    options = "--method finetune --protocol s3dis/s0-8-5 --network minkunet14s --base-epochs 1 --epochs 1"
    done = command_line(
        "benchmarks/run.py",
        *options.split(),
        *("--data", small_rooms / "prepared", "--run", small_rooms / "run"),
        *("--runs", small_rooms / "runs"),
    )
    assert done.returncode == 0, done.stderr
    record = load_record(small_rooms / "run" / "record.json")
    assert (record.data.dataset, record.data.train_scenes, record.data.validation_scenes) == ("s3dis", 2, 1)
    assert [len(step.classes) for step in record.steps] == [9, 14]
    assert [np.sum(step.confusion.vertices) for step in record.steps] == [13 * 150] * 2
    assert np.sum(record.steps[0].confusion.vertices, axis=1).tolist() == [5 * 150] + [150] * 8
    assert np.sum(record.steps[1].confusion.vertices, axis=1).tolist() == [0] + [150] * 13
