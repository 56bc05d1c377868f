"""Reads and checks the files of one scan, a folder as ScanNet v2 ships it.

    sceneXXXX_YY/sceneXXXX_YY_vh_clean_2.ply                    mesh: x y z in metres, colours, triangles
    sceneXXXX_YY/sceneXXXX_YY_vh_clean_2.labels.ply             the same vertices with their NYU40 id
    sceneXXXX_YY/sceneXXXX_YY_vh_clean_2.0.010000.segs.json     segment of each vertex
    sceneXXXX_YY/sceneXXXX_YY.aggregation.json                  segments of each object

Test scans have the mesh only. Labels are taken from labels.ply (whose README calls NYU40 ids "ScanNet ids").
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scannet_css.errors import InputError
from scannet_css.scenes.ply import read_ply
from scannet_css.scenes.raw import check_points, first

MESH = "_vh_clean_2.ply"
LABELS = "_vh_clean_2.labels.ply"
SEGMENTS = "_vh_clean_2.0.010000.segs.json"
OBJECTS = ".aggregation.json"
SUFFIXES = (MESH, LABELS, SEGMENTS, OBJECTS)

_SAME_PLACE = 1e-3  # metres between a vertex and its copy in labels.ply


@dataclass
class Scan:
    """The files of one scan as they stand: P vertices, T triangles.

    points (P, 3) float32 in metres; colours (P, 3) uint8; faces (T, 3) int32, T may be 0; nyu40 (P,) int32 as
    stored, or None without labels.ply; instances (P,) int32, the objectId of each vertex and -1 for none, or
    None without segments and objects; findings: see scannet_css.scenes.raw.
    """

    name: str
    points: np.ndarray
    colours: np.ndarray
    faces: np.ndarray
    nyu40: np.ndarray | None
    instances: np.ndarray | None
    findings: dict[str, int] = field(default_factory=dict)


def scan_files(folder: Path) -> tuple[Path, ...]:
    """The files a scan may have, in the order of SUFFIXES."""
    return tuple(folder / f"{folder.name}{suffix}" for suffix in SUFFIXES)


def read_scan(folder: str | Path) -> Scan:
    """Reads the scan in `folder`, which is named like the scan.

    Raises InputError, one line with the file and the reason, for a missing or damaged file, values that
    cannot be a room, or files that do not belong together.
    """
    folder = Path(folder)
    name = folder.name
    paths = dict(zip(SUFFIXES, scan_files(folder), strict=True))
    points, colours, faces = _read_mesh(paths[MESH])
    nyu40 = _read_labels(paths[LABELS], points) if paths[LABELS].exists() else None
    instances, findings = None, {}
    if paths[SEGMENTS].exists() or paths[OBJECTS].exists():
        segments = _read_segments(paths[SEGMENTS], len(points))
        instances, findings["shared_segments"] = _read_objects(paths[OBJECTS], segments)
    findings["no_faces"] = int(len(faces) == 0)
    return Scan(name, points, colours, faces, nyu40, instances, findings)


def _read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    elements = read_ply(path)
    vertices = elements.get("vertex")
    if vertices is None:
        raise InputError(f"{path}: the scan is empty, no vertices")
    points = _positions(path, vertices)
    colours = _columns(path, vertices, ("red", "green", "blue"), np.dtype("u1"))
    check_points(path, points)
    return points, colours, _faces(path, elements.get("face"), len(points))


def _faces(path: Path, faces: np.ndarray | None, vertices: int) -> np.ndarray:
    if faces is None:
        return np.empty((0, 3), np.int32)
    name = next((name for name in ("vertex_indices", "vertex_index") if name in faces.dtype.names), None)
    if name is None or faces.dtype[name].base.kind not in "iu":
        raise InputError(f"{path}: faces lack the list vertex_indices")
    if (faces[f"{name} length"] != 3).any():
        raise InputError(f"{path}: face {first(faces[f'{name} length'] != 3)} is not a triangle")
    corners = faces[name]
    if len(corners) and (corners.min() < 0 or corners.max() >= vertices):
        bad = first(((corners < 0) | (corners >= vertices)).any(axis=1))
        raise InputError(f"{path}: face {bad} names a vertex that is not there; the scan has {vertices}")
    return corners.astype(np.int32)


def _read_labels(path: Path, points: np.ndarray) -> np.ndarray:
    vertices = read_ply(path).get("vertex")
    if vertices is None or len(vertices) != len(points):
        count = 0 if vertices is None else len(vertices)
        raise InputError(f"{path}: {count} vertices, but the mesh has {len(points)}")
    if "label" not in vertices.dtype.names or vertices.dtype["label"].kind not in "iu":
        raise InputError(f"{path}: vertices lack the integer property label")
    # written so that NaN fails the comparison too
    same = np.abs(_positions(path, vertices) - points) < _SAME_PLACE
    if not same.all():
        raise InputError(f"{path}: vertex {first(~same.all(axis=1))} stands elsewhere than in the mesh")
    return vertices["label"].astype(np.int32)


def _read_segments(path: Path, vertices: int) -> np.ndarray:
    """The segment id of each vertex (P,) int64."""
    content = _read_json(path)
    segments = _integers(path, "segIndices", content.get("segIndices"))
    if len(segments) != vertices:
        raise InputError(
            f"{path}: segIndices has {len(segments)} entries, but the mesh has {vertices} vertices"
        )
    return segments


def _read_objects(path: Path, segments: np.ndarray) -> tuple[np.ndarray, int]:
    """The objectId of each vertex (P,) int32 or -1, and how many segments a second object claims too."""
    groups = _read_json(path).get("segGroups")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise InputError(f"{path}: expected segGroups as a list of objects")
    known, row = np.unique(segments, return_inverse=True)
    owner = np.full(len(known), -1, np.int32)
    shared = 0
    for position, group in enumerate(groups):
        identity = group.get("objectId")
        if type(identity) is not int or not 0 <= identity < 2**31:
            raise InputError(f"{path}: objectId of group {position} is {identity!r}; expected a whole number")
        claimed = np.unique(_integers(path, f"segments of object {identity}", group.get("segments")))
        rows = np.minimum(np.searchsorted(known, claimed), len(known) - 1)
        if (known[rows] != claimed).any():
            missing = int(claimed[first(known[rows] != claimed)])
            raise InputError(
                f"{path}: object {identity} names segment {missing}, which no vertex of the mesh has"
            )
        free = owner[rows] == -1
        shared += int((~free).sum())
        owner[rows[free]] = identity
    return owner[row], shared


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content


def _integers(path: Path, what: str, value: Any) -> np.ndarray:
    try:
        array = np.array(value) if value else np.empty(0, np.int64)
    except ValueError:  # lists of different lengths
        array = None
    if not isinstance(value, list) or array is None or array.ndim != 1 or array.dtype != np.int64:
        raise InputError(f"{path}: expected {what} as a list of whole numbers")
    return array


def _positions(path: Path, vertices: np.ndarray) -> np.ndarray:
    return _columns(path, vertices, ("x", "y", "z"), np.dtype("f4"))


def _columns(path: Path, vertices: np.ndarray, names: tuple[str, ...], dtype: np.dtype) -> np.ndarray:
    for name in names:
        if name not in vertices.dtype.names or vertices.dtype[name].newbyteorder("=") != dtype:
            raise InputError(f"{path}: vertices lack the {dtype.name} property {name}")
    return np.stack([vertices[name] for name in names], axis=1).astype(dtype, copy=False)
