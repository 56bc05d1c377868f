"""What methods on sigmoid outputs share: every channel is a binary classifier, from step 0 on."""

from dataclasses import dataclass

from scannet_css.methods.losses import binary_cross_entropy
from scannet_css.methods.method import LossTerms, Method


@dataclass
class BinaryMethod(Method):
    """Binary cross-entropy in the place of cross-entropy. A base trained with a softmax has logits without a
    zero point, which sigmoids need, so these methods have a step 0 of their own, and share it."""

    base = "binary"

    def base_loss(self, step, batch, new):
        return LossTerms(ce=binary_cross_entropy(new.logits, batch.labels))

    def classification(self, step, batch, new, old):
        return binary_cross_entropy(new.logits, batch.labels)
