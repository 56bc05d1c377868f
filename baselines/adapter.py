"""Adapter: G. Zhu et al., "Adaptive Prototype Replay for Class Incremental Semantic Segmentation", AAAI 2025.

Loss: that of STAR (baselines/star.py) + `uncertainty_weight` * mean of ((1 - (s1 - s2)) m)^2, where s1
(without gradient) and s2 are the two largest sigmoids of a row, and m is 0 where the first is the label or
above 0.7. After a step the remembered classes follow the network: over rows of background that teacher and
student, both with s1 - s2 > 0.7, give to the same old class, a prototype moves by the change of the mean
direction, times the share of such rows among those of the class, and its noise grows by as much.

`reading`, beside STAR's: the released trainer has the step that moves the prototypes commented out.
Deviations: STAR's; the 1e-4 that keeps the distance of features finite without a row is left out, since that
mean is 0 then; the other ratio of background and the replayed row that a class has at least are not
described.
"""

from dataclasses import dataclass

import torch

from baselines.star import STAR
from scannet_css.methods.feature_replay import drifted, sums_of_drift, uncertainty
from scannet_css.methods.method import option
from scannet_css.methods.prototypes import recalled
from scannet_css.sparse import SparseTensor

SURE = 0.7  # of a largest sigmoid, and of its distance to the second


@dataclass
class Adapter(STAR):
    name = "adapter"
    uncertainty_weight: float = option(0.1, "weight of the uncertainty", least=0)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        unsure = uncertainty(new.logits[:, 1:], batch.labels, SURE)
        terms["uncertainty"] = self.uncertainty_weight * unsure
        return terms

    def end(self, step):
        if step.index and self.reading == "paper":
            self._follow(step)
        super().end(step)

    def _follow(self, step):
        """Moves the prototypes of old classes to where their features are now."""

        def sums(batch):
            voxels = SparseTensor(batch.features, batch.coordinates)
            with torch.inference_mode(), step.autocast():
                new, old = step.network(voxels), step.old_output(voxels)
            return sums_of_drift(new, old, batch.labels, SURE)

        found = step.add_up("drift", sums)
        known = {name: recalled(self, step, name) for name in ("prototypes", "noise", "numbers")}
        prototypes, noise = drifted(found, known["prototypes"], known["noise"], known["numbers"])
        self.state.update(prototypes=prototypes, noise=noise)
