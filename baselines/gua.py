"""GUA: Y. Yang et al., "Geometry and Uncertainty-Aware 3D Point Cloud Class-Incremental Semantic
Segmentation", CVPR 2023 (3DPC-CISS).

Loss: cross-entropy on pseudo-labels + weight * geometry-aware feature transfer: mean squared difference of
the relations of student and teacher, a voxel's relation being the mean difference of its neighbours'
features and its own, times 192 / 451, since the authors' mean goes over 451 entries of which 192 can
differ. Pseudo-labels: where a step shows background, the teacher's channel (its features dropped out at
random) if its uncertainty over the neighbours is at most `threshold`, in the authors' unit: 12 K threshold
nats, 0.86 for 15 + 5 classes; else that of the nearest such neighbour, else ignored. Background is a
channel like any other in middle steps; at a last step after which it is no answer it is left out of
pseudo-labels and of the cross-entropy. New outputs start at random.

`labels`: "words" as above. "published" is what the code does: in middle steps every background voxel takes
the teacher's channel, however uncertain. At the last step all uncertain voxels, those with a true new label
too, take the class of the first neighbour that is certain, and that class is one too high: the last base
class becomes the first new one.

Against the original: uncertainty, both rules of labels, cross-entropy and transfer exact to 1e-9 (golden
file) on the authors' neighbours and weights. Here neighbours are the occupied of the 26 voxels around, of
the own scene, and count alike (there: the 12 nearest points, weighted by the cosine of positions that
voxels have no origin for); every voxel is an anchor, not a quarter; features are those before the
classifier, which keeps its bias."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scannet_css.methods.losses import IGNORE, cross_entropy_of_answers, wide
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import Method, option
from scannet_css.methods.neighbours import dropped_out, labels_nearby, neighbours, relations, uncertainty

REAL_SHARE = 192 / 451  # of the entries of the authors' relations


@dataclass
class GUA(Method):
    name = "gua"
    head_start = "plain"
    weight: float = option(1.0, "weight of geometry-aware feature transfer", least=0)
    threshold: float = option(
        0.0045, "greatest uncertainty of a pseudo-label, in the authors' unit: nats / (12 K)", least=0
    )
    dropout: float = option(0.3, "share of the teacher's features that is dropped", least=0, most=0.99)
    labels: str = option(
        "words",
        "pseudo-labels as the paper says or as the code is",
        choices=("words", "published"),
        since="0.2.0",
    )

    def loss(self, step, batch, new, old):
        near = neighbours(batch.coordinates)
        predicted, is_sure = self._teacher(step, old, near)
        correct = corrected if self.labels == "words" else corrected_as_published
        labels = correct(batch.labels, predicted, is_sure, near, step.has_background)
        terms = {"ce": cross_entropy_of_answers(new.logits, labels, step.has_background)}
        difference = relations(wide(new.features), near) - relations(wide(old.features), near)
        transfer = mean_over(ordered_sum(difference.square()), difference.numel())
        terms["gft"] = self.weight * REAL_SHARE * transfer
        return terms

    def _teacher(self, step, old, near):
        """Its channel at each voxel (N,), and whether it is certain (N,)."""
        classifier = step.teacher.final
        dropped = dropped_out(wide(old.features), self.dropout)
        probability = (dropped @ classifier.kernel + classifier.bias).softmax(1)
        return probability.argmax(1), uncertainty(probability, near) <= self.threshold


def corrected(
    labels: Tensor, predicted: Tensor, is_sure: Tensor, near: Tensor, has_background: bool
) -> Tensor:
    """Labels (N,) that stand for background (0) replaced by the channel of the nearest voxel, itself first,
    at which the teacher is certain; 255 without one. Without background only classes are taken."""
    wanted = is_sure if has_background else is_sure & (predicted > 0)
    pseudo = torch.where(wanted, predicted, labels_nearby(predicted, wanted, near))
    return torch.where(labels == 0, pseudo, labels)


def corrected_as_published(
    labels: Tensor, predicted: Tensor, is_sure: Tensor, near: Tensor, has_background: bool
) -> Tensor:
    """The same as released (see above); near (N, m), nearest first, without the voxel itself."""
    start = torch.where(labels == 0, predicted, labels)
    if has_background:
        return start
    found = torch.where(start == 0, IGNORE, start)
    if not (found[labels != IGNORE] == IGNORE).any():
        return found
    candidate = torch.where(is_sure, predicted + 1, IGNORE)
    for number, neighbour in enumerate(near.T):
        taken = torch.where(neighbour >= 0, candidate[neighbour.clamp(min=0)], IGNORE)
        is_open = (found == IGNORE) | ~is_sure if number == 0 else found == IGNORE
        found = torch.where(is_open, taken, found)
    return torch.where(labels == IGNORE, IGNORE, found)
