"""One raw scan to one prepared scene: labels by NYU40 id, vertex normals, voxels."""

import numpy as np
import torch

from scannet_css.scenes.classes import CLASSES, IGNORE, NYU40_IDS
from scannet_css.scenes.scannet import Scan
from scannet_css.scenes.store import Scene
from scannet_css.scenes.voxelize import majority_labels, voxelize

_HIGHEST_ID = 40  # of NYU40; 50 and 149 occur in released files


def prepare_scene(scan: Scan, voxel_size: float) -> tuple[Scene, dict[int, int]]:
    """A scan as a scene, and the NYU40 ids outside 0..40 with their counts, which are ignored."""
    labels, unknown_ids = _to_labels(scan)
    instances = scan.instances if scan.instances is not None else np.full(len(scan.points), -1, np.int32)
    points, labels = torch.from_numpy(scan.points), torch.from_numpy(labels)
    voxel_coordinates, inverse = voxelize(points, voxel_size)
    scene = Scene(
        name=scan.name,
        points=points,
        colours=torch.from_numpy(scan.colours),
        normals=torch.from_numpy(vertex_normals(scan.points, scan.faces)),
        labels=labels,
        instances=torch.from_numpy(instances),
        voxel_coordinates=voxel_coordinates,
        voxel_labels=majority_labels(labels, inverse, len(voxel_coordinates)),
        inverse=inverse.to(torch.int32),
    )
    return scene, unknown_ids


def vertex_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (P, 3) float32 of points (P, 3) and triangles (T, 3); zero where no face.

    Sums run in float64 in a fixed order, with separate multiplications and additions, so that every machine
    gives the same bits.
    """
    axes = points.T.astype(np.float64, order="C")
    corners = faces.T.astype(np.int64, order="C")
    u, v = ([axis[corner] - axis[corners[0]] for axis in axes] for corner in corners[1:])
    areas = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
    sums = [np.bincount(corners.ravel(), np.tile(area, 3), len(points)) for area in areas]
    length = np.sqrt(sums[0] * sums[0] + sums[1] * sums[1] + sums[2] * sums[2])
    length[length == 0] = 1
    return np.stack([axis / length for axis in sums], axis=1).astype(np.float32)


def _to_labels(scan: Scan) -> tuple[np.ndarray, dict[int, int]]:
    """Labels (P,) uint8: position in CLASSES, 255 for every other id; and the ids NYU40 does not have."""
    if scan.nyu40 is None:
        return np.full(len(scan.points), IGNORE, np.uint8), {}
    table = np.full(_HIGHEST_ID + 1, IGNORE, np.uint8)
    table[list(NYU40_IDS)] = np.arange(len(CLASSES))
    known = (scan.nyu40 >= 0) & (scan.nyu40 <= _HIGHEST_ID)
    ids, counts = np.unique(scan.nyu40[~known], return_counts=True)
    return table[np.where(known, scan.nyu40, 0)], dict(zip(ids.tolist(), counts.tolist(), strict=True))
