"""SDR: U. Michieli and P. Zanuttigh, "Continual Semantic Segmentation via Repulsion-Attraction of Sparse and
Disentangled Latent Representations", CVPR 2021.

Loss: MiB (baselines/mib.py) with distillation weight 100 + four terms on the features before the
classifier: matching (0.01), the batch's means of the voxels where the step shows background and the teacher
sees an old class, to that class's prototype; attraction (0.001), features to the prototype of the class
that the step shows, mean over the classes; repulsion (0.001), mean inverse distance of the batch's means of
these; sparsity (0.001), mean over voxels of sum(exp f) / sum(f) with f divided by the largest feature of
its class. A prototype is the mean over all voxels of the class that training has seen, each as it was when
it was seen, the batch's included; that of background stays 0, so background's features are drawn there. New
outputs start at random.

`reading`: "rows" as above. "published" is what the code does: it reads masked features in the wrong order,
which mixes channels and voxels, and divides attraction by the number of classes after each class, so that
earlier ones fade.

Against the original: all four terms and the prototypes exact to 1e-9, either way (golden file). Different:
the authors take the features in front of the decoder's head. Step 0 is shared, without terms of its own,
and its prototypes are means over its scenes when it is done; in the original command no term acts there
either. Terms are taken part by part where a batch is computed in parts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.mib import MiB
from scannet_css import distributed
from scannet_css.methods.losses import IGNORE, wide
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import option
from scannet_css.methods.prototypes import means_of_classes, sums_of_classes
from scannet_css.sparse import SparseTensor

TERMS = ("matching", "attraction", "repulsion", "sparsity")


@dataclass
class SDR(MiB):
    name = "sdr"
    head_start = "plain"
    weight: float = option(100.0, "weight of the distillation", least=0)
    matching_weight: float = option(0.01, "weight of the distance to old classes' prototypes", least=0)
    attraction_weight: float = option(0.001, "weight of the distance to the own prototype", least=0)
    repulsion_weight: float = option(0.001, "weight of the nearness of classes", least=0)
    sparsity_weight: float = option(0.001, "weight of the density of features", least=0)
    reading: str = option(
        "rows",
        "features read voxel by voxel, or mixed up as in the code",
        choices=("rows", "published"),
        since="0.2.0",
    )

    def __post_init__(self):
        super().__post_init__()
        self._seen = {}  # names of the scenes of a part -> its sums and counts

    def begin(self, step):
        super().begin(step)
        if step.index:
            prototypes, counts = self.state["prototypes"], self.state["counts"]
            missing = step.channels - len(counts)
            self.state["prototypes"] = torch.nn.functional.pad(prototypes, (0, 0, 0, missing))
            self.state["counts"] = torch.nn.functional.pad(counts, (0, missing))

    def before_batch(self, step):
        self._seen = {}

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        features, scene = wide(new.features), batch.coordinates[:, 0].long()
        is_published = self.reading == "published"
        shown, hidden = batch.labels, old_classes(batch.labels, old.logits)
        by_class = as_read(features, shown, scene, in_lines=False) if is_published else features
        by_teacher = as_read(features, hidden, scene, in_lines=True) if is_published else features

        sums, counts = self._sums(by_class.detach(), shown, step.channels)
        self._seen[tuple(batch.names)] = (sums, counts)
        prototypes, _ = self._moved(sums, counts)
        prototypes = prototypes.to(features.dtype)
        found = {
            "matching": matching(by_teacher, hidden, prototypes),
            "attraction": attraction(by_class, shown, prototypes, is_published),
            "repulsion": repulsion(by_class, shown, step.channels),
            "sparsity": sparsity(features, shown),
        }
        for name in TERMS:
            terms[name] = getattr(self, f"{name}_weight") * found[name]
        return terms

    def updated(self, step):
        super().updated(step)
        mine = {}  # a process may have no part of the batch
        for sums, counts in self._seen.values():
            mine = {"sums": mine.get("sums", 0) + sums, "counts": mine.get("counts", 0) + counts}
        whole = distributed.total_of(mine, step.device)
        self.state["prototypes"], self.state["counts"] = self._moved(whole["sums"], whole["counts"])

    def end(self, step):
        super().end(step)
        if step.index:
            return

        def sums(batch):
            with torch.inference_mode(), step.autocast():
                features = step.network(SparseTensor(batch.features, batch.coordinates)).features
            return dict(
                zip(("sums", "counts"), self._sums(features, batch.labels, step.channels), strict=True)
            )

        found = step.add_up("prototypes", sums)
        self.state["counts"] = found["counts"]
        self.state["prototypes"] = found["sums"] / found["counts"].clamp(min=1)[:, None]

    def _sums(self, features: Tensor, labels: Tensor, channels: int) -> tuple[Tensor, Tensor]:
        """Sums (C, F) float64 and counts (C,) of the classes, 0 for background."""
        sums, counts = sums_of_classes(features.double(), labels, channels)
        is_class = torch.arange(channels, device=sums.device) > 0
        return sums * is_class[:, None], counts * is_class

    def _moved(self, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Prototypes (C, F) and counts (C,) with these voxels among those seen."""
        prototypes, before = (self.state[name].to(sums.device) for name in ("prototypes", "counts"))
        after = before + counts
        moved = (sums + before[:, None] * prototypes) / after.clamp(min=1)[:, None]
        return torch.where(counts[:, None] > 0, moved, prototypes.to(moved)), after


def old_classes(labels: Tensor, old_logits: Tensor) -> Tensor:
    """(N,) the teacher's class where a step shows background, 255 where that is background, and elsewhere."""
    likely = old_logits.argmax(1)
    return torch.where((labels == 0) & (likely > 0), likely, IGNORE)


def as_read(features: Tensor, labels: Tensor, scene: Tensor, in_lines: bool) -> Tensor:
    """Features (N, F) as the published code reads those of each label: listed scene by scene, channel by
    channel, then cut into F rows of equal length, or with `in_lines` into lines of F."""
    read = features.clone()
    for label in labels.unique():
        mask = labels == label
        parts = [features[mask & (scene == number)].T.flatten() for number in scene.unique()]
        values = torch.cat(parts)
        width = features.shape[1]
        lines = values.view(-1, width) if in_lines else values.view(width, -1).T
        places = torch.cat([(mask & (scene == number)).nonzero()[:, 0] for number in scene.unique()])
        read = read.index_copy(0, places, lines)
    return read


def matching(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Mean over the classes in labels (N,) of the mean squared difference of the mean of their features (N,
    F) and their prototype (C, F)."""
    means, occurs = means_of_classes(features, labels, len(prototypes))
    squares = (means - prototypes).square().mean(1) * occurs
    return mean_over(squares.sum(), occurs.sum())


def attraction(features: Tensor, labels: Tensor, prototypes: Tensor, divides_in_between: bool) -> Tensor:
    """Mean over the channels in labels (N,) of the mean squared difference of their features (N, F) to their
    prototype (C, F)."""
    known = labels != IGNORE
    squares = (features[known] - prototypes[labels[known]]).square().mean(1, keepdim=True)
    means, occurs = means_of_classes(squares, labels[known], len(prototypes))
    if not divides_in_between:
        return mean_over(means.sum(), occurs.sum())
    total = features.sum() * 0
    for value in means[occurs, 0]:
        total = (total + value) / occurs.sum()
    return total


def repulsion(features: Tensor, labels: Tensor, channels: int) -> Tensor:
    """Mean over pairs of channels in labels (N,) of the inverse distance of the means of their features."""
    means, occurs = means_of_classes(features, labels, channels)
    present = means[occurs]
    pairs = ~torch.eye(len(present), dtype=torch.bool, device=means.device)
    distances = (present[:, None] - present[None]).square().sum(2)[pairs].clamp(min=1e-12).sqrt()
    return mean_over((1 / distances).sum(), distances.numel())


def sparsity(features: Tensor, labels: Tensor) -> Tensor:
    """Mean over voxels of sum(exp f) / sum(f), f the features (N, F) over the largest one of their label,
    voxels without a label among them."""
    region = labels.unique(return_inverse=True)[1]
    largest = features.new_zeros(len(features)).scatter_reduce(0, region, features.amax(1), "amax")
    scaled = features / largest.clamp(min=1e-6)[region][:, None]
    density = scaled.exp().sum(1) / scaled.sum(1).clamp(min=1e-6)
    return mean_over(ordered_sum(density), len(density))
