"""BARM: A. Zhang and G. Gao, "Background Adaptation with Residual Modeling for Exemplar-Free
Class-Incremental Semantic Segmentation", ECCV 2024.

Every step adds a branch, features of its own, and on it a head of its classes and of a residual: background
is head 0's plus all residuals where these are negative. Loss: SSUL's binary cross-entropy on pseudo-labels
(sigmoid at least `confidence`), old classes without gradient + `background_weight` * binary cross-entropy of
the new residual, target 0, at voxels of new classes + `triplet_weight` * mean over background of max(0, (1 -
s)^2 - s^2), s the sigmoid of the new
residual + `feature_weight` * mean squared difference of earlier branches of
student and teacher at background + `old_weight` * binary cross-entropy of the earlier heads against the
teacher's. Batch norm statistics are frozen; step 0 is trained with binary cross-entropy.

Against the original: logits and terms exact to 1e-9. Different: branch 0 is the
network's own features instead of a convolution on them, and the branch of a step, a 3^3 sparse convolution
with batch norm and ReLU, starts as what gives these, as theirs starts as the first one's copy; one learning
rate, where theirs is a tenth in the backbone; a mean over background is over labelled voxels. The network
grows with every step. On points only.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.ssul import confident_labels
from scannet_css.methods.binary import BinaryMethod
from scannet_css.methods.losses import IGNORE, binary_cross_entropy, binary_distillation, wide
from scannet_css.methods.means import mean_over
from scannet_css.methods.method import LossTerms, option
from scannet_css.network.branched_head import joined


@dataclass
class BARM(BinaryMethod):
    name = "barm"
    head_start = "branch"
    freezes_norms = True
    confidence: float = option(0.7, "least sigmoid of a pseudo-label, 0..1", least=0, most=1)
    background_weight: float = option(1.0, "weight of the residual at new classes", least=0)
    triplet_weight: float = option(5.0, "weight of the triplet at background", least=0)
    feature_weight: float = option(4.0, "weight of the distance of earlier branches", least=0)
    old_weight: float = option(1.0, "weight of the distillation of earlier heads", least=0)

    def loss(self, step, batch, new, old):
        raw, branches = step.network.final.parts(new.extra)
        if step.index == 1:  # the teacher has no branch yet
            old_raw, old_branches = [old.logits], []
        else:
            old_raw, old_branches = step.teacher.final.parts(old.extra)
        raw = [wide(each) for each in raw]
        logits = joined(raw, training=True)
        labels = confident_labels(batch.labels, old.logits, self.confidence)
        terms = LossTerms()
        terms["ce"] = binary_cross_entropy(without_old_classes(logits, step.old_channels), labels)
        terms["background"] = self.background_weight * residual_at_new(raw[-1][:, 0], batch.labels)
        terms["triplet"] = self.triplet_weight * triplet(raw[-1][:, 0], batch.labels)
        shared = [new.features, *branches[: len(old_branches)]], [old.features, *old_branches]
        terms["features"] = self.feature_weight * kept_background(*shared, batch.labels)
        terms["old"] = self.old_weight * sum(
            binary_distillation(mine, theirs) for mine, theirs in zip(raw, old_raw, strict=False)
        )
        return terms


def without_old_classes(logits: Tensor, old_channels: int) -> Tensor:
    """Logits (N, C) whose old classes take no gradient."""
    return torch.cat([logits[:, :1], logits[:, 1:old_channels].detach(), logits[:, old_channels:]], 1)


def residual_at_new(residual: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the residual (N,), target 0, mean over voxels of a class."""
    is_class = (labels != 0) & (labels != IGNORE)
    return mean_over((F.softplus(wide(residual)) * is_class).sum(), is_class.sum())


def triplet(residual: Tensor, labels: Tensor) -> Tensor:
    """max(0, (1 - s)^2 - s^2) of the sigmoid s of logits (N,), mean over background."""
    s, is_background = wide(residual).sigmoid(), labels == 0
    apart = ((1 - s).square() - s.square()).relu()
    return mean_over((apart * is_background).sum(), is_background.sum())


def kept_background(new: list[Tensor], old: list[Tensor], labels: Tensor) -> Tensor:
    """Sum over branches of the mean squared difference of features (N, F), 0 where a label is not 0."""
    is_background = (labels == 0)[:, None]
    return sum(
        mean_over(((wide(mine) - wide(theirs)).square() * is_background).sum(), mine.numel())
        for mine, theirs in zip(new, old, strict=True)
    )
