"""STAR: J. Chen et al., "Saving 100x Storage: Prototype Replay for Reconstructing Training Sample
Distribution in Class-Incremental Semantic Segmentation", NeurIPS 2023.

Every class is a binary classifier and background none of them: the answer is the class of the largest logit,
background if no sigmoid is above 0.5. After a step, each class is remembered by the mean direction of its
features, the deviation of that direction by channel, mean and deviation of their length, and how many rows
it had. Loss of a step: binary cross-entropy of the new channels over the batch (positives count
`positive_weight` times), over features drawn from the remembered classes, and once more over the batch's
background, as many of both as it takes to have old classes and background in the shares they have had +
`feature_weight` * mean squared difference of the features where a label is background and the teacher sees an
old class + `contrast_weight` * mean over new classes of 1 / distance of their mean direction in the batch to
the nearest remembered one. Old outputs and batch norm statistics are frozen; step 0 is trained with the first
term.

`reading` picks where the released code parts from these words: there the teacher sees a class at a logit, not
a sigmoid, above 0.5; a new class's deviation is taken against the row of an old class; each channel draws a
length of its own; ignored rows are negatives.

Deviations: channel 0 is there, its weights and bias held at 0, so that a threshold of 0 takes part in the
comparison of logits. Counts are of rows of prepared scenes, not of random crops at a 16th of the resolution,
where the label of a cell is a share of each class. New outputs start at random. The memory of images (STAR-M)
is left out.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from scannet_css.methods.feature_replay import (
    binary_terms,
    decisions,
    drawn_features,
    kept_features,
    nearness,
    shares,
    statistics_of,
    sums_of_directions,
)
from scannet_css.methods.losses import IGNORE
from scannet_css.methods.means import mean_over, over_batch
from scannet_css.methods.method import LossTerms, Method, option
from scannet_css.methods.prototypes import recalled
from scannet_css.network.head import put_back_outputs
from scannet_css.sparse import SparseTensor


@dataclass
class STAR(Method):
    name = "star"
    base = "star"
    head_start = "plain"
    freezes_norms = True
    positive_weight: float = option(4.0, "weight of positives in binary cross-entropy", above=0)
    feature_weight: float = option(5.0, "weight of the distance between the features", least=0)
    contrast_weight: float = option(0.05, "weight of the nearness of new classes to old ones", least=0)
    reading: str = option(
        "paper", "paper or published, the released code, where they part", choices=("paper", "published")
    )

    @property
    def _least_logit(self) -> float:
        """Above which the teacher sees a class."""
        return 0.5 if self.reading == "published" else 0.0

    def base_loss(self, step, batch, new):
        return LossTerms(ce=self._binary(new.logits[:, 1:], batch.labels, 1))

    def updated(self, step):
        super().updated(step)
        if step.index:
            put_back_outputs(step.network, step.teacher, range(step.old_channels))
            return
        with torch.no_grad():
            step.network.final.kernel[:, 0] = 0
            step.network.final.bias[:, 0] = 0

    def begin(self, step):
        super().begin(step)
        if step.index == 0:
            return

        def count(batch):
            logits = step.old_output(SparseTensor(batch.features, batch.coordinates)).logits
            seen = decisions(logits, self._least_logit)[batch.labels == 0]
            return {
                "rows": torch.bincount(seen, minlength=step.old_channels),
                "batches": torch.tensor(1, device=step.device),
            }

        found = step.add_up("predictions", count)
        disjoint = step.protocol.regime == "disjoint"
        numbers = recalled(self, step, "numbers")
        replayed, ratio, after = shares(
            numbers, found["rows"], int(found["batches"]), step.channels - step.old_channels, disjoint
        )
        self.state.update(replayed=replayed, background_ratio=ratio, numbers_after=after)

    def classification(self, step, batch, new, old):
        """Of the batch; its share of the whole term, the rest of which is "replay"."""
        ce = self._binary(new.logits[:, step.old_channels :], batch.labels, step.old_channels)
        return ce / (1 + sum(self._shares(batch, old)))

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        seen = decisions(old.logits, self._least_logit)
        terms["replay"] = self._replay(step, batch, new, old)
        is_old = ((batch.labels == 0) & (seen > 0)).float()
        terms["features"] = self.feature_weight * kept_features(new.features, old.features, is_old)
        rows = F.one_hot(torch.where(batch.labels == IGNORE, 0, batch.labels), step.channels)
        known = recalled(self, step)
        near = nearness(new.features, rows[:, step.old_channels :], known)
        terms["contrast"] = self.contrast_weight * near
        return terms

    def end(self, step):
        super().end(step)
        old_channels = step.old_channels

        def sums(batch):
            with torch.inference_mode(), step.autocast():
                output = step.network(SparseTensor(batch.features, batch.coordinates))
            return sums_of_directions(output.features, batch.labels, old_channels, step.channels)

        found = step.add_up("directions", sums)
        known = self.state.get("prototypes")
        is_published = known is not None and self.reading == "published"
        learnt = statistics_of(found, known.to(step.device) if is_published else None)
        for name, value in learnt.items():
            before = self.state.get(name)
            self.state[name] = value if before is None else torch.cat([before.to(value), value], -2)
        counts = found["counts"]
        if step.index == 0:
            self.state["numbers"] = torch.cat([found["background"][None], counts]).double()
        else:
            after = self.state["numbers_after"].to(counts.device)
            self.state["numbers"] = torch.cat([after, counts.double()])

    def _binary(self, logits, labels, first):
        """Of the logits (N, n) of channels `first`, ...; a mean over rows, summed over the channels."""
        target = (
            labels[:, None] == torch.arange(first, first + logits.shape[1], device=labels.device)
        ).float()
        per_row = binary_terms(logits, target, self.positive_weight).sum(1)
        counts = torch.ones_like(labels) if self.reading == "published" else (labels != IGNORE).long()
        return mean_over((per_row * counts).sum(), counts.sum())

    def _background(self, batch, old):
        return (batch.labels == 0) & (decisions(old.logits, self._least_logit) == 0)

    def _shares(self, batch, old):
        """Replayed rows and rows of background counted again, per row of the batch."""
        rows = over_batch(len(batch.labels)).clamp(min=1)
        background = over_batch(self._background(batch, old).sum())
        return int(self.state["replayed"].sum()) / rows, self.state["background_ratio"] * background / rows

    def _replay(self, step, batch, new, old):
        """The replayed features' and the background's part of the binary cross-entropy."""
        replayed_share, background_share = self._shares(batch, old)
        is_background = self._background(batch, old)
        softplus = F.softplus(new.logits[is_background, step.old_channels :].float())
        background = mean_over(softplus.sum(), len(softplus))
        whole = background_share * background
        rows = self._replayed_features(step)
        if len(rows):
            final = step.network.final
            logits = rows @ final.kernel[:, step.old_channels :] + final.bias[:, step.old_channels :]
            whole = whole + replayed_share * F.softplus(logits).sum(1).mean()
        return whole / (1 + replayed_share + background_share)

    def _replayed_features(self, step):
        """Draws that are the same in every part of the batch and in every process."""
        generator = torch.Generator().manual_seed(torch.initial_seed())
        classes = torch.repeat_interleave(
            torch.arange(len(self.state["replayed"])), self.state["replayed"].cpu()
        )
        shape = len(classes), self.state["prototypes"].shape[1]
        direction = torch.randn(shape, generator=generator)
        length = torch.randn(shape if self.reading == "published" else (shape[0], 1), generator=generator)
        learnt = [
            recalled(self, step, name)[classes.to(step.device)] for name in ("prototypes", "noise", "lengths")
        ]
        return drawn_features(*learnt, direction.to(step.device), length.to(step.device))
