"""SSUL: S. Cha et al., "SSUL: Semantic Segmentation with Unknown Label for Exemplar-based Class-Incremental
Learning", NeurIPS 2021, without exemplars.

Loss: binary cross-entropy of every channel on pseudo-labels, mean over labelled voxels: where a step shows
background, the teacher's most likely channel if that is a class, not background, and its sigmoid is at least
`confidence`. Network, batch norm statistics and the outputs of the old classes are frozen; new outputs start
from background. Step 0 is trained with binary cross-entropy too.

Against the original: pseudo-labels, loss and decision exact to 1e-9 (golden file, its case without
"unknown"). Different: the authors split background by a saliency detector into "unknown" (objects of no
class yet) and the rest. There is none for points, and in these protocols background after step 0 holds the
classes to come, so channel 0 plays the unknown: it goes on learning with the new outputs at the full rate
(theirs: background at 1e-4 of it), and they start from it. An output is one row on the frozen features,
where theirs is a head with a 3x3 convolution, batch norm and ReLU of its own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scannet_css.methods.binary import BinaryMethod
from scannet_css.methods.losses import binary_cross_entropy, wide
from scannet_css.methods.method import option
from scannet_css.network.head import freeze_body, put_back_outputs


@dataclass
class SSUL(BinaryMethod):
    name = "ssul"
    head_start = "copy"
    freezes_norms = True
    confidence: float = option(0.7, "least sigmoid of a pseudo-label, 0..1", least=0, most=1)

    def adapt(self, step):
        freeze_body(step.network)

    def updated(self, step):
        if step.index:
            put_back_outputs(step.network, step.teacher, range(1, step.old_channels))

    def classification(self, step, batch, new, old):
        labels = confident_labels(batch.labels, old.logits, self.confidence)
        return binary_cross_entropy(new.logits, labels)


def confident_labels(labels: Tensor, old_logits: Tensor, confidence: float, first_class: int = 1) -> Tensor:
    """Labels (N,) with the teacher's class where a step shows none, if it beats every other channel of
    old_logits (N, K) and its sigmoid is at least `confidence`. Channels from `first_class` on are classes."""
    highest, likely = wide(old_logits).max(1)
    is_old = (labels < first_class) & (likely >= first_class) & (highest.sigmoid() >= confidence)
    return torch.where(is_old, likely, labels)
