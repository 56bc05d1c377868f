"""One raw scan to one prepared scene: vertex normals, voxels, the labels of voxels."""

import numpy as np
import torch

from scannet_css.classes import IGNORE
from scannet_css.raw.scan import RawScan
from scannet_css.scenes.store import Scene
from scannet_css.scenes.voxelize import majority_labels, voxelize


def prepare_scene(scan: RawScan, voxel_size: float) -> Scene:
    """The scan as a scene: what the format does not have is filled in (see RawScan), vertices keep their
    order."""
    add_normals(scan)
    count = len(scan.points)
    colours = np.zeros((count, 3), np.uint8) if scan.colours is None else scan.colours
    instances = np.full(count, -1, np.int32) if scan.instances is None else scan.instances
    labels = torch.from_numpy(np.full(count, IGNORE, np.uint8) if scan.labels is None else scan.labels)
    points = torch.from_numpy(scan.points)
    voxel_coordinates, inverse = voxelize(points, voxel_size)
    return Scene(
        name=scan.name,
        points=points,
        colours=torch.from_numpy(colours),
        normals=torch.from_numpy(scan.normals),
        labels=labels,
        instances=torch.from_numpy(instances),
        voxel_coordinates=voxel_coordinates,
        voxel_labels=majority_labels(labels, inverse, len(voxel_coordinates)),
        inverse=inverse.to(torch.int32),
    )


def add_normals(scan: RawScan) -> None:
    """Gives the scan normals from its faces if its format has none."""
    if scan.normals is None:
        scan.normals = vertex_normals(scan.points, scan.faces)


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


def duplicate_vertices(points: np.ndarray) -> int:
    """How many of the points (P, 3) float32 stand exactly where another one does, counting each place once
    less."""
    bits = (points + np.float32(0)).view(np.uint32)  # the sum turns -0 into 0
    multipliers = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
    hashes = np.bitwise_xor.reduce(bits * multipliers, axis=1)
    ordered = np.sort(hashes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    suspects = bits[np.isin(hashes, repeated)]  # equal points have equal hashes, the converse is checked
    return len(suspects) - len(np.unique(suspects, axis=0))
