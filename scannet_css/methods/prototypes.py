"""Class prototypes: the mean feature of each class before the classifier."""

import torch
from torch import Tensor

from scannet_css.methods.losses import IGNORE
from scannet_css.methods.method import Step
from scannet_css.scenes.loader import Batch
from scannet_css.sparse import SparseTensor


def sums_of_classes(features: Tensor, labels: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Sums (C, F) and counts (C,) of the features (N, F) of each channel in labels (N,); 255 is left out."""
    known = labels != IGNORE
    labels, features = labels[known], features[known]
    sums = features.new_zeros(channels, features.shape[1]).index_add(0, labels, features)
    return sums, torch.bincount(labels, minlength=channels)


def means_of_classes(features: Tensor, labels: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Means (C, F), 0 where a channel does not occur, and whether it does (C,)."""
    sums, counts = sums_of_classes(features, labels, channels)
    return sums / counts.clamp(min=1)[:, None], counts > 0


def with_teachers_classes(labels: Tensor, old_logits: Tensor) -> Tensor:
    """Labels (N,) with the teacher's most likely channel where a step shows background."""
    return torch.where(labels == 0, old_logits.argmax(1), labels)


def learn_prototypes(step: Step, known: Tensor | None) -> Tensor:
    """(C, F) after a step: those `known` (K, F) before it stay, the step's classes (at step 0 background too)
    get their mean over all voxels of the step's scenes, 0 if they have none."""

    def sums(batch: Batch) -> dict[str, Tensor]:
        with torch.inference_mode(), step.autocast():
            features = step.network(SparseTensor(batch.features, batch.coordinates)).features.float()
        total, counts = sums_of_classes(features, batch.labels, step.channels)
        return {"sums": total.double(), "counts": counts}

    found = step.add_up("prototypes", sums)
    means = (found["sums"] / found["counts"].clamp(min=1)[:, None]).float()
    return means if known is None else torch.cat([known.to(means.device), means[len(known) :]])
