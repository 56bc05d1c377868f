"""One own file as a data set of one test scene without labels: to predict on what nobody annotated.

A .ply (with points in metres, z up, and where it has them colours, normals, faces) is read by plyfile, a .pcd
by open3d where that is installed. The scene is named after the file and has ScanNet's
classes, so that a network trained on ScanNet can be applied to it.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from plyfile import PlyData

from scannet_css.classes import SCANNET20
from scannet_css.errors import InputError
from scannet_css.raw.ply_files import read_ply
from scannet_css.raw.scan import FURTHEST, Found, RawScan, Source, check_points, first

SUFFIXES = (".ply", ".pcd")
_EXTENT = (0.1, 2 * FURTHEST)  # metres; it may be a street
_COLOUR_NAMES = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))


def matches(path: Path) -> bool:
    """Whether `path` is a file of a kind that can be read here."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


class OwnFileReader:
    """Reads one .ply or .pcd file. See Reader in scan.py."""

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
        content = (_read_pcd if path.suffix.lower() == ".pcd" else _read_mesh)(path)
        check_points(path, content.points, _EXTENT)
        normals, odd = (None, 0) if content.normals is None else _unit(content.normals)
        no_faces = int(normals is None and len(content.triangles) == 0)
        return RawScan(
            name=source.name,
            points=content.points,
            colours=content.colours,
            normals=normals,
            faces=content.triangles,
            labels=None,
            instances=None,
            findings={**content.findings, "no_faces": no_faces, "odd_normals": odd},
        )


def scene_name(path: Path) -> str:
    """The file's name as that of a scene: letters, digits, dot, dash and underscore, at most 64."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).lstrip("._-")[:64] or "scan"


@dataclass
class _Content:
    """What a file holds: P points, T triangles, and by the names of FINDINGS where a choice was made."""

    points: np.ndarray  # (P, 3) float32
    colours: np.ndarray | None  # (P, 3) uint8
    normals: np.ndarray | None  # (P, 3) float32, as they stand
    triangles: np.ndarray  # (T, 3) int32
    findings: dict[str, int] = field(default_factory=dict)


def _read_mesh(path: Path) -> _Content:
    content = read_ply(path)
    vertices = content["vertex"].data if "vertex" in content else np.empty(0, [("x", "f4")])
    points = _reals(path, vertices, ("x", "y", "z"))
    if points is None:
        raise InputError(f"{path}: vertices lack the property x, y or z")
    colours, changed = _colours(path, vertices)
    triangles, cut = _triangles(path, content, len(points))
    findings = {"changed_colours": changed, "cut_faces": cut}
    return _Content(points, colours, _reals(path, vertices, ("nx", "ny", "nz")), triangles, findings)


def _fields(vertices: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray] | None:
    """The properties `names`, or None if any is not there."""
    return [vertices[name] for name in names] if set(names) <= set(vertices.dtype.names) else None


def _reals(path: Path, vertices: np.ndarray, names: tuple[str, ...]) -> np.ndarray | None:
    """(P, 3) float32 of floats of any precision, or None."""
    columns = _fields(vertices, names)
    for name, column in zip(names, columns or (), strict=False):
        if column.dtype.kind != "f":
            raise InputError(f"{path}: property {name} is {column.dtype}; expected float32")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused as such
        return columns and np.stack([column.astype(np.float32) for column in columns], axis=1)


def _colours(path: Path, vertices: np.ndarray) -> tuple[np.ndarray | None, int]:
    """Colours (P, 3) uint8, or None, and how many were made of other numbers than bytes.

    Floats up to 1 are shares of 255, numbers of two bytes above 255 shares of 65535; char is read as uchar.
    """
    columns = next((found for names in _COLOUR_NAMES if (found := _fields(vertices, names))), None)
    if columns is None:
        return None, 0
    values = np.stack(columns, axis=1)
    if values.dtype.itemsize == 1:
        return values.astype(values.dtype.newbyteorder("=")).view(np.uint8), 0
    largest = values.max(initial=0)
    if values.dtype.kind == "f":
        values = values * (255 if largest <= 1 else 1)
    elif values.dtype.itemsize == 2 and largest > 255:
        values = values / 257
    sound = ((values >= 0) & (values <= 255)).all(axis=1)  # false for NaN too
    if not sound.all():
        bad = first(~sound)
        raise InputError(f"{path}: vertex {bad} has the colour {values[bad].tolist()}; expected 0 to 255")
    return np.rint(values).astype(np.uint8), len(values)


def _triangles(path: Path, content: PlyData, vertices: int) -> tuple[np.ndarray, int]:
    """Triangles (T, 3) int32 of the faces, and how many of these have another number of corners: they are cut
    into a fan of triangles, or left out with fewer than three."""
    face = content["face"].data if "face" in content else np.empty(0, [("", "i4")])
    name = next((name for name in ("vertex_indices", "vertex_index") if name in face.dtype.names), None)
    if name is None or not len(face):
        return np.empty((0, 3), np.int32), 0
    sizes = np.fromiter(map(len, face[name]), np.int64) if face[name].dtype == object else None
    flat = face[name].ravel() if sizes is None else np.concatenate(face[name])
    sizes = np.full(len(face), 3) if sizes is None else sizes
    owner = np.repeat(np.arange(len(face)), sizes)
    sound = (flat >= 0) & (flat < vertices)
    if flat.dtype.kind not in "iu" or not sound.all():
        bad = int(owner[first(~sound)]) if not sound.all() else 0
        raise InputError(f"{path}: face {bad} has no corners among the {vertices} vertices")
    fans = np.maximum(sizes - 2, 0)
    start = np.repeat(np.cumsum(sizes) - sizes, fans)
    place = np.arange(fans.sum()) - np.repeat(np.cumsum(fans) - fans, fans)
    corners = np.stack([flat[start], flat[start + place + 1], flat[start + place + 2]], axis=1)
    return corners.astype(np.int32), int((sizes != 3).sum())


def _read_pcd(path: Path) -> _Content:
    """By open3d; a point cloud has no triangles."""
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
    return _Content(points, colours, normals, np.empty((0, 3), np.int32))


def _unit(normals: np.ndarray) -> tuple[np.ndarray, int]:
    """Normals (P, 3) with length 1, and how many were not finite; these and zero become zero."""
    length = np.linalg.norm(normals.astype(np.float64), axis=1, keepdims=True)
    finite = np.isfinite(length)
    sound = np.where(finite, normals, 0) / np.where(finite & (length > 0), length, 1)
    return sound.astype(np.float32), int((~finite).sum())
