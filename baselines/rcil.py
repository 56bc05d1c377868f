"""RCIL: C.-B. Zhang et al., "Representation Compensation Networks for Continual Semantic Segmentation", CVPR
2022.

Loss: MiB (baselines/mib.py) with distillation weight 100 + pooled cube distillation. Every 3^3 convolution of
the residual blocks gets a frozen branch beside the trained one (scannet_css/network/branches.py), and after
each step both become one convolution again, so later steps and users see a plain network.

*Pooled cubes.* Squared features of each decoder level (`feature_weight`) and the logits, new channels summed
onto background (`logit_weight`), are averaged over cubes of several sides and, apart, over 3 neighbouring
channels; student and teacher are compared by the L2 distance of each scene, averaged over the scenes, times
sqrt(C / new classes), and averaged over the levels.

Deviations: the windows of 4 to 24 pixels with stride 1 become cubes of 4, 8, ..., 24 voxels of the level side
by side, and cubes without voxels are left out. Branches are mixed in the blocks; stem, strided and transposed
convolutions have no counterpart in 2D and one branch.
"""

import math
from dataclasses import dataclass

from baselines.mib import MiB, UnbiasedMethod
from scannet_css.methods.method import Method, option
from scannet_css.methods.pooling import new_on_background, pooled_cubes
from scannet_css.network.branches import add_branches, merge_branches


@dataclass
class CompensatedMethod(Method):
    """The branches and the pooled cubes."""

    feature_weight: float = option(0.01, "weight of pooled cubes on the decoder levels", least=0)
    logit_weight: float = option(0.0005, "weight of pooled cubes on the logits", least=0)

    def adapt(self, step):
        add_branches(step.network)

    def end(self, step):
        if step.index:
            merge_branches(step.network)
        super().end(step)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        growth = math.sqrt(step.channels / (step.channels - step.old_channels))
        levels = [
            pooled_cubes(mine.features, theirs.features, mine.coordinates, mine.stride)
            for mine, theirs in zip(new.levels, old.levels, strict=True)
        ]
        logits = new_on_background(new.logits, step.old_channels)
        on_logits = pooled_cubes(logits, old.logits, batch.coordinates, stride=1)
        weighted = self.feature_weight * sum(levels) + self.logit_weight * on_logits
        terms["cubes"] = growth * weighted / (len(levels) + 1)
        return terms


@dataclass
class RCIL(CompensatedMethod, MiB, UnbiasedMethod):
    name = "rcil"
    weight: float = option(100.0, "weight of the distillation", least=0)
