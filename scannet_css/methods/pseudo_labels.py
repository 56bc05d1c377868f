"""Pseudo-labels of PLOP (Douillard et al., CVPR 2021, section 3.2), which REMINDER and LGKD use too: how
unsure a teacher is, up to where it is believed, and how much of a scene's background that leaves."""

import math

import torch
from torch import Tensor

from scannet_css.methods.losses import IGNORE, wide

MEDIANS = {"published": 100, "true": 4096}  # how a threshold is found, and in how many bins


def uncertainty_and_prediction(logits: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """PLOP's uncertainty (N,) of the teacher's logits (N, K), and its most likely channel (N,) int64.

    u = H(softmax) / (K log K log C): the code averages over the K channels and divides by the logarithm of K,
    then of the student's C = `channels`. So u is at most 1 / (K log C): 0.022 for 15 + 1 classes.
    """
    probability, old_channels = wide(logits).softmax(1), logits.shape[1]
    entropy = -(probability * (probability + 1e-8).log()).mean(1) / math.log(old_channels + 1e-8)
    return entropy / math.log(channels), probability.argmax(1)


def largest_uncertainty(old_channels: int, channels: int, median: str) -> float:
    """The upper end of the histograms: 1, or with true medians the largest value that u can have."""
    return 1.0 if median == "published" else 1 / (old_channels * math.log(channels))


def thresholds_of_histograms(counts: Tensor, median: str, largest: float) -> Tensor:
    """(K, bins) counts of uncertainties over 0..largest -> thresholds (K,) float64, 0 for a class without
    any.

    "true": the upper edge of the bin that holds the median, so that at least half of the class lies below.
    "published": what the code of PLOP, LGKD and REMINDER gives; see published_median.
    """
    if median == "published":
        return torch.tensor([published_median(row) for row in counts.tolist()], dtype=torch.float64)
    cumulated = counts.cumsum(1)
    total = cumulated[:, -1:]
    below = (cumulated * 2 < total).sum(1)
    edges = (below + 1).double() * largest / counts.shape[1]
    return torch.where(total[:, 0] > 0, edges, 0.0)


def published_median(counts: list[int]) -> float:
    """The published search for the median of a histogram over 0..1: it adds up the bins' numbers instead of
    their counts.

    Right if half of the mass lies in the first bin. Else mostly no bin is found, and the division by the
    last one's count, 0, gives +inf for more than 9,900 values in 100 bins (every pseudo-label is kept), -inf
    for fewer. The bin is looked up by its lower edge, which rounding makes the bin before at three edges.
    """
    bins, half, running = len(counts), sum(counts) / 2, 0.0
    if half == 0:
        return 0.0
    lower, place = 0.0, 0
    for number in range(bins):
        lower = number / bins
        place = math.floor(lower * bins)
        if running <= half <= running + counts[place]:
            break
        running += lower * bins
    return lower + _divided(half - running, counts[place]) / bins


def _divided(value: float, count: int) -> float:
    """As floating-point numbers are divided, by 0 too."""
    if count:
        return value / count
    return math.copysign(math.inf, value) if value else math.nan


def adaptive_factor(shown: Tensor, labels: Tensor, scene: Tensor, scenes: int) -> Tensor:
    """(B,) float64: share of each scene's background voxels (shown == 0) that kept a label; 0 for a scene
    without any, which is then not learnt from at all, as published."""
    background = torch.bincount(scene[shown == 0], minlength=scenes)
    kept = torch.bincount(scene[(shown == 0) & (labels != IGNORE)], minlength=scenes)
    return kept / (background.double() + 1e-6)
