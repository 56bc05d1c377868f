"""DFT*: the simple baseline of "Revisiting Continual Semantic Segmentation with Pre-trained Vision Models",
arXiv 2508.04267 (2025): frozen backbone, outputs of all classes from the start.

The classifier has the outputs of every class of the protocol from step 0 on, and plain cross-entropy over all
of them pushes down those still to come. From step 1 on, network, batch norm statistics and the outputs of
background and of earlier steps are frozen; those of the step and of later ones are trained by the same loss
on the labels as shown. It has to know the number of classes in advance, which no other method here does.

Deviations: the outputs of classes that no step has shown yet are left out of the score.
"""

from dataclasses import dataclass

import torch

from scannet_css.methods.losses import cross_entropy
from scannet_css.methods.method import LossTerms, Method
from scannet_css.network.head import RESERVE, freeze_body, put_back_outputs, reserve_outputs


@dataclass
class DFT(Method):
    name = "dft"
    base = RESERVE
    head_start = "reserved"
    freezes_norms = True

    def check(self, protocol, manifest):
        super().check(protocol, manifest)
        self.base = f"{RESERVE} of {self._to_come(protocol)}"

    def prepare(self, network, protocol):
        super().prepare(network, protocol)
        reserve_outputs(network, self._to_come(protocol))

    def base_loss(self, step, batch, new):
        return LossTerms(ce=self._over_all_classes(step, batch, new))

    def adapt(self, step):
        super().adapt(step)
        freeze_body(step.network)
        step.network.reserve.requires_grad_(True)

    def classification(self, step, batch, new, old):
        return self._over_all_classes(step, batch, new)

    def updated(self, step):
        super().updated(step)
        if step.index:
            put_back_outputs(step.network, step.teacher, range(step.old_channels))

    @staticmethod
    def _to_come(protocol):
        return len(protocol.classes) - len(protocol.steps[0])

    @staticmethod
    def _over_all_classes(step, batch, new):
        reserve = step.network.reserve
        to_come = new.features.float() @ reserve.kernel + reserve.bias
        return cross_entropy(torch.cat([new.logits.float(), to_come], 1), batch.labels)
