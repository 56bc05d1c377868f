"""LwF: Z. Li and D. Hoiem, "Learning without Forgetting", ECCV 2016 / TPAMI 2018.

Loss: cross-entropy on the step's labels + weight * distillation of the teacher's softmax over its K
channels; the student's logits are cut to these K before the softmax (as in the 2D segmentation code of MiB
and PLOP, where the weight is 100 and the mean goes over points and channels). Deviation: none in the loss;
points are voxels.
"""

from dataclasses import dataclass

from scannet_css.methods.losses import distillation
from scannet_css.methods.method import Method, option


@dataclass
class LwF(Method):
    name = "lwf"
    head_start = "plain"
    weight: float = option(100.0, "weight of the distillation", least=0)
    temperature: float = option(1.0, "temperature of both softmaxes", above=0)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        terms["lwf"] = self.weight * distillation(new.logits, old.logits, self.temperature)
        return terms
