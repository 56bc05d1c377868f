"""GUA: Y. Yang et al., "Geometry and Uncertainty-Aware 3D Point Cloud Class-Incremental Semantic
Segmentation", CVPR 2023 (3DPC-CISS).

Loss: cross-entropy on pseudo-labels + weight * geometry-aware feature transfer: mean squared difference of
the relations of student and teacher, a voxel's relation being the mean difference of its neighbours' features
and its own. Pseudo-labels: where a step shows background, the teacher's class (its features dropped out at
random) if it is not background and its uncertainty over the neighbours (BALD) is at most `threshold`; else
the class of the nearest such neighbour, else ignored. New outputs start at random.

Deviations: neighbours are the occupied of the 26 voxels around, not the 12 nearest points, and count alike
(the authors weight them by the cosine of their positions); every voxel is an anchor, not a quarter of them;
the positions' part of the relations is the same in both networks and left out; the classifier keeps its bias.
"""

from dataclasses import dataclass

import torch

from scannet_css.methods.losses import cross_entropy
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import Method, option
from scannet_css.methods.neighbours import (
    dropped_out,
    labels_nearby,
    mutual_information,
    neighbours,
    relations,
)


@dataclass
class GUA(Method):
    name = "gua"
    head_start = "plain"
    weight: float = option(1.0, "weight of geometry-aware feature transfer", least=0)
    threshold: float = option(0.0045, "greatest uncertainty of a pseudo-label, nats", least=0)
    dropout: float = option(0.3, "share of the teacher's features that is dropped", least=0, most=0.99)

    def loss(self, step, batch, new, old):
        near = neighbours(batch.coordinates)
        labels = uncertainty_labels(step, batch.labels, old, near, self.threshold, self.dropout)
        terms = {"ce": cross_entropy(new.logits, labels)}
        difference = relations(new.features.float(), near) - relations(old.features.float(), near)
        terms["gft"] = self.weight * mean_over(ordered_sum(difference.square()), difference.numel())
        return terms


def uncertainty_labels(step, labels, old, near, threshold, dropout):
    """(N,) labels with the teacher's where a step shows background, 255 where it is unsure."""
    classifier = step.teacher.final
    dropped = dropped_out(old.features.float(), dropout)
    probability = (dropped @ classifier.kernel + classifier.bias).softmax(1)
    predicted = probability.argmax(1)
    is_sure = (predicted > 0) & (mutual_information(probability, near) <= threshold)
    pseudo = torch.where(is_sure, predicted, labels_nearby(predicted, is_sure, near))
    return torch.where(labels == 0, pseudo, labels)
