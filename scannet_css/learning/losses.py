"""The losses of continual segmentation as pure functions of logits (N, C) and labels (N,).

Channel 0 is background, label 255 is ignored, K is the number of the teacher's channels and C >= K the
student's. Everything is computed in float32 (float64 stays) also under autocast, returns a scalar, and is
zero with a zero gradient when there is nothing to average over. No function carries a method's outer weight.
All averages are `mean_over`, so that they hold for batches in parts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.learning.means import mean_over

IGNORE = 255


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _mean_over_labelled(per_point: Tensor, labels: Tensor) -> Tensor:
    labelled = labels != IGNORE
    return mean_over((per_point * labelled).sum(), labelled.sum())


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, mean over labelled points. logits (N, C), labels (N,) int64 in [0, C) or 255."""
    per_point = F.cross_entropy(_wide(logits), labels, ignore_index=IGNORE, reduction="none")
    return _mean_over_labelled(per_point, labels)


def unbiased_cross_entropy(logits: Tensor, labels: Tensor, old_channels: int) -> Tensor:
    """MiB's unbiased cross-entropy (Cermelli et al., CVPR 2020, section 3.2), mean over labelled points.

    -log p~(y) with p~(0) = sum of p(c) over the `old_channels` = K channels (background and old classes) and
    p~(n) = p(n) for new classes n; a label below K counts as background. logits (N, C), labels (N,).
    """
    logits = _wide(logits)
    log_normaliser = logits.logsumexp(1)
    log_background = logits[:, :old_channels].logsumexp(1) - log_normaliser
    is_new = (labels >= old_channels) & (labels != IGNORE)
    target = torch.where(is_new, labels, 0)
    log_target = logits.gather(1, target[:, None]).squeeze(1) - log_normaliser
    return _mean_over_labelled(-torch.where(is_new, log_target, log_background), labels)


def distillation(new_logits: Tensor, old_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Plain distillation (LwF; Li and Hoiem, 2016): cross-entropy of softened outputs over the old channels.

    The student's logits (N, C) are cut to the teacher's K channels (N, K) before the softmax. Mean over all
    points and over the K channels, times temperature squared (Hinton et al., 2015) so that gradients keep
    their scale.
    """
    channels = old_logits.shape[1]
    target = (_wide(old_logits) / temperature).softmax(1)
    log_probability = (_wide(new_logits)[:, :channels] / temperature).log_softmax(1)
    return mean_over(-(target * log_probability).sum() * temperature**2, target.numel())


def unbiased_distillation(new_logits: Tensor, old_logits: Tensor) -> Tensor:
    """MiB's unbiased distillation (Cermelli et al., CVPR 2020), mean over all points and the K channels.

    -1/K sum over c < K of p'(c) log q(c) with q(0) = p(0) + sum of p(n) over new classes, q(c) = p(c): the
    student's new channels count as background before it is compared with the teacher p'.
    """
    channels = old_logits.shape[1]
    new_logits = _wide(new_logits)
    log_normaliser = new_logits.logsumexp(1, keepdim=True)
    with_background = torch.cat([new_logits[:, :1], new_logits[:, channels:]], 1).logsumexp(1, keepdim=True)
    log_probability = torch.cat([with_background, new_logits[:, 1:channels]], 1) - log_normaliser
    target = _wide(old_logits).softmax(1)
    return mean_over(-(target * log_probability).sum(), target.numel())


def label_guided_distillation(
    new_logits: Tensor, old_logits: Tensor, labels: Tensor, background_weight: float, novel_weight: float
) -> Tensor:
    """Label-guided distillation (LGKD; Yang et al., ICCV 2023), mean over labelled points.

    -w sum over all C channels of t(c) log p(c). t is the teacher's distribution, expanded with zeros to the
    student's channels; at a point labelled with a new class y >= K its background probability is transplanted
    to y, elsewhere (background or an old class) it stays. w is `novel_weight` at the former points and
    `background_weight` at the latter. new_logits (N, C), old_logits (N, K), labels (N,): the ground truth
    that the step shows, never pseudo-labels.
    """
    channels = old_logits.shape[1]
    target = _wide(old_logits).softmax(1)
    log_probability = _wide(new_logits).log_softmax(1)
    is_new = (labels >= channels) & (labels != IGNORE)
    home_of_background = torch.where(is_new, labels, 0)
    old_classes = (target[:, 1:] * log_probability[:, 1:channels]).sum(1)
    background = target[:, 0] * log_probability.gather(1, home_of_background[:, None]).squeeze(1)
    weight = torch.where(is_new, float(novel_weight), float(background_weight)).to(target.dtype)
    return _mean_over_labelled(-weight * (old_classes + background), labels)
