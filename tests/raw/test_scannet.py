"""One raw scan: exact values of a hand-made one, and every fault as one line."""

import math
import re

import numpy as np
import pytest

from scannet_css.errors import InputError
from scannet_css.raw import read_scan
from scannet_css.raw.ply_files import read_scan_ply

POINTS = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 1]]
FACES = [[0, 1, 2], [0, 2, 3], [0, 1, 4]]
COLOURS = [[255, 0, 1], [0, 255, 2], [0, 0, 255], [9, 8, 7], [4, 5, 6]]
NYU40 = [2, 2, 39, 0, 149]
SEGMENTS = [7, 7, 1000000000, 3, 7]
OBJECTS = {4: [7], 11: [1000000000]}


@pytest.fixture
def scan(tmp_path, write_scan):
    """A good scan on disk."""
    return write_scan(tmp_path / "scene0000_00", POINTS, FACES, COLOURS, NYU40, SEGMENTS, OBJECTS)


def refusal(folder):
    with pytest.raises(InputError) as caught:
        read_scan(folder)
    message = str(caught.value)
    assert "\n" not in message and re.match(r"\S*scene0000_00\S*\.(ply|json): \S", message), message
    return message


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_values(tmp_path, write_scan, byte_order):
    folder = write_scan(
        tmp_path / "scene0000_00", POINTS, FACES, COLOURS, NYU40, SEGMENTS, OBJECTS, byte_order=byte_order
    )
    scan = read_scan(folder)
    assert scan.name == "scene0000_00"
    for name, dtype, values in (
        ("points", np.float32, POINTS),
        ("colours", np.uint8, COLOURS),
        ("faces", np.int32, FACES),
        ("nyu40", np.int32, NYU40),
        ("instances", np.int32, [4, 4, 11, -1, 4]),
    ):
        found = getattr(scan, name)
        assert found.dtype == dtype and found.dtype.isnative and found.tolist() == values
    assert set(scan.findings.values()) == {0}


def test_a_test_scan_has_the_mesh_only(tmp_path, write_scan):
    scan = read_scan(write_scan(tmp_path / "scene0707_00", POINTS, FACES))
    assert scan.nyu40 is None and scan.instances is None and len(scan.faces) == 3


def test_faces_may_be_missing(tmp_path, write_scan):
    folder = write_scan(tmp_path / "scene0000_00", POINTS)
    assert read_scan(folder).faces.shape == (0, 3)
    mesh = folder / "scene0000_00_vh_clean_2.ply"
    no_faces = re.sub(rb"element face 0\nproperty list uchar int vertex_indices\n", b"", mesh.read_bytes())
    assert no_faces != mesh.read_bytes()
    mesh.write_bytes(no_faces)
    assert read_scan(folder).faces.shape == (0, 3)


def test_an_object_listed_twice_counts_once(tmp_path, write_scan):
    """As in scene0217_00: what two objects claim stays with the first."""
    folder = write_scan(tmp_path / "scene0000_00", POINTS, segments=SEGMENTS, objects={1: [7], 5: [7, 3]})
    scan = read_scan(folder)
    assert scan.instances.tolist() == [1, 1, -1, 5, 1] and scan.findings["shared_segments"] == 1


def test_missing_files(scan):
    for suffix in (".aggregation.json", "_vh_clean_2.0.010000.segs.json"):
        path = scan / f"scene0000_00{suffix}"
        content = path.read_bytes()
        path.unlink()
        assert refusal(scan) == f"{path}: no such file"
        path.write_bytes(content)
    (scan / "scene0000_00_vh_clean_2.ply").unlink()
    assert refusal(scan).endswith("scene0000_00_vh_clean_2.ply: no such file")


@pytest.mark.parametrize("suffix", ["_vh_clean_2.ply", "_vh_clean_2.labels.ply"])
def test_cut_and_doubled_files(scan, suffix):
    path = scan / f"scene0000_00{suffix}"
    content = path.read_bytes()
    for wrong in (content[:-1], content[:-50], content + b"\0", content + content):
        path.write_bytes(wrong)
        assert f"{path}: {len(wrong)} bytes, but its header asks for {len(content)}" in refusal(scan)
    for wrong in (b"", content[:30], b"ply\n", b"\x93NUMPY" + content):
        path.write_bytes(wrong)
        assert refusal(scan) == f"{path}: no PLY header"


def test_a_line_end_of_two_bytes_does_not_shift_the_data(scan):
    path = scan / "scene0000_00_vh_clean_2.ply"
    header, data = path.read_bytes().split(b"end_header\n", 1)
    path.write_bytes((header + b"end_header\n").replace(b"\n", b"\r\n") + data)
    assert read_scan(scan).points.tolist() == POINTS


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"format binary_little_endian 1.0", b"format ascii 1.0", "expected a binary PLY mesh"),
        (b"element vertex 5", b"element vertex -5", "expected a binary PLY mesh"),
        (b"element vertex 5", b"element vertex 99999999999999999999", "expected a binary PLY mesh"),
        (b"element vertex 5", b"element vertex 2147483648", "bytes, but its header asks for"),
        (b"property float y", b"property float x", "expected a binary PLY mesh"),
        (b"property float x", b"property int x", "vertices lack the float32 property x"),
        (b"property float z", b"property float w", "vertices lack the float32 property z"),
        (b"property uchar red", b"property char red", "vertices lack the uint8 property red"),
        (b"property list uchar int", b"property list uint int", "expected a binary PLY mesh"),
        (b"int vertex_indices", b"float vertex_indices", "faces lack the list vertex_indices"),
        (b"vertex_indices", b"vertices", "faces lack the list vertex_indices"),
        (b"element vertex", b"element verte\xff", "not plain text"),
        (b"format binary_little_endian 1.0\n", b"", "expected one of {format,"),
    ],
)
def test_headers(scan, before, after, reason):
    path = scan / "scene0000_00_vh_clean_2.ply"
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after, 1))
    assert reason in refusal(scan)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"points": np.zeros((0, 3))}, "the scan is empty"),
        ({"points": np.zeros((5, 3))}, "the scan is 0 m long"),
        ({"points": [*POINTS[:4], [0.5, math.nan, 0]]}, "vertex 4 is not finite"),
        ({"points": [*POINTS[:3], [0, -math.inf, 0], POINTS[4]]}, "vertex 3 is not finite"),
        ({"points": [*POINTS[:4], [0.5, 1000, 0]]}, "vertex 4 is 1000 m or more"),
        ({"points": [*POINTS[:4], [0.5, 300, 0]]}, "the scan is 300 m long"),
        ({"faces": [[0, 1, 2], [0, 1, 5]]}, "face 1 names a vertex that is not there; the scan has 5"),
        ({"faces": [[-1, 1, 2]]}, "face 0 names a vertex"),
        ({"segments": SEGMENTS[:4]}, "segIndices has 4 entries, but the mesh has 5"),
        ({"objects": {0: [7], 3: [3, 8]}}, "object 3 names segment 8, which no vertex"),
        ({"objects": {2**31: [7]}}, "objectId of group 0 is 2147483648"),
        ({"objects": {"0": [7]}}, "objectId of group 0 is '0'"),
        ({"objects": {0: [7.5]}}, "segments of object 0 as a list of whole numbers"),
        ({"objects": {0: [[7]]}}, "segments of object 0 as a list of whole numbers"),
    ],
)
def test_contents(tmp_path, write_scan, change, reason):
    good = {"points": POINTS, "faces": FACES, "segments": SEGMENTS, "objects": OBJECTS}
    assert reason in refusal(write_scan(tmp_path / "scene0000_00", **{**good, **change}))


def test_labels_of_another_mesh(tmp_path, scan, write_scan):
    path = scan / "scene0000_00_vh_clean_2.labels.ply"
    other = write_scan(tmp_path / "scene0000_01", POINTS[:4], nyu40=NYU40[:4])
    path.write_bytes((other / "scene0000_01_vh_clean_2.labels.ply").read_bytes())
    assert refusal(scan) == f"{path}: 4 vertices, but the mesh has 5"
    moved = [*POINTS[:4], [0.5, 0.5, 1.01]]
    other = write_scan(tmp_path / "scene0000_02", moved, nyu40=NYU40)
    path.write_bytes((other / "scene0000_02_vh_clean_2.labels.ply").read_bytes())
    assert refusal(scan) == f"{path}: vertex 4 stands elsewhere than in the mesh"
    path.write_bytes((scan / "scene0000_00_vh_clean_2.ply").read_bytes())
    assert refusal(scan) == f"{path}: vertices lack the integer property label"


def test_a_polygon_is_no_triangle(scan):
    path = scan / "scene0000_00_vh_clean_2.ply"
    content = bytearray(path.read_bytes())
    content[-13] = 4  # the length of the last face
    path.write_bytes(content)
    assert "face 2 is not a triangle" in refusal(scan)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"segIndices": 5}',
        '{"segIndices": {"0": 1}}',
        '{"segIndices": [1, NaN, 2, 3, 4]}',
        '{"segIndices": ["1", "2", "3", "4", "5"]}',
        '{"segIndices": [1, 2, 3, 4, 1e30]}',
        '{"segIndices": [[1], [2, 3]]}',
        '{"segIndices": [1, 2, 3, 4, 100000000000000000000]}',
        '{"segIndices": [true, false, true, true, true]}',
        "[" * 100_000,
        '{"segIndices": ' + "9" * 5000 + "}",
    ],
)
def test_segments_that_are_none(scan, text):
    path = scan / "scene0000_00_vh_clean_2.0.010000.segs.json"
    path.write_text(text)
    assert refusal(scan).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "text", ["{}", '{"segGroups": 1}', '{"segGroups": [1]}', '{"segGroups": [{"objectId": 1}]}']
)
def test_objects_that_are_none(scan, text):
    path = scan / "scene0000_00.aggregation.json"
    path.write_text(text)
    assert refusal(scan).startswith(f"{path}: ")


def test_elements_and_types_of_a_ply(scan):
    elements = read_scan_ply(scan / "scene0000_00_vh_clean_2.labels.ply")
    assert list(elements) == ["vertex", "face"]
    assert elements["vertex"].dtype.names == ("x", "y", "z", "red", "green", "blue", "alpha", "label")
    assert (
        elements["vertex"]["label"].tolist() == NYU40 and elements["face"]["vertex_indices"].tolist() == FACES
    )
    assert elements["face"]["vertex_indices length"].tolist() == [3, 3, 3]
