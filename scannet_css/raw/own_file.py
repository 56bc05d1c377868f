"""One own file as a data set of one test scene without labels: to predict on what nobody annotated.

A .ply (binary or text, with points in metres, z up, and where it has them colours, normals, triangles) is
read here, a .pcd by open3d where that is installed. The scene is named after the file and has ScanNet's
classes, so that a network trained on ScanNet can be applied to it.
"""

import re
from pathlib import Path

import numpy as np

from scannet_css.classes import SCANNET20
from scannet_css.errors import InputError
from scannet_css.raw.scan import Found, RawScan, Source, check_points, first
from scannet_css.raw.scannet_ply import read_ply

SUFFIXES = (".ply", ".pcd")


def matches(path: Path) -> bool:
    """Whether `path` is a file of a kind that can be read here."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


class OwnFileReader:
    """Reads one .ply or .pcd file. See Reader in raw.py."""

    dataset = "own"
    voxel_size = 0.02

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.classes = SCANNET20.names
        self.settings: dict[str, str] = {}

    def find(self) -> Found:
        """The one scan."""
        return Found([Source(scene_name(self.path), "test", (self.path,))])

    def read(self, source: Source) -> RawScan:
        """The scan; colours and normals are None where the file has none."""
        path = source.files[0]
        read = _read_pcd if path.suffix.lower() == ".pcd" else _read_mesh
        points, colours, normals, faces = read(path)
        check_points(path, points)
        if normals is not None:
            normals = _unit(path, normals)
        return RawScan(
            name=source.name,
            points=points,
            colours=colours,
            normals=normals,
            faces=faces,
            labels=None,
            instances=None,
            findings={"no_faces": int(normals is None and len(faces) == 0)},
        )


def scene_name(path: Path) -> str:
    """The file's name as that of a scene: letters, digits, dot, dash and underscore, at most 64."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).lstrip("._-")[:64] or "scan"


_Arrays = tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray]


def _read_mesh(path: Path) -> _Arrays:
    """Points (P, 3) float32, colours (P, 3) uint8, normals (P, 3) float32 and triangles (T, 3) of a .ply."""
    elements = read_ply(path, text=True)
    vertices = elements.get("vertex", np.empty(0, [("x", "f4")]))
    points = _columns(path, vertices, ("x", "y", "z"), "f", np.float32)
    if points is None:
        raise InputError(f"{path}: vertices lack the property x, y or z")
    colours = _columns(path, vertices, ("red", "green", "blue"), "u", np.uint8)
    normals = _columns(path, vertices, ("nx", "ny", "nz"), "f", np.float32)
    return points, colours, normals, _triangles(path, elements.get("face"), len(points))


def _columns(path: Path, vertices: np.ndarray, names: tuple[str, ...], kind: str, dtype: type):
    """The properties `names` side by side, or None if any is not there. Floats may be of double precision."""
    fields = vertices.dtype.fields or {}
    if not all(name in fields for name in names):
        return None
    for name in names:
        found = fields[name][0]
        if found.kind != kind or (kind == "u" and found.itemsize != 1):
            raise InputError(f"{path}: property {name} is {found}; expected {np.dtype(dtype)}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused as such
        return np.stack([vertices[name].astype(dtype) for name in names], axis=1)


def _triangles(path: Path, faces: np.ndarray | None, vertices: int) -> np.ndarray:
    names = [] if faces is None else faces.dtype.names
    name = next((name for name in ("vertex_indices", "vertex_index") if name in names), None)
    if name is None:
        return np.empty((0, 3), np.int32)
    corners = faces[name]
    sound = (faces[f"{name} length"] == 3) & ((corners >= 0) & (corners < vertices)).all(axis=1)
    if not sound.all():
        raise InputError(f"{path}: face {first(~sound)} is no triangle of the {vertices} vertices")
    return corners.astype(np.int32)


def _read_pcd(path: Path) -> _Arrays:
    """As _read_mesh, of a .pcd; a point cloud has no triangles."""
    try:
        import open3d
    except ImportError as error:  # it is not there, or a system library that it needs
        raise InputError(f"{path}: a .pcd takes open3d ({error}); install it, or save a .ply") from None
    path.stat()  # open3d only warns of a file that is not there
    quiet = open3d.utility.VerbosityLevel.Error
    with open3d.utility.VerbosityContextManager(quiet), np.errstate(over="ignore"):
        cloud = open3d.io.read_point_cloud(str(path), format="pcd")
        points = np.asarray(cloud.points).astype(np.float32)
    if len(points) == 0:
        raise InputError(f"{path}: open3d finds no points in it")
    colours = np.rint(np.asarray(cloud.colors) * 255).astype(np.uint8) if cloud.has_colors() else None
    normals = np.asarray(cloud.normals).astype(np.float32) if cloud.has_normals() else None
    return points, colours, normals, np.empty((0, 3), np.int32)


def _unit(path: Path, normals: np.ndarray) -> np.ndarray:
    """Normals (P, 3) with length 1; zero stays zero."""
    length = np.linalg.norm(normals.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(length).all():
        raise InputError(f"{path}: the normal of vertex {first(~np.isfinite(length[:, 0]))} is not finite")
    return (normals / np.where(length > 0, length, 1)).astype(np.float32)
