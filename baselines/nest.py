"""NeST: Z. Xie et al., "Early Preparation Pays Off: New Classifier Pre-tuning for Class Incremental Semantic
Segmentation", ECCV 2024, on MiB.

Before a step the outputs of its classes are learnt as a transformation of the old ones, everything else
frozen: w_j = sum over old channels c of P_jc (M_jc * w_c), * entry by entry. M (n, K, F) starts as the mean
over voxels of class j of 1[f * w_c > 0] p'_c, P (n, K) as the softmax over c of M summed over its F entries,
the biases as background's; background's own row is scaled by an entry-wise factor and a number. All of them
are trained for `tuning_epochs` by MiB's cross-entropy. Then the new rows are brought to the mean length of
the old ones, background to its old length, the new biases are scaled by |old biases| / |new biases|, and the
step goes on as MiB's, without its start of the biases. Nothing is remembered.

Deviations: the batch norm statistics stay as they are while the rows are tuned (the released code lets them
drift, since its network is in training mode); the rate is the step's own, without a schedule.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.mib import MiB, UnbiasedMethod
from scannet_css.methods.losses import IGNORE
from scannet_css.methods.method import Method, option
from scannet_css.network import Output
from scannet_css.sparse import SparseTensor


@dataclass
class TransformedMethod(Method):
    """The start of new outputs, for any method."""

    head_start = "copy"  # old outputs stay as they are; `begin` writes the new ones
    tuning_epochs: int = option(5, "epochs that tune the new outputs before a step (ADE20K: 15)", least=1)

    def begin(self, step):
        super().begin(step)
        if step.index == 0:
            return
        channels = step.old_channels, step.channels
        final = step.teacher.final

        def sums(batch):
            old = step.old_output(SparseTensor(batch.features, batch.coordinates))
            return sums_of_similarity(old.features, old.logits, final.kernel.T, batch.labels, *channels)

        found = step.add_up("similarity", sums)
        similarity = found["sums"] / found["counts"].clamp(min=1)[:, None, None]
        rows = TransformedRows(final.kernel.T, final.bias[0], similarity.to(final.kernel))
        step.tune(RowsOnFeatures(step.teacher, rows), UnbiasedMethod(), self.tuning_epochs)
        with torch.no_grad():
            kernel, bias = rows.balanced()
            step.network.final.kernel.copy_(kernel.T)
            step.network.final.bias.copy_(bias)


def sums_of_similarity(
    features: Tensor, old_logits: Tensor, rows: Tensor, labels: Tensor, old_channels: int, channels: int
) -> dict[str, Tensor]:
    """Sums (n, K, F) over the rows of each new class of 1[feature * old row > 0] * old probability, and their
    counts (n,). features (N, F), old_logits (N, K), rows (K, F), labels (N,)."""
    probability = old_logits.double().softmax(1)
    sums = probability.new_zeros(channels - old_channels, *rows.shape)
    counts = torch.zeros(channels - old_channels, dtype=torch.int64, device=labels.device)
    for number, channel in enumerate(range(old_channels, channels)):
        of = (labels == channel) & (labels != IGNORE)
        # f * w > 0 where both have the same sign, and are not 0
        for sign in (1, -1):
            agrees = (sign * features[of] > 0).double()
            sums[number] += (probability[of].T @ agrees) * (sign * rows > 0)
        counts[number] = of.sum()
    return {"sums": sums, "counts": counts}


class TransformedRows(nn.Module):
    """All rows of a classifier, the new ones and background's as transformations of the old (K, F) and (K,);
    similarity (n, K, F)."""

    def __init__(self, rows: Tensor, bias: Tensor, similarity: Tensor):
        super().__init__()
        self.register_buffer("old_rows", rows.detach().clone())
        self.register_buffer("old_bias", bias.detach().clone())
        self.M = nn.Parameter(similarity.clone())
        self.P = nn.Parameter(similarity.sum(2).softmax(1))
        self.bias = nn.Parameter(bias.detach()[:1].repeat(len(similarity)))
        self.background_factor = nn.Parameter(torch.ones_like(rows[0]))
        self.background_scale = nn.Parameter(rows.new_ones(1))

    def new_rows(self) -> Tensor:
        return (self.P[:, :, None] * self.M * self.old_rows).sum(1)

    def background(self) -> Tensor:
        return self.background_scale * self.background_factor * self.old_rows[:1]

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, K + n) of features (N, F)."""
        rows = torch.cat([self.background(), self.old_rows[1:], self.new_rows()])
        return features @ rows.T + torch.cat([self.old_bias, self.bias])

    def balanced(self) -> tuple[Tensor, Tensor]:
        """Rows (K + n, F) and biases (K + n,), as long as the old ones are."""
        new, background, old = self.new_rows(), self.background(), self.old_rows
        background = background * (old[:1].norm() / background.norm().clamp(min=1e-12))
        new = new * (old.norm(dim=1).mean() / new.norm(dim=1).mean().clamp(min=1e-12))
        bias = self.bias * (self.old_bias.norm() / self.bias.norm().clamp(min=1e-12))
        return torch.cat([background, old[1:], new]), torch.cat([self.old_bias, bias])


class RowsOnFeatures(nn.Module):
    """A frozen network with other rows for its classifier."""

    def __init__(self, frozen: nn.Module, rows: TransformedRows):
        super().__init__()
        self.rows = rows
        self._frozen = [frozen]  # in a list: no part of this module, and of what is trained

    def forward(self, voxels: SparseTensor) -> Output:
        with torch.no_grad():
            output = self._frozen[0](voxels)
        return Output(self.rows(output.features.float()), output.features, output.levels)


@dataclass
class NeST(TransformedMethod, MiB):
    name = "nest"
