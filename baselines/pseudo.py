"""Pseudo-labels alone: the first half of PLOP (A. Douillard et al., "PLOP: Learning without Forgetting for
Continual Semantic Segmentation", CVPR 2021, section 3.2).

Loss: cross-entropy on pseudo-labels, mean over all voxels, of which ignored ones add 0. Where a step shows
background, the teacher's most likely channel is taken if its uncertainty is below the threshold of that
channel, else the voxel is ignored. The uncertainty is the entropy / (K log K log C), as coded. The
threshold is found in a histogram of the uncertainties of the background voxels of the step's scenes that
the teacher gives to that channel, and is at least `smallest_threshold`. New outputs start from background.

`median` says how: "true" is the paper's median. "published" is what the code does instead, on raw counts: it
adds up the bins' numbers, which keeps every voxel of a class with more than 9,900 of them and little but the
surest of a smaller one (docs/methods.md says what that is here).

Against the original: thresholds, pseudo-labels and loss exact to 1e-9 (golden file). The pass of the teacher
goes over the step's whole scenes as prepared, there over random crops.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.methods.losses import IGNORE, wide
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import Method, Step, option
from scannet_css.methods.pseudo_labels import (
    MEDIANS,
    largest_uncertainty,
    thresholds_of_histograms,
    uncertainty_and_prediction,
)
from scannet_css.scenes.loader import Batch
from scannet_css.sparse import SparseTensor


@dataclass
class Pseudo(Method):
    name = "pseudo"
    median: str = option(
        "published",
        "how a class's threshold is found: published (as coded; keeps every voxel of a class with more than"
        " 9,900) or true (the median; keeps half)",
        choices=tuple(MEDIANS),
        since="0.2.0",
    )
    smallest_threshold: float = option(
        0.001, "least threshold of a pseudo-label's uncertainty", least=0, most=1
    )

    def begin(self, step):
        super().begin(step)
        if step.index:
            self.state["thresholds"] = self._thresholds(step).clamp(min=self.smallest_threshold)

    def classification(self, step, batch, new, old):
        labels = self.pseudo_labels(step, batch.labels, old.logits)
        per_voxel = F.cross_entropy(wide(new.logits), labels, ignore_index=IGNORE, reduction="none")
        weighted = per_voxel * self.row_weights(batch, labels).to(per_voxel.dtype)
        return mean_over(ordered_sum(weighted), len(labels))

    def row_weights(self, batch: Batch, labels: Tensor) -> Tensor:
        """(N,) weights of the cross-entropy on the pseudo-labels (N,)."""
        return torch.ones_like(labels)

    def pseudo_labels(self, step: Step, labels: Tensor, old_logits: Tensor) -> Tensor:
        """Labels (N,) with the teacher's confident classes in the place of background, 255 where it is
        unsure."""
        uncertainty, predicted = uncertainty_and_prediction(old_logits, step.channels)
        confident = uncertainty < self.state["thresholds"].to(uncertainty.device)[predicted]
        return torch.where(labels == 0, torch.where(confident, predicted, IGNORE), labels)

    def _thresholds(self, step: Step) -> Tensor:
        """(K,) by channel, from one pass of the teacher over the step's scenes."""
        bins = MEDIANS[self.median]
        largest = largest_uncertainty(step.old_channels, step.channels, self.median)

        def histogram(batch: Batch) -> dict[str, Tensor]:
            logits = step.old_output(SparseTensor(batch.features, batch.coordinates)).logits
            found, predicted = uncertainty_and_prediction(logits[batch.labels == 0], step.channels)
            places = (found / largest * bins).long().clamp(0, bins - 1)
            counts = torch.bincount(predicted * bins + places, minlength=step.old_channels * bins)
            return {"counts": counts.view(step.old_channels, bins)}

        counts = step.add_up("thresholds", histogram)["counts"].cpu()
        return thresholds_of_histograms(counts, self.median, largest)
