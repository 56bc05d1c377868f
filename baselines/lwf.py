"""LwF: Z. Li and D. Hoiem, "Learning without Forgetting", ECCV 2016 / TPAMI 2018.

Loss: cross-entropy on the step's labels + weight * distillation of the teacher's softmax over its K
channels; the student's logits are cut to these K before the softmax (as in the 2D segmentation code of MiB
and PLOP, where the weight is 100 and the mean goes over points and channels).

`variant` "3dpc-ciss" is that of Y. Yang et al., CVPR 2023 (temperature 2, weight 1): the distillation
leaves background out and is a sum over the channels, and so does the cross-entropy at a last step after
which background is no answer, whose voxels are then ignored, as the paper says. "3dpc-ciss-published" is
what its code does there instead: background counts as the last base class.

Against the original: exact to 1e-9, all three (golden files). The 2D code's cross-entropy is a mean over all
pixels, of which ignored ones add 0, here over labelled voxels.
"""

from dataclasses import dataclass

import torch

from scannet_css.methods.losses import IGNORE, cross_entropy_of_answers, distillation
from scannet_css.methods.method import Method, option


@dataclass
class LwF(Method):
    name = "lwf"
    head_start = "plain"
    weight: float = option(100.0, "weight of the distillation", least=0)
    temperature: float = option(1.0, "temperature of both softmaxes", above=0)
    variant: str = option(
        "2d",
        "2d, 3dpc-ciss (without background's row) or 3dpc-ciss-published (background is the last base class)",
        choices=("2d", "3dpc-ciss", "3dpc-ciss-published"),
        since="0.2.0",
    )

    def classification(self, step, batch, new, old):
        if self.variant == "2d" or step.has_background:
            return super().classification(step, batch, new, old)
        background = IGNORE if self.variant == "3dpc-ciss" else step.old_channels - 1
        labels = torch.where(batch.labels == 0, background, batch.labels)
        return cross_entropy_of_answers(new.logits, labels, has_background=False)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        if self.variant == "2d":
            kept = distillation(new.logits, old.logits, self.temperature)
        else:
            classes = old.logits.shape[1] - 1
            kept = classes * distillation(new.logits[:, 1:], old.logits[:, 1:], self.temperature)
        terms["lwf"] = self.weight * kept
        return terms
