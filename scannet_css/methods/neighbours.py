"""The occupied voxels around each voxel, and geometry- and uncertainty-aware learning on them (Y. Yang et
al., Geometry and Uncertainty-Aware 3D Point Cloud Class-Incremental Semantic Segmentation, CVPR 2023)."""

import torch
from torch import Tensor

from scannet_css.methods.losses import IGNORE
from scannet_css.sparse import SparseTensor
from scannet_css.sparse.coordinates import kernel_offsets


def neighbours(coordinates: Tensor) -> Tensor:
    """(N, 26) int64: the rows of the voxels that share a face, an edge or a corner with each voxel, nearest
    first; -1 where there is none. coordinates (N, 4) of distinct voxels."""
    manager = SparseTensor(
        coordinates.new_zeros((len(coordinates), 1), dtype=torch.float32), coordinates
    ).manager
    table = manager.map(1, 3, 1).table.T.long()  # (N, 27), rows in canonical order
    if manager.order is not None:
        table = torch.where(table >= 0, manager.order[table.clamp(min=0)], -1)[manager.inverse]
    offsets = kernel_offsets(3, 1)
    order = sorted(range(27), key=lambda k: sum(map(abs, offsets[k])))
    return table[:, order[1:]]


def around(values: Tensor, near: Tensor, reduce_self: bool = True) -> Tensor:
    """(N, F): mean of `values` (N, F) over each voxel's neighbours `near` (N, 26), and itself if
    `reduce_self`; 0 where there is nothing."""
    exists = near >= 0
    voxel, _ = exists.nonzero(as_tuple=True)
    start = values if reduce_self else torch.zeros_like(values)
    sums = start.index_add(0, voxel, values[near[exists]])
    return sums / (exists.sum(1) + int(reduce_self)).clamp(min=1)[:, None]


def relations(features: Tensor, near: Tensor) -> Tensor:
    """(N, F): mean difference of each voxel's neighbours' features and its own, 0 without neighbours."""
    has = (near >= 0).any(1, keepdim=True)
    return (around(features, near, reduce_self=False) - features) * has


def mutual_information(probability: Tensor, near: Tensor) -> Tensor:
    """(N,): entropy of the mean over a voxel and its neighbours less the mean of their entropies (BALD;
    Houlsby et al., 2011), where each neighbour is another random draw of the network. probability (N, K)."""
    own = _entropy(probability)
    return (_entropy(around(probability, near)) - around(own[:, None], near)[:, 0]).clamp(min=0)


def dropped_out(features: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """(N, F): `share` of the features set to 0 at random, the others made up for; torch's dropout with a
    generator."""
    kept = torch.rand(features.shape, generator=generator, device=features.device) >= share
    return features * kept / (1 - share)


def labels_nearby(labels: Tensor, wanted: Tensor, near: Tensor) -> Tensor:
    """(N,): the label of the nearest neighbour that is `wanted` (N,), 255 where none is."""
    good = torch.where(near >= 0, wanted[near.clamp(min=0)], False)
    first = good.to(torch.int8).argmax(1, keepdim=True)
    source = near.gather(1, first)[:, 0].clamp(min=0)
    return torch.where(good.any(1), labels[source], IGNORE)


def _entropy(probability: Tensor) -> Tensor:
    return -(probability * probability.clamp(min=1e-12).log()).sum(1)
