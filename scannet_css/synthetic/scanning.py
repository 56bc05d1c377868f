"""A room as a depth camera would have scanned it: seen surfaces only, holes, noise, segments, raw frame."""

import json
from dataclasses import dataclass
from functools import cache

import numpy as np

from scannet_css.synthetic.paint import DATA, paint
from scannet_css.synthetic.rooms import Room
from scannet_css.synthetic.surfaces import Mesh, Patch, cell_counts, triangulate, turned, vertex_normals

OCCLUDER_SPACING = 0.05  # metres between vertices of the mesh that hides others
PIXEL = np.deg2rad(1.5)
CAMERAS = 8
MEDIAN_AREA = 15.5  # m2 of floor of the median room; larger rooms are scanned with fewer vertices per m2
AREA_SLOPE = 0.65  # ln(vertices) against ln(area) in ScanNet
UNANNOTATED = 0.085  # share of vertices in segments that no annotator touched
TILE = 0.7  # metres, size of the segments of large surfaces


@dataclass
class MadeScan:
    """One synthetic scan in the raw frame; P vertices, F faces. Object -1 means unannotated."""

    archetype: str
    points: np.ndarray  # (P, 3) float32, metres
    colours: np.ndarray  # (P, 3) uint8
    faces: np.ndarray  # (F, 3) int32
    segments: np.ndarray  # (P,) int64, every segment within one object or unannotated
    objects: np.ndarray  # (P,) int64
    categories: list[str]  # raw category per object
    alignment: np.ndarray  # (4, 4) raw frame -> walls along x and y

    def nyu40(self) -> np.ndarray:
        """NYU40 id of every vertex (P,) uint16, 0 where unannotated."""
        ids = [categories()[name]["nyu40"] for name in self.categories]
        return np.array([*ids, 0], dtype=np.uint16)[self.objects]


@cache
def categories() -> dict:
    """raw category -> {"nyu40": id, "detail": vertex distance relative to the scan's}."""
    return json.loads((DATA / "categories.json").read_text(encoding="utf-8"))["categories"]


def scan_room(room: Room, median_vertices: int, rng: np.random.Generator) -> MadeScan:
    """Scans a room; the number of vertices follows the floor area and varies around `median_vertices`."""
    patches = [patch for piece in room.pieces for patch in piece.patches]
    owner = np.repeat(np.arange(len(room.pieces)), [len(piece.patches) for piece in room.pieces])
    detail = np.array([categories().get(piece.category, {"detail": 1.0})["detail"] for piece in room.pieces])[
        owner
    ]
    detail = detail * np.exp(rng.normal(0, 0.12, len(patches)))
    eye = Eye(room, patches, owner, rng)

    coarse = triangulate(patches, cell_counts(patches, OCCLUDER_SPACING * detail), rng)
    normals = vertex_normals(coarse.points, coarse.faces)
    eye.look(coarse)
    seen_share = eye.sees(coarse, normals).mean()
    area = room.size[0] * room.size[1]
    wanted = median_vertices * (area / MEDIAN_AREA) ** AREA_SLOPE * np.exp(rng.normal(0, 0.3))
    cells = cell_counts(patches, _spacing(patches, detail, wanted / seen_share) * detail)
    mesh = triangulate(patches, cells, rng)
    normals = vertex_normals(mesh.points, mesh.faces)
    kept = eye.sees(mesh, normals)
    colours = paint(mesh, normals, patches, rng)
    mesh.points = mesh.points + normals * _sensor_noise(mesh.points, rng)[:, None]
    return _finish(room, mesh, owner, colours, kept, rng)


def _spacing(patches: list[Patch], detail: np.ndarray, wanted: float) -> float:
    """Vertex distance (metres) that gives the wanted number of vertices before occlusion, by bisection."""
    low, high = 0.002, 1.0
    lengths = np.array([patch.lengths() for patch in patches])
    for _ in range(30):
        middle = np.sqrt(low * high)
        cells = np.maximum(np.rint(lengths / (middle * detail)[:, None]), 1)
        low, high = (middle, high) if (cells + 1).prod(1).sum() > wanted else (low, middle)
    return float(high)


def _sensor_noise(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Offsets along the normal (P,) of a few millimetres: waves of fused depth and white noise."""
    waves = np.zeros(len(points))
    for _ in range(5):
        waves += np.sin(points @ rng.normal(0, 6, 3) + rng.uniform(0, 2 * np.pi))
    return 0.0015 * waves + rng.normal(0, 0.001, len(points))


class Eye:
    """Decides which vertices a hand-held depth camera saw while it was carried through the room."""

    def __init__(self, room: Room, patches: list[Patch], owner: np.ndarray, rng: np.random.Generator):
        self.room = room
        self.cameras = _camera_places(room, rng)
        self.two_sided = np.array([patch.two_sided for patch in patches])
        self.owner = owner
        self.flush, self.solid = room.flush_boxes(), room.solid_boxes()
        self.top = rng.uniform(1.9, 2.7) if rng.random() < 0.62 else 9.0
        self.phase = rng.uniform(0, 2 * np.pi, 4)
        self.ceiling_share = rng.uniform(0.2, 1.0) if rng.random() < 0.5 else 0.0
        points = np.concatenate([patch.grid.reshape(-1, 3) for patch in patches])
        count = rng.poisson(0.7 * np.sqrt(room.size[0] * room.size[1]))
        self.holes = points[rng.integers(len(points), size=count)] + rng.normal(0, 0.3, (count, 3))
        self.hole_sizes = rng.uniform(0.06, 0.22, count)
        self.depth_maps: list[np.ndarray] = []

    def look(self, mesh: Mesh) -> None:
        """Renders a depth map (all directions) from every camera."""
        there = ~self._cut_out(mesh)
        middles = mesh.points[mesh.faces[there[mesh.faces].all(1)]].mean(1)
        points = np.concatenate([mesh.points[there], middles])
        for camera in self.cameras:
            pixel, distance = _project(points, camera)
            depth = np.full(_rows() * 2 * _rows(), np.inf)
            np.minimum.at(depth, pixel, distance)
            self.depth_maps.append(depth)

    def sees(self, mesh: Mesh, normals: np.ndarray) -> np.ndarray:
        """Which vertices (P,) are in view of a camera, facing it, below the scanned height and in no hole."""
        seen = np.zeros(len(mesh.points), dtype=bool)
        two_sided = self.two_sided[mesh.patch]
        for camera, depth in zip(self.cameras, self.depth_maps, strict=True):
            rest = np.flatnonzero(~seen)
            ray = camera - mesh.points[rest]
            pixel, distance = _project(mesh.points[rest], camera)
            facing = (normals[rest] * ray).sum(1) / np.maximum(distance, 1e-9)
            facing = np.where(two_sided[rest], np.abs(facing), facing)
            tolerance = 0.05 + 1.5 * PIXEL * distance / np.maximum(facing, 0.12)
            seen[rest] = (facing > 0.06) & (distance < depth[pixel] + tolerance) & (distance < 7.0)
        return seen & ~self._missing(mesh) & ~self._cut_out(mesh)

    def _missing(self, mesh: Mesh) -> np.ndarray:
        x, y, z = mesh.points.T
        edge = 0.15 * np.sin(1.7 * x + self.phase[0]) + 0.15 * np.sin(1.9 * y + self.phase[1])
        missing = z > self.top + edge + 0.05 * np.sin(9 * (x + y))
        piece = self.owner[mesh.patch]
        names = np.array([piece.category for piece in self.room.pieces])
        patchy = (
            np.sin(0.9 * x + self.phase[2]) + np.sin(1.1 * y + self.phase[3]) + 0.2 * np.sin(7 * x + 5 * y)
        )
        missing |= (names == "ceiling")[piece] & (patchy > 4 * self.ceiling_share - 2)
        for centre, size in zip(self.holes, self.hole_sizes, strict=True):
            missing |= ((mesh.points - centre) ** 2).sum(1) < size**2
        return missing

    def _cut_out(self, mesh: Mesh) -> np.ndarray:
        """Vertices (P,) of walls where a door, a window or a picture is, and of walls and floor inside
        furniture.
        """
        cut = np.zeros(len(mesh.points), dtype=bool)
        # furniture stands up to 5 cm off the wall: that gap is never seen either
        gaps = np.array([[0.09, 0, 0, -0.09, 0, 0], [0, 0.09, 0, 0, -0.09, 0]])
        hidden = {"wall": self.flush + [box - gap for box in self.solid for gap in gaps], "floor": self.solid}
        for name, boxes in hidden.items():
            chosen = np.array([piece.category == name for piece in self.room.pieces])
            rows = np.flatnonzero(chosen[self.owner[mesh.patch]])
            points = mesh.points[rows]
            for box in boxes:
                cut[rows[((points > box[:3]) & (points < box[3:])).all(1)]] = True
        return cut


def _rows() -> int:
    return int(np.pi / PIXEL)


def _project(points: np.ndarray, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel index and distance (metres) of points in an all-round depth map."""
    ray = points - camera
    distance = np.sqrt((ray**2).sum(1))
    rows, columns = _rows(), 2 * _rows()
    azimuth = (np.arctan2(ray[:, 1], ray[:, 0]) / (2 * np.pi) + 0.5) * columns
    polar = np.arccos(np.clip(ray[:, 2] / np.maximum(distance, 1e-9), -1, 1)) / np.pi * rows
    column = np.minimum(azimuth.astype(np.int64), columns - 1)
    row = np.minimum(polar.astype(np.int64), rows - 1)
    return row * columns + column, distance


def _camera_places(room: Room, rng: np.random.Generator) -> np.ndarray:
    """Camera positions (CAMERAS, 3) at eye height, clear of tall things and far from one another."""
    width, depth, _ = room.size
    places = rng.uniform([0.35, 0.35, 1.25], [width - 0.35, depth - 0.35, 1.75], (400, 3))
    clear = np.ones(len(places), dtype=bool)
    for low_high in room.taken:
        low, high = low_high[:3] - 0.15, low_high[3:] + 0.15
        clear &= ~((places > low) & (places < high)).all(1)
    places = places[clear] if clear.any() else places[:1]
    chosen = [0]
    nearest = np.full(len(places), np.inf)
    for _ in range(min(CAMERAS, len(places)) - 1):
        nearest = np.minimum(nearest, ((places - places[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(nearest.argmax()))
    return places[chosen]


def _finish(room: Room, mesh: Mesh, owner, colours, kept, rng: np.random.Generator) -> MadeScan:
    """Drops what was not seen, names segments and objects, orders vertices, turns into the raw frame."""
    faces = mesh.faces[kept[mesh.faces].all(1)]
    used = np.zeros(len(kept), dtype=bool)
    used[faces] = True
    rows = np.flatnonzero(used)
    # real meshes are stored block by block in space, so the order must not tell one object from the next
    block = np.floor(mesh.points[rows] / 0.4).astype(np.int64)
    rows = rows[np.lexsort((mesh.points[rows, 0], block[:, 2], block[:, 1], block[:, 0]))]
    renumbered = np.full(len(kept), -1, dtype=np.int32)
    renumbered[rows] = np.arange(len(rows), dtype=np.int32)
    faces = renumbered[faces]
    faces = faces[np.argsort(faces.min(1), kind="stable")]

    piece = owner[mesh.patch[rows]]
    segments = _segments(piece, mesh.patch[rows], mesh.position[rows])
    objects, names = _annotate(room, piece, segments, rng)
    points, alignment = _raw_frame(mesh.points[rows], rng)
    return MadeScan(room.archetype, points, colours[rows], faces, segments, objects, names, alignment)


def _segments(piece: np.ndarray, patch: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Over-segmentation (P,): flat sides of an object apart, large sides in tiles, slivers joined.

    As in ScanNet a segment's number is the index of one of its vertices, here the first.
    """
    size = np.bincount(patch)
    # patches stand in the order they were made: small ones run together within their object
    small = size < max(20, len(patch) // 4000)
    group = np.where(small[patch], 0, patch + 1)
    wave = np.stack([np.sin(5 * position[:, 1] + patch), np.sin(4 * position[:, 0] + patch)], axis=1)
    tile = np.floor(np.maximum(position + 0.12 * wave + 0.12, 0) / TILE).astype(np.int64)
    tile[small[patch]] = 0
    key = ((piece * (len(size) + 2) + group) * 64 + np.minimum(tile[:, 0], 63)) * 64 + np.minimum(
        tile[:, 1], 63
    )
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


def _annotate(room: Room, piece, segments, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Objects (P,) counted from 0 and their raw categories; some segments stay without annotation."""
    ids, first, count = np.unique(segments, return_index=True, return_counts=True)
    of_piece = piece[first]
    annotated = np.array([room.pieces[k].category != "" for k in of_piece])
    left = np.bincount(of_piece[annotated], minlength=len(room.pieces))
    budget = UNANNOTATED * len(segments) * rng.uniform(0.5, 1.6)
    for k in rng.permutation(len(ids)):
        if annotated[k] and left[of_piece[k]] > 1 and count[k] < budget:
            annotated[k] = False
            left[of_piece[k]] -= 1
            budget -= count[k]
    present = np.unique(of_piece[annotated])
    number = np.full(len(room.pieces), -1, dtype=np.int64)
    number[present] = rng.permutation(len(present))
    names = [""] * len(present)
    for k in present:
        names[number[k]] = room.pieces[k].category
    of_segment = np.where(annotated, number[of_piece], -1)
    return of_segment[np.searchsorted(ids, segments)], names


def _raw_frame(points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) float32 turned about z and shifted to start near the origin, and the (4, 4) way back."""
    yaw = rng.uniform(0, 2 * np.pi)
    raw = turned(points, yaw)
    shift = np.array([*(-raw[:, :2].min(0) + rng.uniform(0, 0.3, 2)), rng.normal(0, 0.03)])
    raw = raw + shift
    alignment = np.eye(4)
    alignment[:3, :3] = turned(np.eye(3), -yaw).T
    middle = (raw.min(0) + raw.max(0)) / 2
    alignment[:3, 3] = -alignment[:3, :3] @ np.array([middle[0], middle[1], shift[2]])
    return raw.astype(np.float32), alignment
