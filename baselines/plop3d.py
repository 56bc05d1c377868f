"""PLOP on sparse voxels: A. Douillard et al., "PLOP: Learning without Forgetting for Continual Semantic
Segmentation", CVPR 2021, carried from images to 3D.

Loss: cross-entropy on pseudo-labels (baselines/pseudo.py) times an adaptive factor + local POD; new outputs
start from background.

*Adaptive factor.* Each scene's cross-entropy is multiplied by the share of its background voxels that kept a
label; 1 for a scene without background voxels.

*Local POD.* Features are squared. For scales s in 1, 2, 4 a scene's bounding box is cut into s^3 windows;
in each window, for each of the three axes, the voxels are mean-pooled over the two other axes: one profile
per axis, with one cell per position along it at the resolution of the level's voxels. Cells without voxels
are left out; teacher and student have the same ones since they see the same voxels. All cells of a scene
and level are concatenated and compared by the L2 distance, averaged over the scenes, times sqrt(C / new
classes), and averaged over the levels: every decoder level with `feature_weight`, and the logits (new
channels summed onto background) with `logit_weight`. In 2D the windows are pooled along width and height,
two profiles instead of three.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F

from baselines.pseudo import Pseudo
from scannet_css.methods.losses import IGNORE
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import option
from scannet_css.methods.pooling import local_pod, new_on_background
from scannet_css.methods.pseudo_labels import adaptive_factor


@dataclass
class PLOP3D(Pseudo):
    name = "plop3d"
    feature_weight: float = option(0.01, "weight of local POD on the decoder levels", least=0)
    logit_weight: float = option(0.0005, "weight of local POD on the logits", least=0)

    def classification(self, step, batch, new, old):
        labels = self.pseudo_labels(batch.labels, old.logits)
        scene = batch.coordinates[:, 0].long()
        factor = adaptive_factor(batch.labels, labels, scene, len(batch.names))
        per_voxel = F.cross_entropy(new.logits.float(), labels, ignore_index=IGNORE, reduction="none")
        return mean_over(ordered_sum(per_voxel * factor[scene]), (labels != IGNORE).sum())

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        growth = math.sqrt(step.channels / (step.channels - step.old_channels))
        levels = [
            local_pod(new_level.features, old_level.features, new_level.coordinates, new_level.stride)
            for new_level, old_level in zip(new.levels, old.levels, strict=True)
        ]
        logits = local_pod(
            new_on_background(new.logits, step.old_channels), old.logits, batch.coordinates, stride=1
        )
        weighted = self.feature_weight * sum(levels) + self.logit_weight * logits
        terms["pod"] = growth * weighted / (len(levels) + 1)
        return terms
