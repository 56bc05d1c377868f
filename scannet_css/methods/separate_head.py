"""A head of its own for a step's classes, as 3DPC-CISS trains its baselines (Y. Yang et al., CVPR 2023)."""

from dataclasses import dataclass

import torch

from scannet_css.methods.losses import IGNORE, cross_entropy
from scannet_css.methods.method import Method, option
from scannet_css.network.head import grow, shrink


@dataclass
class SeparateHead(Method):
    """Cross-entropy over the step's classes and a background of their own alone, which is everything else, in
    the place of that over all channels.

    With `head` "separate" the classifier carries one more output while it is trained, the last, which is
    thrown away afterwards; the old outputs stay as they are. Scores of two heads are then compared that never
    saw each other, as published, for two-step protocols.
    """

    head: str = option(
        "joined",
        "new outputs are trained with the old ones (joined), or as in 3DPC-CISS with a background of their"
        " own (separate)",
        choices=("joined", "separate"),
        since="0.2.0",
    )

    def adapt(self, step):
        super().adapt(step)
        if self.head == "separate":
            grow(step.network, 1, "plain")

    def begin(self, step):
        super().begin(step)
        if step.index and self.head == "separate":
            final = step.network.final
            old = (values[..., : step.old_channels].detach().clone() for values in (final.kernel, final.bias))
            self.state["old_outputs"] = list(old)

    def classification(self, step, batch, new, old):
        if self.head == "joined":
            return super().classification(step, batch, new, old)
        own = torch.cat([new.logits[:, -1:], new.logits[:, step.old_channels : -1]], 1)
        labels = (batch.labels - step.old_channels + 1).clamp(min=0)
        return cross_entropy(own, torch.where(batch.labels == IGNORE, IGNORE, labels))

    @torch.no_grad()
    def updated(self, step):
        super().updated(step)
        if step.index and self.head == "separate":  # weight decay would move what has no gradient
            final = step.network.final
            for values, old in zip((final.kernel, final.bias), self.state["old_outputs"], strict=True):
                values[..., : step.old_channels] = old.to(values.device)

    def end(self, step):
        if step.index and self.head == "separate":
            shrink(step.network, step.channels)
            del self.state["old_outputs"]
        super().end(step)
