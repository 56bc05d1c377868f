"""DKD: D. Baek et al., "Decomposed Knowledge Distillation for Class-Incremental Semantic Segmentation",
NeurIPS 2022.

Loss: binary cross-entropy of the new channels + old_weight * distillation of the old classes' sigmoids +
positive_weight and negative_weight * the same of their positive and negative reasoning, the sums over
features with positive and with negative classifier weights (features are >= 0 behind their ReLU) +
background_weight * binary cross-entropy of the background channel on detached features, which is the authors'
auxiliary classifier: the next step's outputs start from it. Batch norm statistics are frozen; step 0 is
trained with sigmoids too.

Deviations: the authors weight positives twice at step 0 (on VOC); here all methods on sigmoids share step 0.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from scannet_css.methods.binary import BinaryMethod
from scannet_css.methods.losses import IGNORE, binary_distillation
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import option


@dataclass
class DKD(BinaryMethod):
    name = "dkd"
    head_start = "copy"
    freezes_norms = True
    old_weight: float = option(5.0, "weight of the distillation of old classes", least=0)
    positive_weight: float = option(5.0, "weight of the distillation of positive reasoning", least=0)
    negative_weight: float = option(5.0, "weight of the distillation of negative reasoning", least=0)
    background_weight: float = option(1.0, "weight of background's own classifier", least=0)

    def classification(self, step, batch, new, old):
        channels = range(step.old_channels, step.channels)
        return sum(one_channel(new.logits[:, c], batch.labels, c) for c in channels)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        old_classes = slice(1, step.old_channels)
        mine, theirs = step.network.final, step.teacher.final
        detached = new.features.detach().float() @ mine.kernel[:, 0] + mine.bias[0, 0]
        terms["background"] = self.background_weight * one_channel(detached, batch.labels, 0)
        terms["old"] = self.old_weight * binary_distillation(
            new.logits[:, old_classes], old.logits[:, old_classes]
        )
        for name, weight, part in (
            ("positive", self.positive_weight, {"min": 0}),
            ("negative", self.negative_weight, {"max": 0}),
        ):
            reasons = (
                output.features.float() @ classifier.kernel[:, old_classes].clamp(**part)
                for output, classifier in ((new, mine), (old, theirs))
            )
            terms[name] = weight * binary_distillation(*reasons)
        return terms


def one_channel(logits, labels, channel):
    """Binary cross-entropy of one channel's logits (N,), mean over labelled voxels."""
    is_known = labels != IGNORE
    target = (labels == channel).float()
    per_voxel = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return mean_over(ordered_sum(per_voxel * is_known), is_known.sum())
