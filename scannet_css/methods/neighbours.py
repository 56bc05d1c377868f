"""The occupied voxels around each voxel, and geometry- and uncertainty-aware learning on them (Y. Yang et
al., Geometry and Uncertainty-Aware 3D Point Cloud Class-Incremental Semantic Segmentation, CVPR 2023)."""

import math

import torch
from torch import Tensor

from scannet_css.methods.losses import IGNORE
from scannet_css.sparse import SparseTensor
from scannet_css.sparse.coordinates import kernel_offsets

NEIGHBOURS = 12  # of the authors, a point itself among them


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


def around(values: Tensor, near: Tensor, weights: Tensor | None = None) -> Tensor:
    """(N, F): mean of `values` (N, F) over each voxel and its neighbours `near` (N, m), -1 where there is
    none. `weights` (N, 1 + m) that sum to 1, of the voxel and of its neighbours; without, all count
    alike."""
    exists = near >= 0
    voxel, place = exists.nonzero(as_tuple=True)
    if weights is None:
        sums = values.index_add(0, voxel, values[near[exists]])
        return sums / (exists.sum(1) + 1)[:, None]
    theirs = values[near[exists]] * weights[voxel, 1 + place][:, None]
    return (values * weights[:, :1]).index_add(0, voxel, theirs)


def relations(features: Tensor, near: Tensor) -> Tensor:
    """(N, F): mean difference of the features of each voxel's neighbours, itself among them, and its own."""
    return around(features, near) - features


def uncertainty(probability: Tensor, near: Tensor, weights: Tensor | None = None) -> Tensor:
    """GUA's and CFSSeg's uncertainty (N,) of probability (N, K), in their unit: (I + log m - H(w)) / (12 K).

    I, in nats, is the entropy of the mean over a voxel and its neighbours less the mean of their entropies
    (BALD; Houlsby et al., 2011), where each neighbour is another random draw of the network. The authors'
    mean over m = 12 nearest points is divided by 12 and averaged over the K classes once more. Neighbours
    count alike, w = 1 / m, unless `weights` says otherwise (see `around`); here they are as many as there
    are, and 12 is only the unit: a threshold T is 12 K T nats."""
    own = _entropy(probability)
    information = _entropy(around(probability, near, weights)) - around(own[:, None], near, weights)[:, 0]
    information = information.clamp(min=0)
    if weights is not None:
        information = information + math.log(weights.shape[1]) - _entropy(weights)
    return information / (NEIGHBOURS * probability.shape[1])


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
