"""DKD: D. Baek et al., "Decomposed Knowledge Distillation for Class-Incremental Semantic Segmentation",
NeurIPS 2022.

Loss: binary cross-entropy of the new channels + old_weight * distillation of the old classes' sigmoids +
positive_weight and negative_weight * the same of their positive and negative reasoning, the sums over
features with positive and with negative classifier weights (features are >= 0 behind their ReLU) +
background_weight * binary cross-entropy of channel 0 on detached features against 0 everywhere: the
auxiliary classifier, which learns what "absent" looks like and from which the next step's outputs start.
Step 0: binary cross-entropy of the classes, positives counted twice, + the auxiliary term. All are means
over all voxels, and a voxel without a label is a plain negative. Batch norm statistics are frozen from step
1 on.

The answer is the class of the largest logit, background if no sigmoid exceeds 0.5; channel 0 takes no part.

Against the original: every term, the start of new outputs and the decision exact to 1e-9 (golden file). On
images it takes the auxiliary and the class terms of logits enlarged to the labels' size. Positives count
twice as on VOC (on ADE once); one learning rate for all, where it has ten times the backbone's for the
head."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.methods.losses import binary_distillation, wide
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import LossTerms, Method, option

BASE_POSITIVES = 2.0  # weight of a class's own voxels at step 0


@dataclass
class DKD(Method):
    name = "dkd"
    base = "dkd"
    head_start = "copy"
    freezes_norms = True
    old_weight: float = option(5.0, "weight of the distillation of old classes", least=0)
    positive_weight: float = option(5.0, "weight of the distillation of positive reasoning", least=0)
    negative_weight: float = option(5.0, "weight of the distillation of negative reasoning", least=0)
    background_weight: float = option(1.0, "weight of the auxiliary classifier in later steps", least=0)

    def base_loss(self, step, batch, new):
        classes = binary_of_channels(new.logits, batch.labels, range(1, step.channels), BASE_POSITIVES)
        return LossTerms(ce=classes, background=absent(new.features, step.network.final))

    def classification(self, step, batch, new, old):
        return binary_of_channels(new.logits, batch.labels, range(step.old_channels, step.channels))

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        old_classes = slice(1, step.old_channels)
        mine, theirs = step.network.final, step.teacher.final
        terms["background"] = self.background_weight * absent(new.features, mine)
        terms["old"] = self.old_weight * binary_distillation(
            new.logits[:, old_classes], old.logits[:, old_classes]
        )
        for name, weight, part in (
            ("positive", self.positive_weight, {"min": 0}),
            ("negative", self.negative_weight, {"max": 0}),
        ):
            reasons = (
                wide(output.features) @ classifier.kernel[:, old_classes].clamp(**part)
                for output, classifier in ((new, mine), (old, theirs))
            )
            terms[name] = weight * binary_distillation(*reasons)
        return terms

    def base_predict(self, output):
        return against_one_half(output.logits)

    def predict(self, output):
        return against_one_half(output.logits)


def binary_of_channels(logits: Tensor, labels: Tensor, channels: range, positives: float = 1.0) -> Tensor:
    """Binary cross-entropy of these channels of the logits (N, C), summed over them, mean over all voxels;
    labels (N,), of which 255 is a negative. `positives`: weight of a channel's own voxels."""
    chosen = wide(logits[:, channels.start : channels.stop])
    target = (labels[:, None] == torch.arange(channels.start, channels.stop, device=labels.device)).to(chosen)
    weight = chosen.new_tensor(positives)
    each = F.binary_cross_entropy_with_logits(chosen, target, reduction="none", pos_weight=weight)
    return mean_over(ordered_sum(each), len(labels))


def absent(features: Tensor, classifier: torch.nn.Module) -> Tensor:
    """Binary cross-entropy of channel 0 on the detached features (N, F) against 0, mean over all voxels."""
    logits = wide(features.detach()) @ classifier.kernel[:, 0] + classifier.bias[0, 0]
    return mean_over(ordered_sum(F.softplus(logits)), len(logits))


def against_one_half(logits: Tensor) -> Tensor:
    """(N, C) scores in which background wins where no class's sigmoid exceeds 0.5."""
    return torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:]], 1)
