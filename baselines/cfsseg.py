"""CFSSeg: the closed-form solution for class-incremental semantic segmentation of 2D images and 3D point
clouds (ACM Multimedia 2025).

After step 0 the network is frozen. Its features before the classifier are expanded, E = ReLU(X R) with a
random R of `width` columns, uniform in +-1 / sqrt(F), and the classifier on E is the ridge regression of
one-hot labels over the voxels of all steps, in double precision; voxels that no step labels are left out,
background of step 0 is a column. The paper updates it recursively; here the sums E'E and E'Y are kept and
solved, which is the same solution. Where a later step shows background, the label is the answer of the
classifier so far if that is a class and its uncertainty over the neighbours, of the softmax of the
regression's values, is at most `threshold` (equation 5; unit as in baselines/gua.py), else the nearest such
neighbour's, else the voxel is left out. A step has one pass over its scenes, not augmented, and no epoch.

Against the original: sums, solution and scores exact to 1e-9 (golden file), the uncertainty too, on the
authors' neighbours. Only a user's copy of their code could be read, in which the values are scrambled
between classes and points before the uncertainty, the farthest neighbour is taken, and dropout is on in
every pass; since the faults may be the copy's, the paper's words stand here and no option copies them.
Different: neighbours and weights as in baselines/gua.py; features are dropped out for the uncertainty
alone; the score of step 0 is that of the shared network."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.gua import corrected
from scannet_css.methods.losses import IGNORE
from scannet_css.methods.method import Method, option
from scannet_css.methods.neighbours import dropped_out, neighbours, uncertainty
from scannet_css.scenes.loader import derived_generator
from scannet_css.sparse import SparseTensor

ROWS = 16384  # expanded at a time: 650 MB at the default width


@dataclass
class CFSSeg(Method):
    name = "cfsseg"
    trains = False
    reads = ("expansion", "classifier")
    width: int = option(5000, "columns of the random expansion", least=1)
    ridge: float = option(1.0, "weight of the regression's penalty", above=0)
    threshold: float = option(
        0.001, "greatest uncertainty of a pseudo-label, in the authors' unit: nats / (12 K)", least=0
    )
    dropout: float = option(0.3, "share of the features that is dropped for it", least=0, most=0.99)

    def predict(self, output):
        return self._scores(output.features)

    def end(self, step):
        if step.index == 0:
            columns = step.network.final.kernel.shape[0]
            draw = torch.rand(columns, self.width, dtype=torch.float64)
            self.state["expansion"] = (2 * draw - 1) / columns**0.5

        def sums(batch):
            with torch.inference_mode(), step.autocast():
                output = step.network(SparseTensor(batch.features, batch.coordinates))
            labels = self._labels(step, batch, output)
            return self._sums(output.features, labels, step.channels)

        found = step.add_up("regression", sums)
        old = {name: self.state[name].to(step.device) for name in ("gram", "cross") if step.index}
        self._solve(found, old)

    def _sums(self, features: Tensor, labels: Tensor, channels: int) -> dict[str, Tensor]:
        """E'E (width, width) and E'Y (width, C) of the labelled voxels."""
        known = labels != IGNORE
        sums = {"gram": 0.0, "cross": 0.0}
        for part, label in zip(features[known].split(ROWS), labels[known].split(ROWS), strict=True):
            expanded = self._expanded(part)
            sums["gram"] = sums["gram"] + expanded.T @ expanded
            sums["cross"] = sums["cross"] + expanded.T @ F.one_hot(label, channels).to(expanded)
        return sums

    def _solve(self, sums: dict[str, Tensor], old: dict[str, Tensor]) -> None:
        """The classifier from the sums of this step and those so far."""
        gram, cross = sums["gram"], sums["cross"]
        if old:
            gram = gram + old["gram"]
            cross = cross + F.pad(old["cross"], (0, cross.shape[1] - old["cross"].shape[1]))
        self.state["gram"], self.state["cross"] = gram, cross
        penalty = self.ridge * torch.eye(self.width, dtype=gram.dtype, device=gram.device)
        self.state["classifier"] = torch.linalg.solve(gram + penalty, cross)

    def _scores(self, features: Tensor) -> Tensor:
        """(N, C) values of the regression, float64."""
        device = features.device
        with torch.autocast(device.type, enabled=False):
            parts = [
                self._expanded(part) @ self.state["classifier"].to(device) for part in features.split(ROWS)
            ]
        return torch.cat(parts)

    def _expanded(self, features: Tensor) -> Tensor:
        return (features.double() @ self.state["expansion"].to(features.device)).relu()

    def _labels(self, step, batch, output):
        if step.index == 0:
            return batch.labels
        # Of the scenes alone, so that a pass that was killed goes on with the same draws.
        generator = derived_generator("dropout", *batch.names, device=output.features.device)
        probability = self._scores(dropped_out(output.features.float(), self.dropout, generator)).softmax(1)
        near, predicted = neighbours(batch.coordinates), probability.argmax(1)
        is_sure = uncertainty(probability, near) <= self.threshold
        return corrected(batch.labels, predicted, is_sure, near, has_background=False)
