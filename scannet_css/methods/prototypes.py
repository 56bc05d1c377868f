"""Class prototypes: the mean feature of each class before the classifier."""

import torch
from torch import Tensor

from scannet_css.errors import InputError
from scannet_css.methods.losses import IGNORE, wide
from scannet_css.methods.method import Method, Step
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


def learn_prototypes(step: Step, known: Tensor | None) -> Tensor:
    """(C, F) after a step: those `known` (K, F) before it stay, the step's classes (at step 0 background too)
    get the mean over the batches of a pass over the step's scenes of their mean feature in each, whatever
    its number of voxels; 0 if they have none (Phan et al., REMINDER, CVPR 2022)."""

    def sums(batch: Batch) -> dict[str, Tensor]:
        with torch.inference_mode(), step.autocast():
            features = wide(step.network(SparseTensor(batch.features, batch.coordinates)).features)
        means, occurs = means_of_classes(features.double(), batch.labels, step.channels)
        return {"means": means, "batches": occurs.long()}

    found = step.add_up("prototypes", sums)
    means = (found["means"] / found["batches"].clamp(min=1)[:, None]).float()
    return means if known is None else torch.cat([known.to(means.device), means[len(known) :]])


def recalled(method: Method, step: Step, name: str = "prototypes") -> Tensor:
    """What `method` remembers under `name`, on the step's device. Raises InputError at step 0, and where the
    step before has left nothing: prototypes are learnt at the end of a step, for the next."""
    if step.index == 0 or name not in method.state:
        raise InputError(
            f"method {method.name!r}: {name} are asked for at step {step.index}, before any are learnt;"
            " expected from step 1 on, after an `end` that learns them"
        )
    return method.state[name].to(step.device)
