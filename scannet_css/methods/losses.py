"""The losses of continual segmentation as pure functions of logits (N, C) and labels (N,).

Channel 0 is background, label 255 is ignored, K is the number of the teacher's channels and C >= K the
student's. Everything is computed in float32 (float64 stays) also under autocast, returns a scalar, and is
zero with a zero gradient when there is nothing to average over. No function carries a method's outer weight.
All averages are `mean_over`, so that they hold for batches in parts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.classes import IGNORE
from scannet_css.methods.means import mean_over, ordered_sum


def wide(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 stay."""
    return values if values.dtype == torch.float64 else values.float()


def _mean_over_labelled(per_point: Tensor, labels: Tensor) -> Tensor:
    labelled = labels != IGNORE
    return mean_over(ordered_sum(per_point * labelled), labelled.sum())


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, mean over labelled points. logits (N, C), labels (N,) int64 in [0, C) or 255."""
    per_point = F.cross_entropy(wide(logits), labels, ignore_index=IGNORE, reduction="none")
    return _mean_over_labelled(per_point, labels)


def cross_entropy_of_answers(logits: Tensor, labels: Tensor, has_background: bool) -> Tensor:
    """Cross-entropy over the channels that are answers: all, or all but background, whose row is then not
    trained; labels (N,) in these or 255."""
    if has_background:
        return cross_entropy(logits, labels)
    return cross_entropy(logits[:, 1:], torch.where(labels == IGNORE, IGNORE, labels - 1))


def unbiased_cross_entropy(logits: Tensor, labels: Tensor, old_channels: int) -> Tensor:
    """MiB's unbiased cross-entropy (Cermelli et al., CVPR 2020, section 3.2), mean over labelled points.

    -log p~(y) with p~(0) = sum of p(c) over the `old_channels` = K channels (background and old classes) and
    p~(n) = p(n) for new classes n; a label below K counts as background. logits (N, C), labels (N,).
    """
    logits = wide(logits)
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
    target = (wide(old_logits) / temperature).softmax(1)
    log_probability = (wide(new_logits)[:, :channels] / temperature).log_softmax(1)
    return mean_over(-ordered_sum(target * log_probability) * temperature**2, target.numel())


def unbiased_distillation(new_logits: Tensor, old_logits: Tensor) -> Tensor:
    """MiB's unbiased distillation (Cermelli et al., CVPR 2020), mean over all points and the K channels.

    -1/K sum over c < K of p'(c) log q(c) with q(0) = p(0) + sum of p(n) over new classes, q(c) = p(c): the
    student's new channels count as background before it is compared with the teacher p'.
    """
    channels = old_logits.shape[1]
    new_logits = wide(new_logits)
    log_normaliser = new_logits.logsumexp(1, keepdim=True)
    with_background = torch.cat([new_logits[:, :1], new_logits[:, channels:]], 1).logsumexp(1, keepdim=True)
    log_probability = torch.cat([with_background, new_logits[:, 1:channels]], 1) - log_normaliser
    target = wide(old_logits).softmax(1)
    return mean_over(-ordered_sum(target * log_probability), target.numel())


TARGETS = ("transplant", "expand", "one-hot")


def label_guided_distillation(
    new_logits: Tensor,
    old_logits: Tensor,
    labels: Tensor,
    background_weight: float,
    novel_weight: float,
    target: str = "transplant",
) -> Tensor:
    """Label-guided distillation (LGKD; Yang et al., ICCV 2023), mean over labelled points.

    -w sum over all C channels of t(c) log p(c). t is the teacher's distribution, expanded with zeros to the
    student's channels; at a point labelled with a new class y >= K its background probability is transplanted
    to y, elsewhere (background or an old class) it stays. w is `novel_weight` at the former points and
    `background_weight` at the latter. new_logits (N, C), old_logits (N, K), labels (N,): the ground truth
    that the step shows, never pseudo-labels. For the paper's ablation `target` at points of new classes can
    be "expand", where nothing is transplanted, or "one-hot", the label alone.
    """
    channels = old_logits.shape[1]
    log_probability = wide(new_logits).log_softmax(1)
    is_new = (labels >= channels) & (labels != IGNORE)
    goal = label_guided_target(old_logits, labels, new_logits.shape[1], target)
    weight = torch.where(is_new, float(novel_weight), float(background_weight)).to(goal.dtype)
    return _mean_over_labelled(-weight * (goal * log_probability).sum(1), labels)


def label_guided_target(old_logits: Tensor, labels: Tensor, channels: int, target: str) -> Tensor:
    """(N, C) what the student is led to; see label_guided_distillation."""
    old = wide(old_logits).softmax(1)
    is_new = (labels >= old.shape[1]) & (labels != IGNORE)
    goal = F.pad(old, (0, channels - old.shape[1]))
    label = torch.where(is_new, labels, 0)[:, None]
    if target == "transplant":
        background = goal[:, :1].clone()
        goal[:, :1] = 0
        return goal.scatter_add_(1, label, background)
    if target == "one-hot":
        return torch.where(is_new[:, None], torch.zeros_like(goal).scatter_(1, label, 1.0), goal)
    return goal


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of every channel against the one-hot label, summed over the C channels, mean over
    labelled points (iCaRL; Rebuffi et al., CVPR 2017, on points). logits (N, C), labels (N,)."""
    return _mean_over_labelled(binary_cross_entropies(logits, labels), labels)


def binary_cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """The same of each point (N,), 0 where the label is 255."""
    logits = wide(logits)
    target = F.one_hot(torch.where(labels == IGNORE, 0, labels), logits.shape[1]).to(logits.dtype)
    per_point = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    return per_point * (labels != IGNORE)


def binary_distillation(new_logits: Tensor, old_logits: Tensor) -> Tensor:
    """Binary cross-entropy of the student's sigmoids (N, K) against the teacher's (N, K), summed over the
    channels, mean over all points."""
    target = wide(old_logits).sigmoid()
    summed = F.binary_cross_entropy_with_logits(wide(new_logits), target, reduction="sum")
    return mean_over(summed, len(new_logits))


def cross_entropy_of_shown(logits: Tensor, labels: Tensor, shown: Tensor) -> Tensor:
    """Unbiased cross-entropy where scenes show different classes, mean over labelled points.

    -log p(y), but where the label is 0, -log of the sum of p over background and every class that is not
    `shown` (N, C) bool there, which may all stand under it. For a step's own scenes, which show the new
    classes, this is MiB's; for a memory that shows all old classes it is MiB-AugM's other half (arXiv
    2405.09858). logits (N, C), labels (N,).
    """
    logits = wide(logits)
    log_normaliser = logits.logsumexp(1)
    hidden = ~shown
    hidden[:, 0] = True
    log_hidden = torch.where(hidden, logits, -torch.inf).logsumexp(1)
    is_shown = (labels != 0) & (labels != IGNORE)
    log_label = logits.gather(1, torch.where(is_shown, labels, 0)[:, None]).squeeze(1)
    return _mean_over_labelled(log_normaliser - torch.where(is_shown, log_label, log_hidden), labels)
