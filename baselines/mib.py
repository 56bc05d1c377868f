"""MiB: F. Cermelli et al., "Modeling the Background for Incremental Learning in Semantic Segmentation", CVPR
2020, equations 5 to 10.

Loss: cross-entropy in which background stands for background and all old classes + weight * distillation in
which it stands for background and all new classes; new outputs start from background and leave the old
classes' probabilities as they are. Deviations: none in the loss; points are voxels.
"""

from dataclasses import dataclass

from scannet_css.methods.losses import unbiased_cross_entropy, unbiased_distillation
from scannet_css.methods.method import Method, option


@dataclass
class UnbiasedMethod(Method):
    """The first of the two terms."""

    def classification(self, step, batch, new, old):
        return unbiased_cross_entropy(new.logits, batch.labels, step.old_channels)


@dataclass
class MiB(UnbiasedMethod):
    name = "mib"
    weight: float = option(10.0, "weight of the distillation", least=0)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        terms["mib"] = self.weight * unbiased_distillation(new.logits, old.logits)
        return terms
