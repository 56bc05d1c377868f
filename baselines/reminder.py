"""REMINDER: M. H. Phan et al., "Class Similarity Weighted Knowledge Distillation for Continual Semantic
Segmentation", CVPR 2022.

Loss: PLOP (baselines/plop3d.py) + weight * T^2 * class similarity weighted distillation. At voxels labelled
with one of the step's classes y, the teacher's softened probability of each old channel c (background too) is
weighted by r_c = softmax over c of cos(prototype of y, prototype of c), 0 below threshold / K; the student's
logits are cut to the K channels. Mean over these voxels. Prototypes are mean features before the classifier,
of old classes from the step in which they were learnt, of the step's classes from the batch.

Deviations: prototypes of old classes are exact means over the step's scenes, not running means.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from baselines.plop3d import PLOP3D
from scannet_css.methods.losses import IGNORE, wide
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import option
from scannet_css.methods.prototypes import learn_prototypes, means_of_classes


@dataclass
class Reminder(PLOP3D):
    name = "reminder"
    similarity_weight: float = option(0.5, "weight of the distillation", least=0)
    temperature: float = option(3.0, "temperature T of both softmaxes", above=0)
    threshold: float = option(0.0, "similarities below threshold / K count as 0", least=0)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        prototypes = self.state["prototypes"].to(new.features.device)
        terms["similarity"] = self.similarity_weight * similarity_distillation(
            new, old, batch.labels, prototypes, self.temperature, self.threshold
        )
        return terms

    def end(self, step):
        super().end(step)
        self.state["prototypes"] = learn_prototypes(step, self.state.get("prototypes"))


def similarity_distillation(new, old, labels, prototypes, temperature, threshold):
    """Class similarity weighted distillation; `new` and `old` are outputs, prototypes (K, F) the old ones."""
    channels = old.logits.shape[1]
    is_new = (labels >= channels) & (labels != IGNORE)
    own, _ = means_of_classes(wide(new.features.detach()), labels, new.logits.shape[1])
    similarity = F.cosine_similarity(own[:, None], prototypes.to(own.dtype)[None], dim=2).softmax(1)
    similarity = torch.where(similarity < threshold / channels, 0, similarity)
    target = (wide(old.logits[is_new]) / temperature).softmax(1) * similarity[labels[is_new]] + 1e-7
    log_probability = (wide(new.logits[is_new, :channels]) / temperature).log_softmax(1)
    return mean_over(-ordered_sum(target * log_probability) * temperature**2, is_new.sum())
