"""EWC: J. Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017, equation 3.

Loss: cross-entropy + weight * sum of F * (parameter - its value after the step before)^2, F the diagonal of
the Fisher information, scaled to 0..1 tensor by tensor, as in the public 2D code. `fisher` says how it is
found: "exact", the paper's: at the end of each step the mean over scenes of the squared gradient of their
cross-entropy, summed over the steps. "running", as the public 2D code has it: F <- 0.9 g^2 + 0.1 F with the
gradient of every update, from 1, which is all but the last batches of the last step; step 0 is then walked
again, as for PI and RW.

Against the original: "running" and the penalty exact to 1e-9 with the public 2D code (golden file), where
every step has a classifier of its own; here it is one tensor, so its outputs are scaled together. 3DPC-CISS
has "running", weight 1 and `head` separate, as the official runs of its two-step protocols; there outputs are
free, here old ones do not move.
"""

from dataclasses import dataclass

import torch

from scannet_css.methods.importance import PathMethod, grown
from scannet_css.methods.losses import cross_entropy
from scannet_css.methods.method import option
from scannet_css.methods.separate_head import SeparateHead
from scannet_css.sparse import SparseTensor


@dataclass
class EWC(SeparateHead, PathMethod):
    name = "ewc"
    base = ""
    fisher: str = option(
        "exact",
        "exact (the paper's, in one pass after each step) or running (the public 2D code's)",
        choices=("exact", "running"),
        since="0.2.0",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.fisher == "running":
            self.base = PathMethod.base

    def importance(self, step):
        if self.fisher == "running":
            now = dict(step.network.named_parameters())  # without a separate head's background
            fisher = self.state["fisher"]
            self.state["fisher"] = {name: fisher[name][..., : now[name].shape[-1]] for name in now}
            return [self.state["fisher"]]
        before, fisher = self.state.get("importance", [{}])[0], self._exact(step)
        return [
            {
                name: value + grown(before[name].to(value.device), value) if name in before else value
                for name, value in fisher.items()
            }
        ]

    def _exact(self, step):
        """Of each parameter, in one pass over the step's scenes."""
        network = step.network
        names = [name for name, _ in network.named_parameters()]

        def squared_gradients(batch):
            sums = {"scenes": torch.tensor(len(batch.names), device=step.device)}
            for scene in batch.split(len(batch.names)):
                with torch.enable_grad(), step.autocast():
                    logits = network(SparseTensor(scene.features, scene.coordinates)).logits
                    loss = cross_entropy(logits, scene.labels)
                gradients = torch.autograd.grad(loss, list(network.parameters()))
                for name, gradient in zip(names, gradients, strict=True):
                    sums[name] = sums.get(name, 0) + gradient.square()
            return sums

        sums = step.add_up("fisher", squared_gradients)
        return {name: sums[name] / sums["scenes"] for name in names}
