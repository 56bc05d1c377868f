"""EWC: J. Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017, equation 3.

Loss: cross-entropy + weight * sum of F * (parameter - its value after the step before)^2. F is the diagonal
of the Fisher information at the end of each step, the mean over scenes of the squared gradient of their
cross-entropy, summed over the steps and then scaled to 0..1 tensor by tensor, as in the public 2D code.

Deviations: that code takes F as a running mean of squared batch gradients during training, of the last step
alone; here it is taken after training, as the paper has it, in one pass over the step's scenes.
"""

from dataclasses import dataclass

import torch

from scannet_css.methods.importance import ImportanceMethod, grown
from scannet_css.methods.losses import cross_entropy
from scannet_css.sparse import SparseTensor


@dataclass
class EWC(ImportanceMethod):
    name = "ewc"

    def importance(self, step):
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
        before = self.state.get("importance", {})
        fisher = {name: sums[name] / sums["scenes"] for name in names}
        return {
            name: value + grown(before[name].to(value.device), value) if name in before else value
            for name, value in fisher.items()
        }
