"""PLOP on sparse voxels: A. Douillard et al., "PLOP: Learning without Forgetting for Continual Semantic
Segmentation", CVPR 2021, carried from images to 3D.

Loss: cross-entropy on pseudo-labels times an adaptive factor + local POD; new outputs start from background.

*Pseudo-labels.* Where a step shows background, the teacher's most likely channel is taken if its entropy
(normalised by log K, 0..1) is at most the threshold of that channel, else the voxel is ignored. The
threshold is the median entropy over the background voxels of the step's scenes that the teacher gives to
that channel, at least
`smallest_threshold`. Deviation: the published code adds up histogram bins' numbers instead of their counts
when it looks for the median; this takes the true median (to 1/4096). It also divides the entropy by log K
and log C once more, which scales thresholds and entropies alike and changes nothing but the floor.

*Adaptive factor.* Each scene's cross-entropy is multiplied by the share of its background voxels that kept a
label; 1 for a scene without background voxels.

*Local POD.* Features are squared. For scales s in 1, 2, 4 a scene's bounding box is cut into s^3 windows;
in each window, for each of the three axes, the voxels are mean-pooled over the two other axes: one profile
per axis, with one cell per position along it at the resolution of the level's voxels. Cells without voxels
are left out; teacher and student have the same ones since they see the same voxels. All cells of a scene
and level are concatenated and compared by the L2 distance, averaged over the scenes, times sqrt(C / new
classes), and averaged over the levels: every decoder level with `feature_weight`, and the logits (new
channels summed onto background) with `logit_weight`. In 2D the windows are pooled along width and height,
two profiles instead of three.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.learning.losses import IGNORE
from scannet_css.learning.means import mean_over
from scannet_css.learning.method import Method, Step, option
from scannet_css.scenes.loader import Batch
from scannet_css.sparse import SparseTensor

SCALES = (1, 2, 4)  # each twice the one before, so that its windows are halves of that one's
FINEST = SCALES[-1]
BINS = 4096


@dataclass
class PLOP3D(Method):
    name = "plop3d"
    feature_weight: float = option(0.01, "weight of local POD on the decoder levels")
    logit_weight: float = option(0.0005, "weight of local POD on the logits")
    smallest_threshold: float = option(0.001, "least entropy threshold of a pseudo-label, 0..1")

    def begin(self, step):
        super().begin(step)
        if step.index:
            self.state["thresholds"] = self._median_entropies(step).clamp(min=self.smallest_threshold)

    def classification(self, step, batch, new, old):
        labels = self.pseudo_labels(batch.labels, old.logits)
        scene = batch.coordinates[:, 0].long()
        factor = adaptive_factor(batch.labels, labels, scene, len(batch.names))
        per_voxel = F.cross_entropy(new.logits.float(), labels, ignore_index=IGNORE, reduction="none")
        return mean_over((per_voxel * factor[scene]).sum(), (labels != IGNORE).sum())

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        growth = math.sqrt(step.channels / (step.channels - step.old_channels))
        levels = [
            local_pod(new_level.features, old_level.features, new_level.coordinates, new_level.stride)
            for new_level, old_level in zip(new.levels, old.levels, strict=True)
        ]
        logits = local_pod(
            new_on_background(new.logits, step.old_channels), old.logits, batch.coordinates, stride=1
        )
        weighted = self.feature_weight * sum(levels) + self.logit_weight * logits
        terms["pod"] = growth * weighted / (len(levels) + 1)
        return terms

    def pseudo_labels(self, labels: Tensor, old_logits: Tensor) -> Tensor:
        """Labels (N,) with the teacher's confident classes in the place of background, 255 where it is
        unsure."""
        entropy, predicted = entropy_and_prediction(old_logits)
        confident = entropy <= self.state["thresholds"].to(entropy.device)[predicted]
        return torch.where(labels == 0, torch.where(confident, predicted, IGNORE), labels)

    def _median_entropies(self, step: Step) -> Tensor:
        """(K,) the upper edge of the bin that holds the median entropy of the voxels predicted as each
        channel."""

        def histogram(batch: Batch) -> dict[str, Tensor]:
            logits = step.old_output(SparseTensor(batch.features, batch.coordinates)).logits
            entropy, predicted = entropy_and_prediction(logits[batch.labels == 0])
            bins = (entropy * BINS).long().clamp(0, BINS - 1)
            counts = torch.bincount(predicted * BINS + bins, minlength=step.old_channels * BINS)
            return {"counts": counts.view(step.old_channels, BINS)}

        return medians_of_histograms(step.add_up("thresholds", histogram)["counts"])


def entropy_and_prediction(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy of softmax(logits) over log K, 0..1 (N,) float32, and the most likely channel (N,) int64."""
    log_probability = logits.float().log_softmax(1)
    entropy = -(log_probability.exp() * log_probability).sum(1) / math.log(max(logits.shape[1], 2))
    return entropy, log_probability.argmax(1)


def medians_of_histograms(counts: Tensor) -> Tensor:
    """(K, bins) counts over 0..1 -> (K,) float32: upper edge of the median's bin; 1 where there is no
    count."""
    cumulated = counts.cumsum(1)
    total = cumulated[:, -1:]
    below = (cumulated * 2 < total).sum(1)
    return torch.where(total[:, 0] > 0, (below + 1) / counts.shape[1], 1.0).float()


def adaptive_factor(shown: Tensor, labels: Tensor, scene: Tensor, scenes: int) -> Tensor:
    """(B,) share of each scene's background voxels (shown == 0) that kept a label; 1 without such voxels."""
    background = torch.bincount(scene[shown == 0], minlength=scenes)
    kept = torch.bincount(scene[(shown == 0) & (labels != IGNORE)], minlength=scenes)
    return torch.where(background > 0, kept / background.clamp(min=1), 1.0)


def new_on_background(logits: Tensor, old_channels: int) -> Tensor:
    """(N, C) -> (N, K): the logits of the new channels are added to background's."""
    background = logits[:, :1] + logits[:, old_channels:].sum(1, keepdim=True)
    return torch.cat([background, logits[:, 1:old_channels]], 1)


def local_pod(new: Tensor, old: Tensor, coordinates: Tensor, stride: int) -> Tensor:
    """L2 distance of the pooled profiles of squared features, mean over scenes.

    new, old (M, F): features of the same voxels; coordinates (M, 4) integer: scene and position in finest
    voxels.
    """
    scene = coordinates[:, 0].long()
    position = torch.div(coordinates[:, 1:].long(), stride, rounding_mode="floor")
    scenes = int(scene.max()) + 1
    every_scene = scene[:, None].expand(-1, 3)
    low = torch.zeros(scenes, 3, dtype=torch.long, device=scene.device)
    high = low.scatter_reduce(0, every_scene, position, "amax", include_self=False)
    low = low.scatter_reduce(0, every_scene, position, "amin", include_self=False)
    position, extent = position - low[scene], (high - low)[scene] + 1
    part = (position * FINEST).div(extent, rounding_mode="floor")

    # Pooling is linear, so the difference of the squares is pooled once instead of both.
    difference = new.float().square() - old.float().square()
    ones = difference.new_ones(len(difference))
    squared_distance = difference.new_zeros(scenes)
    for axis, length in enumerate((high - low + 1).amax(0).tolist()):
        # A position along the axis lies in one window only, so the cells are few enough to number them all.
        first, second = (part[:, other] for other in range(3) if other != axis)
        cell = ((scene * FINEST + first) * FINEST + second) * length + position[:, axis]
        shape = (scenes, FINEST, FINEST, length, -1)
        nothing = difference.new_zeros(scenes * FINEST**2 * length, difference.shape[1])
        sums = nothing.index_add(0, cell, difference).view(shape)
        counts = nothing[:, 0].index_add(0, cell, ones).view(shape)
        for scale in reversed(SCALES):
            if scale < FINEST:
                sums, counts = merge_windows(sums), merge_windows(counts)
            means = sums / counts.clamp(min=1)
            squared_distance = squared_distance + means.square().sum((1, 2, 3, 4))
    return mean_over(root(squared_distance).sum(), scenes)


def merge_windows(cells: Tensor) -> Tensor:
    """(B, 2s, 2s, L, F) -> (B, s, s, L, F): the sums of windows that are one at the next scale."""
    scenes, windows, _, length, width = cells.shape
    return cells.view(scenes, windows // 2, 2, windows // 2, 2, length, width).sum((2, 4))


def root(values: Tensor) -> Tensor:
    """Square root with gradient 0, not infinity, at 0: student and teacher are equal there."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)
