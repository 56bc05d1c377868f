"""Views of the synthetic rooms: the z-buffer against rays cast one by one, cameras, labels, depth, files."""

import json

import numpy as np
import pytest
from PIL import Image

from scannet_css.classes import SCANNET20
from scannet_css.errors import InputError
from scannet_css.raw.images.scannet_frames import ScanNetFramesReader
from scannet_css.synthetic.cameras import HEIGHTS, choose_cameras
from scannet_css.synthetic.rooms import make_room
from scannet_css.synthetic.scanning import categories
from scannet_css.synthetic.scans import make_scan
from scannet_css.synthetic.surfaces import Finish, quad
from scannet_css.synthetic.views import make_view_set, make_views
from scannet_css.synthetic.zbuffer import NEAR, Camera, Surfaces, cast, surfaces_of

SIZE = (40, 30)


def room_of(index):
    return make_room(0, 0, index, np.random.default_rng([0, 0, 0, index]))


@pytest.fixture(scope="module")
def looks():
    """Room, surfaces and two cameras, of six rooms."""
    found = []
    for index in range(6):
        room = room_of(index)
        surfaces = surfaces_of(room)
        cameras = choose_cameras(room, surfaces, 2, *SIZE, np.random.default_rng(index))
        found.append((room, surfaces, cameras))
    return found


def rays_of(camera):
    """Directions (H * W, 3) in the room's frame, of depth 1 along the camera's axis."""
    x, y = np.meshgrid(*camera.rays())
    return np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3) @ camera.pose[:3, :3].T


def cast_one_by_one(surfaces, camera):
    """The same as `cast`, by the intersection of Moeller and Trumbore, ray by ray."""
    a, b, c = (surfaces.corners[:, k] for k in range(3))
    first, second, away = b - a, c - a, camera.pose[:3, 3] - a
    two_sided = np.array([patch.two_sided for patch in surfaces.patches])[surfaces.patch]
    triangle, depth = [], []
    for ray in rays_of(camera):
        p = np.cross(ray, second)
        determinant = (first * p).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = (away * p).sum(1) / determinant
            q = np.cross(away, first)
            v = q @ ray / determinant
            z = (second * q).sum(1) / determinant
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (z > NEAR) & ((determinant > 0) | two_sided)
        z = np.where(hit, z, np.inf)
        triangle.append(int(z.argmin()) if hit.any() else -1)
        depth.append(z.min())
    return np.array(triangle), np.array(depth)


def test_the_z_buffer_is_what_rays_one_by_one_see(looks):
    for room, surfaces, cameras in looks:
        triangle, depth = (array.ravel() for array in cast(surfaces, cameras[0]))
        other, expected = cast_one_by_one(surfaces, cameras[0])
        np.testing.assert_allclose(depth, expected, rtol=1e-9, err_msg=room.archetype)
        piece = surfaces.owner[surfaces.patch]
        assert np.array_equal(triangle < 0, other < 0)
        assert np.array_equal(piece[triangle], piece[other])


def test_embree_sees_the_same_labels(looks):
    scenes = pytest.importorskip("embreex.rtcore_scene")
    meshes = pytest.importorskip("embreex.mesh_construction")
    for _, surfaces, cameras in looks:
        two_sided = np.array([patch.two_sided for patch in surfaces.patches])[surfaces.patch]
        for camera in (one.resized(4) for one in cameras):
            a, b, c = (surfaces.corners[:, k] for k in range(3))
            facing = (np.cross(b - a, c - a) * (camera.pose[:3, 3] - a)).sum(1) > 0
            there = np.flatnonzero(facing | two_sided)
            scene = scenes.EmbreeScene()
            # in the camera's frame, where single precision loses least
            corners = (surfaces.corners[there] - camera.pose[:3, 3]) @ camera.pose[:3, :3]
            meshes.TriangleMesh(scene, corners.astype(np.float32))
            rays = (rays_of(camera) @ camera.pose[:3, :3]).astype(np.float32)
            found = scene.run(NEAR * rays, rays, query="INTERSECT")
            triangle = cast(surfaces, camera)[0].ravel()
            piece = np.append(surfaces.owner[surfaces.patch], -1)
            assert np.array_equal(piece[triangle], piece[np.where(found < 0, -1, there[found])])


def test_a_surface_that_reaches_behind_the_camera_is_seen_in_front_of_it():
    """A floor 1 m below a level camera, from 10 m behind it to 10 m before it."""
    floor = quad((-10, -10, 0), (20, 0, 0), (0, 20, 0), Finish((1, 1, 1)))
    grid = floor.grid
    corners = np.array([[grid[0, 0], grid[1, 0], grid[1, 1]], [grid[0, 0], grid[1, 1], grid[0, 1]]])
    surfaces = Surfaces(corners, np.zeros((2, 3, 2)), np.zeros(2, int), [floor], np.zeros(1, int))
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # looks along x
    pose[:3, 3] = (0, 0, 1)
    camera = Camera(8, 6, 4.0, pose)
    triangle, depth = cast(surfaces, camera)
    _, y = camera.rays()
    assert (triangle[:3] == -1).all() and np.isinf(depth[:3]).all()
    np.testing.assert_allclose(depth[3:], np.repeat(1 / y[3:, None], 8, axis=1), rtol=1e-12)
    pose[2, 3] = -1  # from below, where the floor has no other side
    assert (cast(surfaces, camera)[0] == -1).all()


def test_labels_and_depth_lie_on_the_surfaces_they_name(looks):
    for index, (room, _, _) in enumerate(looks):
        for view in make_views(0, "train", index, 2, *SIZE):
            assert view.photo.shape == (30, 40, 3) and view.nyu40.shape == view.depth.shape == (30, 40)
            points = view.camera.pose[:3, 3] + rays_of(view.camera) * view.depth.reshape(-1, 1)
            labels, seen = view.nyu40.ravel(), view.depth.ravel() > 0
            assert (labels[~seen] == 0).all() and seen.mean() > 0.9
            assert (np.abs(points[labels == 2, 2]) < 1e-9).all()  # floor
            assert (np.abs(points[labels == 22, 2] - room.size[2]) < 1e-9).all()  # ceiling
            ids = {categories()[piece.category]["nyu40"] for piece in room.pieces if piece.category}
            assert set(labels.tolist()) <= ids | {0}
            for number in set(labels.tolist()) - {0}:
                boxes = [piece.bounds() for piece in room.pieces if number == nyu40(piece)]
                inside = [((points >= low - 1e-6) & (points <= high + 1e-6)).all(1) for low, high in boxes]
                assert np.any(inside, axis=0)[labels == number].all()


def nyu40(piece):
    return categories().get(piece.category, {"nyu40": 0})["nyu40"]


def test_cameras_are_held_as_a_person_would(looks):
    for room, surfaces, cameras in looks:
        for camera in cameras:
            eye, forward, down = camera.pose[:3, 3], camera.pose[:3, 2], camera.pose[:3, 1]
            np.testing.assert_allclose(camera.pose[:3, :3].T @ camera.pose[:3, :3], np.eye(3), atol=1e-12)
            assert HEIGHTS[0] <= eye[2] <= HEIGHTS[1]
            assert (eye[:2] > 0.2).all() and (eye[:2] < np.array(room.size[:2]) - 0.2).all()
            assert -0.63 < forward[2] < 0.15 and down[2] < -0.7  # nearly level, upright
            in_things = [(eye > box[:3]).all() and (eye < box[3:]).all() for box in room.taken]
            assert not any(in_things)
            triangle, depth = cast(surfaces, camera)
            piece = surfaces.owner[surfaces.patch[triangle[triangle >= 0]]]
            assert np.bincount(piece).max() < 0.8 * triangle.size and len(set(piece.tolist())) >= 4
            assert np.median(depth) > 0.6
        first, second = (camera.pose for camera in cameras)
        assert np.abs(first - second).max() > 0.1


def test_the_rooms_are_those_of_the_scans():
    for split, stream in (("train", 0), ("val", 1)):
        room = make_room(4, stream, 1, np.random.default_rng([4, stream, 0, 1]))
        scan = make_scan(4, split, 1, 2500)
        assert scan.archetype == room.archetype
        assert set(scan.categories) <= {piece.category for piece in room.pieces}
        views = make_views(4, split, 1, 3, *SIZE)
        shown = set(np.unique([view.nyu40 for view in views]).tolist())
        assert shown <= {nyu40(piece) for piece in room.pieces} | {0}


def test_a_view_depends_on_its_number_alone():
    three, two = (make_views(3, "val", 0, count, *SIZE) for count in (3, 2))
    for one, other in zip(three, two, strict=False):
        assert np.array_equal(one.photo, other.photo) and np.array_equal(one.nyu40, other.nyu40)
    assert not np.array_equal(three[0].photo, three[1].photo)
    assert not np.array_equal(make_views(2, "val", 0, 1, *SIZE)[0].photo, three[0].photo)


def test_the_files_are_what_the_reader_of_frames_reads(tmp_path):
    assert make_view_set(tmp_path, 2, 1, 7, views=2, size=SIZE) == 3
    assert make_view_set(tmp_path, 2, 2, 7, views=2, size=SIZE) == 1  # what is there is kept
    reader = ScanNetFramesReader(tmp_path)
    sources = {source.name: source for source in reader.find().sources}
    assert (reader.dataset, reader.settings["size"]) == ("synthetic_views", "40x30")
    assert [name for name, source in sources.items() if source.split == "val"] == [
        f"scene{5000 + k}_00_00000{v}" for k in range(2) for v in range(2)
    ]
    view = make_views(7, "train", 1, 2, *SIZE)[1]
    image = reader.read(sources["scene0001_00_000001"])
    table = np.full(256, 255, np.uint8)
    table[list(SCANNET20.ids)] = np.arange(20)
    assert np.array_equal(image.labels, table[view.nyu40]) and image.size == (30, 40)
    folder = tmp_path / "scene0001_00"
    depth = np.asarray(Image.open(folder / "depth/000001.png"))
    assert depth.dtype == np.uint16 and np.abs(depth / 1000 - view.depth).max() <= 0.0005 + 1e-9
    photo = np.asarray(Image.open(folder / "color/000001.jpg")).astype(int)
    assert np.abs(photo - view.photo).mean() < 3
    pose = np.loadtxt(folder / "pose/000001.txt")
    np.testing.assert_allclose(pose, view.camera.pose, atol=1e-6)
    intrinsics = np.loadtxt(folder / "intrinsics_color.txt")
    assert (intrinsics[0, 2], intrinsics[1, 2]) == (19.5, 14.5) and intrinsics[0, 0] == intrinsics[1, 1]
    assert json.loads((tmp_path / "synthetic.json").read_text())["views"] == 2


def test_another_kind_of_set_in_one_folder_is_refused(tmp_path, command_line):
    make = ("tools/make_scans.py", "--out", tmp_path, "--train", 1, "--val", 0, "--workers", 1)
    done = command_line(*make, "--views", 1)
    assert done.returncode == 0 and done.stdout == f"{tmp_path}: 1 rooms' views made, 0 there already\n"
    for option in (("--views", 2), ("--views", 1, "--seed", 1), ()):
        refused = command_line(*make, *option)
        assert refused.returncode == 2 and "choose another folder" in refused.stderr
    with pytest.raises(InputError, match=r"--views 0: expected a number from 1 to 1000"):
        make_view_set(tmp_path, 1, 0, 0, views=0)
