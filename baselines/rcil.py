"""RCIL: C.-B. Zhang et al., "Representation Compensation Networks for Continual Semantic Segmentation", CVPR
2022.

Loss: MiB (baselines/mib.py) with distillation weight 100 + pooled cube distillation. Every 3^3 convolution of
the residual blocks gets a frozen branch beside the trained one (scannet_css/network/branches.py), and after
each step both become one convolution again, so later steps and users see a plain network.

*Pooled cubes.* Squared features of each decoder level (`feature_weight`) and the logits, new channels
summed onto background (`logit_weight`), are averaged over windows of 4, 8, ..., 24 cells; student and
teacher are compared by the L2 distance of each scene, averaged over the six sides, the scenes and the maps.
A second sum compares the levels, averaged over 3 neighbouring channels, in the same way; there, as
published, the logits are left out and the finest level takes `logit_weight`. Both times sqrt(C / new
classes).

Against the original: both sums exact to 1e-9 on images (golden file). In 3D the sliding windows become
cubes of voxels side by side, those without voxels left out. Branches are mixed in the residual blocks;
stem, strided and transposed convolutions have no counterpart in 2D and one branch."""

import math
from dataclasses import dataclass

from baselines.mib import MiB, UnbiasedMethod
from scannet_css.methods.method import Method, option
from scannet_css.methods.pooling import new_on_background, pooled_channels, pooled_cubes
from scannet_css.network.branches import add_branches, merge_branches


@dataclass
class CompensatedMethod(Method):
    """The branches and the pooled cubes."""

    feature_weight: float = option(0.01, "weight of pooled cubes on the decoder levels", least=0)
    logit_weight: float = option(
        0.0005, "weight of pooled cubes on the logits, and of the finest level's channels", least=0
    )

    def adapt(self, step):
        add_branches(step.network)

    def end(self, step):
        if step.index:
            merge_branches(step.network)
        super().end(step)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        growth = math.sqrt(step.channels / (step.channels - step.old_channels))
        pairs = [*zip(new.levels, old.levels, strict=True)]
        cubes = [
            pooled_cubes(mine.features, theirs.features, mine.coordinates, mine.stride)
            for mine, theirs in pairs
        ]
        logits = new_on_background(new.logits, step.old_channels)
        on_logits = pooled_cubes(logits, old.logits, batch.coordinates, stride=1)
        *coarse, finest = [
            pooled_channels(mine.features, theirs.features, mine.coordinates) for mine, theirs in pairs
        ]
        cubes_weighted = self.feature_weight * sum(cubes) + self.logit_weight * on_logits
        channels_weighted = self.feature_weight * sum(coarse) + self.logit_weight * finest
        terms["cubes"] = growth * cubes_weighted / (len(pairs) + 1)
        terms["channels"] = growth * channels_weighted / len(pairs)
        return terms


@dataclass
class RCIL(CompensatedMethod, MiB, UnbiasedMethod):
    name = "rcil"
    weight: float = option(100.0, "weight of the distillation", least=0)
