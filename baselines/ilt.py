"""ILT: U. Michieli and P. Zanuttigh, "Incremental Learning Techniques for Semantic Segmentation", ICCV
Workshops 2019.

Loss: LwF (baselines/lwf.py, weight 100) + weight * mean squared difference of an intermediate feature of
student and teacher. In 2D it is the encoder's output; carried to the U-Net it is the decoder's coarsest level
(stride 8), the first that holds all of the encoder.

Against the original: both terms exact to 1e-9 (golden file); different is that level.
"""

from dataclasses import dataclass

from baselines.lwf import LwF
from scannet_css.methods.losses import wide
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import option


@dataclass
class ILT(LwF):
    name = "ilt"
    feature_weight: float = option(100.0, "weight of the distance between the features", least=0)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        difference = wide(new.levels[0].features) - wide(old.levels[0].features)
        terms["ilt"] = self.feature_weight * mean_over(ordered_sum(difference.square()), difference.numel())
        return terms
