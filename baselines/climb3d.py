"""CLIMB-3D: V. Thengane et al., "CLIMB-3D: Continual Learning for Imbalanced 3D Instance Segmentation", BMVC
2025, its three parts carried to semantic segmentation: replay, pseudo-labels and class-balanced
re-weighting.

Loss: cross-entropy on pseudo-labels (baselines/pseudo.py) of the step's scenes and of a memory
(baselines/replay.py), each voxel weighted by its label's weight (1 / f)^`balance`, at most `most_weight`
times the smallest, brought to a mean of 1 over the labels that occur. f is the share of the label among shown
and kept pseudo-labels, counted once before the step over its scenes, so that no old data are needed.

Against the original: no formula and no code of it could be read; the paper's words say that frequencies are
estimated from pseudo-labels and turned into weights, the exponent and the limit are ours. Its pseudo-labels
are the most confident instances of a frozen network, here PLOP's by voxel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.pseudo import Pseudo
from baselines.replay import MemoryMethod
from scannet_css.methods.losses import IGNORE
from scannet_css.methods.method import option
from scannet_css.sparse import SparseTensor


@dataclass
class Climb3D(MemoryMethod, Pseudo):
    name = "climb3d"
    balance: float = option(0.5, "exponent of a label's inverse frequency; 0: no weights", least=0)
    most_weight: float = option(10.0, "greatest ratio of two labels' weights", least=1)

    def begin(self, step):
        super().begin(step)
        if step.index == 0:
            return

        def count(batch):
            old = step.old_output(SparseTensor(batch.features, batch.coordinates))
            labels = self.pseudo_labels(step, batch.labels, old.logits)
            return {"counts": torch.bincount(labels[labels != IGNORE], minlength=step.channels)}

        counts = step.add_up("frequencies", count)["counts"]
        self.state["weights"] = balanced_weights(counts, self.balance, self.most_weight)

    def row_weights(self, batch, labels):
        weights = self.state["weights"].to(labels.device)
        return super().row_weights(batch, labels) * weights[torch.where(labels == IGNORE, 0, labels)]


def balanced_weights(counts: Tensor, balance: float, most: float) -> Tensor:
    """(C,) weights of labels that occur `counts` (C,) times: (1 / count)^balance, at most `most` times the
    smallest, with mean 1 over those that occur; 1 for the others."""
    occurs = counts > 0
    raw = counts[occurs].double() ** -balance
    raw = raw.clamp(max=most * raw.min()) if len(raw) else raw
    weights = torch.ones(len(counts), device=counts.device)
    weights[occurs] = (raw / raw.mean()).float()
    return weights
