"""Pseudo-labels alone: the first half of PLOP (A. Douillard et al., "PLOP: Learning without Forgetting for
Continual Semantic Segmentation", CVPR 2021, section 3.2).

Loss: cross-entropy on pseudo-labels. Where a step shows background, the teacher's most likely channel is
taken if its entropy (normalised by log K, 0..1) is at most the threshold of that channel, else the voxel is
ignored. The threshold is the median entropy over the background voxels of the step's scenes that the teacher
gives to that channel, at least `smallest_threshold`. New outputs start from background.

Deviations: the published code adds up histogram bins' numbers instead of their counts when it looks for the
median; this takes the true median (to 1/4096). It also divides the entropy by log K and log C once more,
which scales thresholds and entropies alike and changes nothing but the floor.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scannet_css.methods.losses import IGNORE, cross_entropy
from scannet_css.methods.method import Method, Step, option
from scannet_css.methods.pseudo_labels import BINS, entropy_and_prediction, medians_of_histograms
from scannet_css.scenes.loader import Batch
from scannet_css.sparse import SparseTensor


@dataclass
class Pseudo(Method):
    name = "pseudo"
    smallest_threshold: float = option(
        0.001, "least entropy threshold of a pseudo-label, 0..1", least=0, most=1
    )

    def begin(self, step):
        super().begin(step)
        if step.index:
            self.state["thresholds"] = self._median_entropies(step).clamp(min=self.smallest_threshold)

    def classification(self, step, batch, new, old):
        return cross_entropy(new.logits, self.pseudo_labels(batch.labels, old.logits))

    def pseudo_labels(self, labels: Tensor, old_logits: Tensor) -> Tensor:
        """Labels (N,) with the teacher's confident classes in the place of background, 255 where it is
        unsure."""
        entropy, predicted = entropy_and_prediction(old_logits)
        confident = entropy <= self.state["thresholds"].to(entropy.device)[predicted]
        return torch.where(labels == 0, torch.where(confident, predicted, IGNORE), labels)

    def _median_entropies(self, step: Step) -> Tensor:
        """(K,) the upper edge of the bin that holds the median entropy of the voxels predicted as each
        channel."""

        def histogram(batch: Batch) -> dict[str, Tensor]:
            logits = step.old_output(SparseTensor(batch.features, batch.coordinates)).logits
            entropy, predicted = entropy_and_prediction(logits[batch.labels == 0])
            bins = (entropy * BINS).long().clamp(0, BINS - 1)
            counts = torch.bincount(predicted * BINS + bins, minlength=step.old_channels * BINS)
            return {"counts": counts.view(step.old_channels, BINS)}

        return medians_of_histograms(step.add_up("thresholds", histogram)["counts"])
