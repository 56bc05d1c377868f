"""SSUL: S. Cha et al., "SSUL: Semantic Segmentation with Unknown Label for Exemplar-based Class-Incremental
Learning", NeurIPS 2021, without exemplars.

Loss: binary cross-entropy of every channel on pseudo-labels: where a step shows background, the teacher's
most likely old class if its sigmoid is at least `confidence`. Network, batch norm statistics and the outputs
of the old classes are frozen; new outputs start from background. Step 0 is trained with binary cross-entropy
too.

Deviations: the authors split background by a saliency detector into "unknown" (objects of no class yet) and
the rest. There is none for points, and in these protocols background after step 0 holds the classes to come,
so channel 0 plays the unknown: it goes on learning with the new outputs, and they start from it.
"""

from dataclasses import dataclass

import torch

from scannet_css.methods.binary import BinaryMethod
from scannet_css.methods.losses import binary_cross_entropy
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
        sure, likely = old.logits[:, 1:].float().sigmoid().max(1)
        is_old = (batch.labels == 0) & (sure >= self.confidence)
        return binary_cross_entropy(new.logits, torch.where(is_old, likely + 1, batch.labels))
