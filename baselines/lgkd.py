"""LGKD: Z. Yang et al., "Label-Guided Knowledge Distillation for Continual Semantic Segmentation on 2D Images
and 3D Point Clouds", ICCV 2023.

Loss: that of the method it stands on + lgkd_weight * label-guided distillation: the teacher's distribution is
expanded to the student's channels, and where the label is a new class the teacher's background probability is
transplanted to that class. New outputs start from background (MiB's balanced initialisation). `guidance` is
the paper's ablation. Alone (`lgkd`) it stands on plain cross-entropy; on MiB and RCIL it takes the place of
their unbiased distillation; to PLOP it is added, as in the original code, and so to REMINDER. On EWF
(`lgkd+ewf`) it is `lgkd+mib` with the fusion after each step; to STAR (`lgkd+star`) it is added, the softmax
being that of the class logits and of a 0 for background, at which STAR decides.

Deviations: the original computes the term on logits at 1/16 of the resolution with labels downsampled to
it, here every voxel counts. The paper's weights for ScanNet were never published; the defaults are those of
its 2D code for VOC 15-5 (the first is also the choice of its ablation).
"""

from dataclasses import dataclass

from baselines.ewf import FusedMethod
from baselines.mib import UnbiasedMethod
from baselines.plop3d import PLOP3D
from baselines.rcil import CompensatedMethod
from baselines.reminder import Reminder
from baselines.star import STAR
from scannet_css.methods.losses import TARGETS, label_guided_distillation
from scannet_css.methods.method import Method, option


@dataclass
class LGKD(Method):
    name = "lgkd"
    lgkd_weight: float = option(1.0, "weight of the whole label-guided term", least=0)
    background_weight: float = option(5.0, "its weight at background and old-class voxels", least=0)
    novel_weight: float = option(1.0, "its weight at voxels of the step's classes", least=0)
    guidance: str = option(
        "transplant",
        "what it leads to at voxels of the step's classes: transplant, expand (no transplant), one-hot (the"
        " label), or none (no such term)",
        choices=(*TARGETS, "none"),
    )

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        if self.guidance != "none":
            weights = self.background_weight, self.novel_weight
            terms["lgkd"] = self.lgkd_weight * label_guided_distillation(
                new.logits, old.logits, batch.labels, *weights, self.guidance
            )
        return terms


@dataclass
class LGKDMiB(LGKD, UnbiasedMethod):
    name = "lgkd+mib"


@dataclass
class LGKDPLOP3D(LGKD, PLOP3D):
    name = "lgkd+plop3d"


@dataclass
class LGKDReminder(LGKD, Reminder):
    name = "lgkd+reminder"


@dataclass
class LGKDRCIL(LGKD, CompensatedMethod, UnbiasedMethod):
    name = "lgkd+rcil"


@dataclass
class LGKDEWF(LGKD, FusedMethod, UnbiasedMethod):
    name = "lgkd+ewf"


@dataclass
class LGKDSTAR(LGKD, STAR):
    name = "lgkd+star"
