"""LwF-MC: the multi-class LwF of S.-A. Rebuffi et al., "iCaRL: Incremental Classifier and Representation
Learning", CVPR 2017, as the 2D segmentation code of MiB and PLOP has it.

Loss: binary cross-entropy of every channel, summed over the channels, mean over all voxels, of which those
without a label add 0 + weight * binary cross-entropy of the K old channels against the teacher's sigmoids,
summed over the channels, mean over all voxels (there written as 10 * K * mean). Step 0 is trained with the
first term too.

Against the original: both terms exact to 1e-9 (golden file). Step 0 is shared with `ssul` and averages over
labelled voxels.
"""

from dataclasses import dataclass

from scannet_css.methods.binary import BinaryMethod
from scannet_css.methods.losses import binary_cross_entropies, binary_distillation
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import option


@dataclass
class LwFMC(BinaryMethod):
    name = "lwf-mc"
    head_start = "plain"
    weight: float = option(10.0, "weight of the distillation", least=0)

    def classification(self, step, batch, new, old):
        per_voxel = binary_cross_entropies(new.logits, batch.labels)
        return mean_over(ordered_sum(per_voxel), len(per_voxel))

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        old_channels = new.logits[:, : step.old_channels]
        terms["lwf-mc"] = self.weight * binary_distillation(old_channels, old.logits)
        return terms
