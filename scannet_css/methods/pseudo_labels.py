"""Pseudo-labels: how sure a teacher is, and from where on it is believed (Douillard et al., PLOP, CVPR
2021)."""

import math

import torch
from torch import Tensor

from scannet_css.methods.losses import IGNORE

BINS = 4096


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
