"""Reads and checks the files of one scan, a folder as ScanNet v2 ships it.

    sceneXXXX_YY/sceneXXXX_YY_vh_clean_2.ply                    mesh: x y z in metres, colours, triangles
    sceneXXXX_YY/sceneXXXX_YY_vh_clean_2.labels.ply             the same vertices with their NYU40 id
    sceneXXXX_YY/sceneXXXX_YY_vh_clean_2.0.010000.segs.json     segment of each vertex
    sceneXXXX_YY/sceneXXXX_YY.aggregation.json                  segments of each object

Test scans have the mesh only. The segments and objects of the high-resolution mesh, _vh_clean.segs.json and
_vh_clean.aggregation.json, do not fit and are not read.
"""

import contextlib
import json
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scannet_css.errors import InputError
from scannet_css.raw.ply_files import read_scan_ply
from scannet_css.raw.scan import check_points, first

MESH = "_vh_clean_2.ply"
LABELS = "_vh_clean_2.labels.ply"
SEGMENTS = "_vh_clean_2.0.010000.segs.json"
OBJECTS = ".aggregation.json"
SUFFIXES = (MESH, LABELS, SEGMENTS, OBJECTS)

_SAME_PLACE = 1e-3  # metres between a vertex and its copy in labels.ply


@dataclass
class ScanFiles:
    """The files of one scan as they stand: P vertices, T triangles, objects in the order of their file."""

    name: str
    points: np.ndarray  # (P, 3) float32, metres
    colours: np.ndarray  # (P, 3) uint8
    faces: np.ndarray  # (T, 3) int32, T may be 0
    nyu40: np.ndarray | None  # (P,) int32 as stored; None without labels.ply
    owners: np.ndarray | None  # (P,) int32, row of the object in `objects`, -1 none; None without objects
    objects: list[tuple[int, str]]  # objectId and raw category
    findings: dict[str, int]  # see scannet_css.raw.scan

    @property
    def instances(self) -> np.ndarray | None:
        """(P,) int32: the objectId of each vertex, -1 for none; None without objects."""
        if self.owners is None:
            return None
        return np.array([identity for identity, _ in self.objects] + [-1], np.int32)[self.owners]


def scan_files(folder: Path) -> tuple[Path, ...]:
    """The files a scan may have, in the order of SUFFIXES."""
    return tuple(folder / f"{folder.name}{suffix}" for suffix in SUFFIXES)


def read_scan(folder: str | Path) -> ScanFiles:
    """Reads the scan in `folder`, which is named like the scan.

    Raises InputError, one line with the file and the reason, for a missing or damaged file, values that
    cannot be a room, or files that do not belong together.
    """
    folder = Path(folder)
    name = folder.name
    paths = dict(zip(SUFFIXES, scan_files(folder), strict=True))
    points, colours, faces = _read_mesh(paths[MESH])
    scan = ScanFiles(name, points, colours, faces, None, None, [], {"no_faces": int(len(faces) == 0)})
    if paths[LABELS].exists():
        scan.nyu40 = _read_labels(paths[LABELS], points)
    if paths[SEGMENTS].exists() or paths[OBJECTS].exists():
        segments = _read_segments(paths[SEGMENTS], len(points))
        scan.owners, scan.objects, odd = _read_objects(paths[OBJECTS], segments)
        scan.findings |= odd
    return scan


def _read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    elements = read_scan_ply(path)
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
    corners = faces[name]
    if len(corners) and (corners.min() < 0 or corners.max() >= vertices):
        bad = first(((corners < 0) | (corners >= vertices)).any(axis=1))
        raise InputError(f"{path}: face {bad} names a vertex that is not there; the scan has {vertices}")
    return corners.astype(np.int32)


def _read_labels(path: Path, points: np.ndarray) -> np.ndarray:
    vertices = read_scan_ply(path).get("vertex")
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


def _read_objects(
    path: Path, segments: np.ndarray
) -> tuple[np.ndarray, list[tuple[int, str]], dict[str, int]]:
    """The object's row of each vertex (P,) int32 or -1, the objects, and what was odd.

    An object with the very segments of an earlier one is left out. Any other segment that two objects claim
    stays with the first.
    """
    content = _read_json(path)
    known, row = np.unique(segments, return_inverse=True)
    owner = np.full(len(known), -1, np.int32)
    objects, claims = [], set()
    findings = {"duplicate_objects": 0, "shared_segments": 0}
    for identity, category, claimed in _objects(path, content):
        rows = np.minimum(np.searchsorted(known, claimed), len(known) - 1)
        if (known[rows] != claimed).any():
            missing = int(claimed[first(known[rows] != claimed)])
            made_for = reprlib.repr(content.get("segmentsFile", "another mesh"))
            raise InputError(
                f"{path}: object {identity} names segment {missing}, which no vertex of the mesh has; "
                f"made for {made_for}?"
            )
        if claimed.tobytes() in claims:
            findings["duplicate_objects"] += 1
            continue
        claims.add(claimed.tobytes())
        free = owner[rows] == -1
        findings["shared_segments"] += int((~free).sum())
        owner[rows[free]] = len(objects)
        objects.append((identity, category))
    return owner[row], objects, findings


def _objects(path: Path, content: dict[str, Any]) -> Iterator[tuple[int, str, np.ndarray]]:
    """Checked objectId, raw category and segments, sorted and distinct, of each object."""
    groups = content.get("segGroups")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise InputError(f"{path}: expected segGroups as a list of objects")
    for position, group in enumerate(groups):
        identity, category = group.get("objectId"), group.get("label")
        if type(identity) is not int or not 0 <= identity < 2**31:
            raise InputError(
                f"{path}: objectId of group {position} is {reprlib.repr(identity)}; expected a whole number"
            )
        if not isinstance(category, str):
            raise InputError(
                f"{path}: label of object {identity} is {reprlib.repr(category)}; expected a category"
            )
        claimed = _integers(path, f"segments of object {identity}", group.get("segments"))
        yield identity, category, np.unique(claimed)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_each_key_once)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a repeated key the json module would silently take the last."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _integers(path: Path, what: str, value: Any) -> np.ndarray:
    # numpy takes true for 1 and would round a list with a fraction in it
    if isinstance(value, list) and set(map(type, value)) <= {int}:
        with contextlib.suppress(OverflowError):
            return np.array(value, np.int64)
    raise InputError(f"{path}: expected {what} as a list of whole numbers")


def _positions(path: Path, vertices: np.ndarray) -> np.ndarray:
    return _columns(path, vertices, ("x", "y", "z"), np.dtype("f4"))


def _columns(path: Path, vertices: np.ndarray, names: tuple[str, ...], dtype: np.dtype) -> np.ndarray:
    for name in names:
        if name not in vertices.dtype.names or vertices.dtype[name].newbyteorder("=") != dtype:
            raise InputError(f"{path}: vertices lack the {dtype.name} property {name}")
    return np.stack([vertices[name] for name in names], axis=1).astype(dtype, copy=False)
