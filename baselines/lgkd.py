"""LGKD: Z. Yang et al., "Label-Guided Knowledge Distillation for Continual Semantic Segmentation on 2D Images
and 3D Point Clouds", ICCV 2023.

Loss: cross-entropy on the step's labels + weight * label-guided distillation: the teacher's distribution is
expanded to the student's channels, and where the label is a new class the teacher's background probability is
transplanted to that class. New outputs start from background (MiB's balanced initialisation).

Deviations: the original computes the term on logits at 1/16 of the resolution with labels downsampled to
it, here every voxel counts. The paper's weights for ScanNet were never published; the defaults are those of
its 2D code for VOC 15-5 (the first is also the choice of its ablation). Alone (`lgkd`) it stands on plain
cross-entropy; `lgkd+plop3d` adds it to PLOP as the original code does.
"""

from dataclasses import dataclass

from baselines.plop3d import PLOP3D
from scannet_css.learning.losses import label_guided_distillation
from scannet_css.learning.method import Method, option


@dataclass
class LGKD(Method):
    name = "lgkd"
    lgkd_weight: float = option(1.0, "weight of the whole label-guided term")
    background_weight: float = option(5.0, "its weight at background and old-class voxels")
    novel_weight: float = option(1.0, "its weight at voxels of the step's classes")

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        terms["lgkd"] = self.lgkd_weight * label_guided_distillation(
            new.logits, old.logits, batch.labels, self.background_weight, self.novel_weight
        )
        return terms


@dataclass
class LGKDPLOP3D(LGKD, PLOP3D):
    name = "lgkd+plop3d"
