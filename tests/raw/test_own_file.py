"""One own file as a data set: what is in it, what is not, and names that are no scene's."""

import re
import sys

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from scannet_css.classes import CLASSES
from scannet_css.errors import InputError
from scannet_css.raw.own_file import OwnFileReader, scene_name
from scannet_css.raw.readers import reader_for
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.scenes.prepare import prepare
from scannet_css.scenes.store import SCENE_NAME

POINTS = [[0, 0, 0], [1, 0, 0], [0, 2, 0.5]]
COLOURS = [[0, 1, 2], [253, 254, 255], [9, 8, 7]]
DOWN = [[0, 0, -2], [0, 0, 0], [0, 3, -4]]


def write_ply(path, points=POINTS, colours=None, normals=None, faces=None, real="f4", **options):
    """Writes a file by plyfile; faces are lists of corners."""
    groups = [(("x", "y", "z"), points, real), (("nx", "ny", "nz"), normals, real)]
    groups.append((("red", "green", "blue"), colours, options.pop("colour_type", "u1")))
    groups = [group for group in groups if group[1] is not None]
    vertices = np.zeros(len(points), [(name, kind) for names, _, kind in groups for name in names])
    for names, values, _ in groups:
        for name, column in zip(names, np.asarray(values).reshape(-1, 3).T, strict=True):
            vertices[name] = column
    elements = [PlyElement.describe(vertices, "vertex")]
    if faces is not None:
        table = np.empty(len(faces), [("vertex_indices", "O")])
        table["vertex_indices"] = [np.array(face, np.int32) for face in faces]
        elements.append(PlyElement.describe(table, "face", len_types={"vertex_indices": "u1"}))
    PlyData(elements, **options).write(str(path))
    return path


def read(path):
    reader = OwnFileReader(path)
    return reader.read(reader.find().sources[0])


@pytest.mark.parametrize("real", ["f4", "f8"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_points_colours_and_normals(tmp_path, real, byte_order):
    path = write_ply(tmp_path / "room.ply", colours=COLOURS, normals=DOWN, real=real, byte_order=byte_order)
    reader = reader_for(path)
    assert (reader.dataset, reader.classes, reader.settings) == ("own", CLASSES, {})
    (source,) = reader.find().sources
    assert (source.name, source.split, source.files) == ("room", "test", (path,))
    scan = reader.read(source)
    assert scan.points.tolist() == POINTS and scan.points.dtype == np.float32
    assert scan.colours.tolist() == COLOURS and scan.colours.dtype == np.uint8
    assert np.allclose(scan.normals, [[0, 0, -1], [0, 0, 0], [0, 0.6, -0.8]], atol=1e-7)
    assert scan.normals.dtype == np.float32
    assert scan.labels is None and scan.instances is None and scan.faces.shape == (0, 3)
    assert not any(scan.findings.values())


def test_points_only_become_a_scene_without_colours_and_normals(tmp_path):
    report = prepare(reader_for(write_ply(tmp_path / "my room (2).PLY")), tmp_path / "out")
    assert not report.failures
    manifest = load_manifest(tmp_path / "out")
    (entry,) = manifest.split("test")
    assert (manifest.dataset, entry.name, entry.labelled) == ("own", "my_room_2_", False)
    assert entry.findings == {"no_faces": 1} and entry.ignored == 3
    scene = load_scene(manifest.path(entry))
    assert scene.points.tolist() == POINTS and scene.labels.tolist() == [255] * 3
    assert not scene.colours.any() and not scene.normals.any() and scene.instances.tolist() == [-1] * 3


def test_normals_come_from_triangles_where_there_are_none(tmp_path):
    report = prepare(reader_for(write_ply(tmp_path / "mesh.ply", faces=[[0, 1, 2]])), tmp_path / "out")
    scene = load_scene(report.manifest.path(report.manifest.scenes["mesh"]))
    expected = np.cross(POINTS[1], POINTS[2]) / np.linalg.norm(np.cross(POINTS[1], POINTS[2]))
    assert np.allclose(scene.normals, [expected] * 3, atol=1e-7)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("room.ply", "room"),
        ("Büro 3.ply", "B_ro_3"),
        ("..hidden.pcd", "hidden"),
        ("-rf *.ply", "rf_"),
        ("部屋.ply", "scan"),
        ("a" * 200 + ".ply", "a" * 64),
        ("$(touch x)\n<b>.ply", "touch_x_b_"),
        ("a.b.ply", "a.b"),
    ],
)
def test_any_file_name_gives_a_safe_scene_name(tmp_path, file, name):
    assert scene_name(tmp_path / file) == name and SCENE_NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"points": np.empty((0, 3))}, "the scan is empty"),
        ({"points": [[0, 0, 0], [np.nan, 0, 0]]}, "vertex 1 is not finite"),
        ({"points": [[0, 0, 0], [1e300, 0, 0]], "real": "f8"}, "vertex 1 is not finite"),
        ({"points": [[0, 0, 0], [1234, 0, 0]]}, "vertex 1 is 1000 m or more from the origin"),
        ({"points": [[0, 0, 0], [0.01, 0, 0]]}, "the scan is 0.01 m long"),
        ({"points": [[0, 0, 0], [1, 0, 0]], "real": "i4"}, "property x is int32; expected float32"),
        ({"colours": np.array(COLOURS) - 10, "colour_type": "f4"}, "vertex 0 has the colour [-10.0, -9.0"),
        ({"colours": np.full((3, 3), np.nan), "colour_type": "f4"}, "vertex 0 has the colour [nan, nan"),
        ({"colours": np.array(COLOURS) + 9, "colour_type": "i4"}, "vertex 1 has the colour [262, 263, 264]"),
        ({"faces": [[0, 1, 3]]}, "face 0 has no corners among the 3 vertices"),
        ({"faces": [[0, 1, 2], [0, -1, 2]]}, "face 1 has no corners among the 3 vertices"),
        ({"faces": [[0, 1, 2], [0, 1, 2, 3]]}, "face 1 has no corners among the 3 vertices"),
    ],
)
def test_what_is_no_scan_is_refused(tmp_path, content, reason):
    path = write_ply(tmp_path / "room.ply", **content)
    with pytest.raises(InputError, match=re.escape(reason)) as error:
        read(path)
    assert "room.ply" in str(error.value) and "\n" not in str(error.value)


def test_the_text_form_is_the_same_scan(tmp_path):
    content = {"colours": COLOURS, "normals": DOWN, "faces": [[0, 1, 2]]}
    binary, text = (
        read(write_ply(tmp_path / f"{name}.ply", text=name == "text", **content))
        for name in ("binary", "text")
    )
    for name in ("points", "colours", "normals", "faces"):
        assert getattr(text, name).tolist() == getattr(binary, name).tolist()
        assert getattr(text, name).dtype == getattr(binary, name).dtype


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"0 2 0.5 9 8 7", b"0 2 0.5 9 8", "element 'vertex': row 2: property 'blue': early end-of-line"),
        (b"0 2 0.5 9 8 7", b"0 2 x 9 8 7", "element 'vertex': row 2: property 'z': malformed input"),
        (b"0 2 0.5 9 8 7", b"0 2 0.5 9 8 256", "256"),
        (b"0 2 0.5 9 8 7", b"0 2 0.5 9 8 7 6", "element 'vertex': row 2: expected end-of-line"),
        (b"0 2 0.5 9 8 7\n", b"", "element 'vertex': row 2: property 'green': early end-of-line"),
        (b"3 0 1 2\n", b"", "element 'face': row 0: early end-of-file; cut off or damaged"),
        (b"3 0 1 2\n", b"3 0 1 2\n3 0 1 2\n", "goes on behind what its header asks for"),
        (b"0 2 0.5 9 8 7", b"0 2 nan 9 8 7", "vertex 2 is not finite"),
        (b"0 2 0.5 9 8 7", b"0 2 \xff 9 8 7", "can't decode byte 0xff"),
        (b"0 2 0.5 9 8 7", b" ", "element 'vertex': row 2: property 'x': early end-of-line"),
        (b"3 0 1 2", b"5 0 1 2 0", "element 'face': row 0: property 'vertex_indices': early end-of-line"),
        (b"3 0 1 2", b"2 0 1 2", "element 'face': row 0: expected end-of-line"),
        (b"element vertex 3", b"element vertex 9999", "its header asks for 10000 rows; cut off or damaged"),
    ],
)
def test_damage_in_the_text_form_is_named(tmp_path, before, after, reason):
    path = write_ply(tmp_path / "room.ply", colours=COLOURS, faces=[[0, 1, 2]], text=True)
    whole = path.read_bytes()
    assert whole.count(before) == 1
    path.write_bytes(whole.replace(before, after))
    with pytest.raises(InputError, match=re.escape(reason)) as error:
        read(path)
    assert "room.ply" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "stored", "expected"),
    [
        ("i1", np.array(COLOURS, np.uint8).view(np.int8), COLOURS),  # written by who meant uchar
        ("u2", COLOURS, COLOURS),
        ("u2", np.array(COLOURS) * 257, COLOURS),
        ("i4", COLOURS, COLOURS),
        ("f4", np.array(COLOURS) / 255, COLOURS),
        ("f8", COLOURS, COLOURS),
    ],
)
def test_colours_of_other_types_become_bytes_and_that_is_said(tmp_path, kind, stored, expected):
    scan = read(write_ply(tmp_path / "room.ply", colours=stored, colour_type=kind))
    assert scan.colours.tolist() == expected and scan.colours.dtype == np.uint8
    assert scan.findings["changed_colours"] == (0 if kind == "i1" else 3)


@pytest.mark.parametrize("names", [("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b")])
def test_colours_of_other_names_are_colours(tmp_path, names):
    path = write_ply(tmp_path / "room.ply", colours=COLOURS)
    content = path.read_bytes()
    for usual, other in zip(("red", "green", "blue"), names, strict=True):
        content = content.replace(f" {usual}\n".encode(), f" {other}\n".encode())
    path.write_bytes(content)
    assert read(path).colours.tolist() == COLOURS


def test_normals_that_are_none_become_zero_and_that_is_said(tmp_path):
    normals = [[0, 0, -2], [np.nan, 0, 1], [0, np.inf, 0]]
    scan = read(write_ply(tmp_path / "room.ply", normals=normals))
    assert scan.normals.tolist() == [[0, 0, -1], [0, 0, 0], [0, 0, 0]] and scan.findings["odd_normals"] == 2


SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0.5, 0]]
MIXED = [[0, 1, 2], [0, 1, 2, 3, 4], [4], [2, 3, 4], []]
CUT = [[0, 1, 2], [0, 1, 2], [0, 2, 3], [0, 3, 4], [2, 3, 4]]


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("faces", "triangles", "cut"),
    [([[0, 1, 2, 3]], [[0, 1, 2], [0, 2, 3]], 1), (MIXED, CUT, 3), ([], [], 0)],
)
def test_polygons_are_cut_into_triangles_and_that_is_said(tmp_path, text, faces, triangles, cut):
    scan = read(write_ply(tmp_path / "room.ply", points=SQUARE, faces=faces, text=text))
    assert scan.faces.tolist() == triangles and scan.faces.dtype == np.int32
    assert scan.findings["cut_faces"] == cut and scan.findings["no_faces"] == int(not faces)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("lengths", ["u1", "u2", "i4"])
def test_lists_of_any_kind_are_read(tmp_path, text, lengths):
    """Texture coordinates, counts of any type, a scanner's grid, strips."""
    vertices = np.zeros(3, [(axis, "f4") for axis in "xyz"])
    for axis, column in zip("xyz", np.array(POINTS).T, strict=True):
        vertices[axis] = column
    faces = np.empty(2, [("vertex_index", "O"), ("texcoord", "O"), ("flags", "u1")])
    faces["vertex_index"] = [np.array([0, 1, 2]), np.array([2, 1, 0])]
    faces["texcoord"], faces["flags"] = [np.linspace(0, 1, 6), np.linspace(0, 1, 6)], 7
    grid, strips = np.empty(4, [("vertex_indices", "O")]), np.empty(1, [("vertex_indices", "O")])
    grid["vertex_indices"] = [np.array(row, np.int32) for row in ([0], [], [1], [2])]
    strips["vertex_indices"] = [np.arange(3)]
    types = {"vertex_index": lengths, "vertex_indices": lengths, "texcoord": lengths}
    elements = [
        PlyElement.describe(vertices, "vertex"),
        PlyElement.describe(grid, "range_grid", len_types=types),
        PlyElement.describe(faces, "face", len_types=types, val_types={"texcoord": "f4"}),
        PlyElement.describe(strips, "tristrips", len_types=types),
    ]
    path = tmp_path / "room.ply"
    PlyData(elements, text=text, byte_order="<").write(str(path))
    scan = read(path)
    assert scan.points.tolist() == POINTS and scan.faces.tolist() == [[0, 1, 2], [2, 1, 0]]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="element 'tristrips'.*; cut off or damaged"):
        read(path)


@pytest.mark.parametrize("text", [False, True])
def test_headers_as_others_write_them(tmp_path, text):
    path = write_ply(tmp_path / "room.ply", colours=COLOURS, faces=[[0, 1, 2]], text=text, byte_order="<")
    content = path.read_bytes()
    end = content.index(b"end_header\n") + len(b"end_header\n")
    header, body = content[:end], content[end:]
    headers = (
        b"\xef\xbb\xbf" + header,
        header.replace(b"\nelement", "\ncomment Büro\nelement".encode()),
        header.replace(b"\nend_header", b"\nobj_info M\xfcller\nend_header"),
        header.replace(b"property ", b"property\t").replace(b"\n", b" \n"),
        header.replace(b"\n", b"\r\n"),
    )
    for other in headers:
        for behind in (b"", b"\n"):
            path.write_bytes(other + body + behind)
            scan = read(path)
            assert scan.points.tolist() == POINTS and scan.colours.tolist() == COLOURS, other
            assert scan.faces.tolist() == [[0, 1, 2]]
    path.write_bytes(content + b"\0more")
    with pytest.raises(InputError, match="room.ply: goes on behind what its header asks for"):
        read(path)


def test_files_without_vertices_or_positions_are_refused(tmp_path):
    path = tmp_path / "room.ply"
    head = b"ply\nformat binary_little_endian 1.0\n"
    path.write_bytes(head + b"element vertex 1\nproperty float x\nend_header\n" + bytes(4))
    with pytest.raises(InputError, match="vertices lack the property x, y or z"):
        read(path)
    path.write_bytes(head + b"element point 1\nproperty float x\nend_header\n" + bytes(4))
    with pytest.raises(InputError, match="vertices lack the property x, y or z"):
        read(path)
    path.write_bytes(b"solid room")
    with pytest.raises(InputError, match="no PLY header"):
        read(path)


def test_a_pcd_without_open3d_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    path = tmp_path / "room.pcd"
    path.write_bytes(b"VERSION .7\n")
    with pytest.raises(InputError, match=r"room.pcd: a .pcd takes open3d .*; install it, or save a .ply"):
        read(path)


@pytest.mark.parametrize("ascii", [True, False])
def test_a_pcd_by_open3d(tmp_path, ascii):
    try:
        import open3d
    except ImportError as error:
        pytest.skip(str(error))
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(np.array(POINTS, float)))
    path = tmp_path / "room.pcd"
    open3d.io.write_point_cloud(str(path), cloud, write_ascii=ascii)
    scan = reader_for(path).read(reader_for(path).find().sources[0])
    assert scan.points.tolist() == POINTS and scan.points.dtype == np.float32
    assert scan.colours is None and scan.normals is None and scan.findings["no_faces"] == 1
    cloud.colors = open3d.utility.Vector3dVector(np.array(COLOURS) / 255)
    cloud.normals = open3d.utility.Vector3dVector(np.array(DOWN, float))
    open3d.io.write_point_cloud(str(path), cloud, write_ascii=ascii)
    scan = read(path)
    assert scan.colours.tolist() == COLOURS
    assert np.allclose(scan.normals, [[0, 0, -1], [0, 0, 0], [0, 0.6, -0.8]], atol=1e-7)
    path.write_bytes(b"no cloud")
    with pytest.raises(InputError, match="open3d finds no points in it"):
        read(path)
