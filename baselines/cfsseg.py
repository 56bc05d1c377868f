"""CFSSeg: the closed-form solution for class-incremental semantic segmentation of 2D images and 3D point
clouds (ACM Multimedia 2025).

After step 0 the network is frozen. Its features before the classifier are expanded, E = ReLU(X R) with a
random R of `width` columns, and the classifier on E is the ridge regression of one-hot labels over the voxels
of all steps. The paper updates it recursively; here the sums E'E and E'Y are kept and solved, which is the
same solution. Where a step shows background, the label is the answer of the classifier so far if its
uncertainty over the neighbours (BALD; see baselines/gua.py) is at most `threshold`, else the nearest such
neighbour's, else the voxel is left out. A step has one pass over its scenes, not augmented, and no epoch.

Deviations: the probabilities of the uncertainty are the softmax of the regression's values on features that
are dropped out at random, as in 3DPC-CISS, whose 12 nearest points become the occupied of the 26 voxels
around.
The score of step 0 is that of the shared network. Every voxel counts alike.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from scannet_css.methods.losses import IGNORE
from scannet_css.methods.method import Method, option
from scannet_css.methods.neighbours import dropped_out, labels_nearby, mutual_information, neighbours
from scannet_css.scenes.loader import derived_generator
from scannet_css.sparse import SparseTensor


@dataclass
class CFSSeg(Method):
    name = "cfsseg"
    trains = False
    reads = ("expansion", "classifier")
    width: int = option(5000, "columns of the random expansion", least=1)
    ridge: float = option(1.0, "weight of the regression's penalty", above=0)
    threshold: float = option(0.001, "greatest uncertainty of a pseudo-label, nats", least=0)
    dropout: float = option(0.3, "share of the features that is dropped for it", least=0, most=0.99)

    def predict(self, output):
        device = output.features.device
        with torch.autocast(device.type, enabled=False):  # half precision would lose sums of `width` products
            return self._expanded(output.features) @ self.state["classifier"].to(device)

    def end(self, step):
        if step.index == 0:
            columns = step.network.planes[-1]
            self.state["expansion"] = torch.randn(columns, self.width) / columns**0.5

        def sums(batch):
            with torch.inference_mode(), step.autocast():
                output = step.network(SparseTensor(batch.features, batch.coordinates))
            labels = self._labels(step, batch, output)
            expanded = self._expanded(output.features[labels != IGNORE])
            one_hot = F.one_hot(labels[labels != IGNORE], step.channels).float()
            return {"gram": expanded.T @ expanded, "cross": expanded.T @ one_hot}

        found = step.add_up("regression", sums)
        gram, cross = found["gram"].double(), found["cross"].double()
        if step.index:
            old = self.state["cross"].to(cross.device)
            gram = gram + self.state["gram"].to(gram.device)
            cross = cross + F.pad(old, (0, cross.shape[1] - old.shape[1]))
        self.state["gram"], self.state["cross"] = gram, cross
        penalty = self.ridge * torch.eye(self.width, dtype=gram.dtype, device=gram.device)
        self.state["classifier"] = torch.linalg.solve(gram + penalty, cross).float()

    def _expanded(self, features):
        return (features.float() @ self.state["expansion"].to(features.device)).relu()

    def _labels(self, step, batch, output):
        if step.index == 0:
            return batch.labels
        # Of the scenes alone, so that a pass that was killed goes on with the same draws.
        generator = derived_generator("dropout", *batch.names, device=output.features.device)
        dropped = self._expanded(dropped_out(output.features.float(), self.dropout, generator))
        probability = (dropped @ self.state["classifier"].to(dropped.device)).softmax(1)
        near, predicted = neighbours(batch.coordinates), probability.argmax(1)
        is_sure = (predicted > 0) & (mutual_information(probability, near) <= self.threshold)
        pseudo = torch.where(is_sure, predicted, labels_nearby(predicted, is_sure, near))
        return torch.where(batch.labels == 0, pseudo, batch.labels)
