"""Replay of features instead of scenes: what is remembered of a class, and what is drawn from it (J. Chen et
al., Saving 100x Storage: Prototype Replay for Reconstructing Training Sample Distribution in
Class-Incremental Semantic Segmentation, NeurIPS 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.methods.losses import IGNORE, wide
from scannet_css.methods.means import mean_over
from scannet_css.network import Output


def decisions(logits: Tensor, least_logit: float) -> Tensor:
    """(N,) the channel of the largest logit among classes, 0 where none is above `least_logit`; channel 0 of
    logits (N, K) takes no part."""
    largest, channel = logits[:, 1:].max(1)
    return torch.where(largest > least_logit, channel + 1, 0)


def binary_terms(logits: Tensor, target: Tensor, positive_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy of each logit (N, n), positives `positive_weight` times."""
    logits = wide(logits)
    weight = torch.full_like(logits[:1], positive_weight)
    return F.binary_cross_entropy_with_logits(logits, target.to(logits), reduction="none", pos_weight=weight)


def shares(
    previous: Tensor, predicted: Tensor, batches: int, new_classes: int, is_disjoint: bool
) -> tuple[Tensor, float, Tensor]:
    """What a step has to add. `previous` (K,): rows that background and each old class have had; `predicted`
    (K,): the teacher's answers at the step's background.

    Gives rows to replay of each class and batch (K - 1,), how often background counts in addition, and
    `previous` (K,) for the step after. In overlapped data the old classes at the step's background are not
    replayed, and the authors take 1 % of background for each new class and half a background off.
    """
    previous, predicted = previous.double(), predicted.double()
    missing = previous[1:] - (0 if is_disjoint else predicted[1:])
    replayed = (missing / batches).floor().clamp(min=0).long()
    background = previous[0] * (1 if is_disjoint else 1 - 0.01 * new_classes)
    ratio = background / predicted[0].clamp(min=1) - (0 if is_disjoint else 0.5)
    after = previous + predicted if is_disjoint else previous.clone()
    after[0] = background + predicted[0] * (1 if is_disjoint else 0.5)
    return replayed, max(float(ratio), 0.0), after


def drawn_features(
    prototypes: Tensor, noise: Tensor, lengths: Tensor, direction: Tensor, length: Tensor
) -> Tensor:
    """Features (R, F): a prototype (R, F) and `noise` (R, F) times the draw `direction` (R, F), at lengths of
    mean and deviation `lengths` (R, 2) with the draw `length` (R, F) or (R, 1)."""
    return (prototypes + direction * noise) * (lengths[:, :1] + length * lengths[:, 1:])


def kept_features(new: Tensor, old: Tensor, region: Tensor) -> Tensor:
    """Mean squared difference of features (N, F), rows weighed by `region` (N,), 0..1."""
    new = wide(new)
    squares = (new - old.to(new.dtype)).square().sum(1)
    return mean_over((region * squares).sum(), region.sum() * new.shape[1])


def nearness(features: Tensor, shares_of_classes: Tensor, prototypes: Tensor) -> Tensor:
    """Mean over the classes that occur of 1 / distance of their mean direction to the nearest of `prototypes`
    (K - 1, F). features (N, F); shares_of_classes (N, n): how much of a row is of a class, 0..1."""
    features = wide(features)
    weights = shares_of_classes.to(features)
    occurs = weights.sum(0) > 0
    centres = F.normalize((weights.T @ F.normalize(features, dim=1))[occurs], dim=1)
    distances = (centres[:, None] - prototypes.to(features)).square().sum(2)
    nearest = distances.amin(1).clamp(min=1e-12).sqrt()
    return mean_over((1 / nearest).sum(), len(nearest))


def sums_of_directions(features: Tensor, labels: Tensor, first: int, channels: int) -> dict[str, Tensor]:
    """What `statistics_of` needs of features (N, F) with labels `first` to `channels` - 1; double."""
    is_class = (labels >= first) & (labels != IGNORE)
    rows, of = features[is_class].double(), labels[is_class] - first
    length = rows.norm(dim=1, keepdim=True)
    unit = rows / length.clamp(min=1e-12)
    columns = torch.cat([unit, unit.square(), length, length.square()], 1)
    sums = columns.new_zeros(channels - first, columns.shape[1]).index_add(0, of, columns)
    counts = torch.bincount(of, minlength=channels - first)
    return {"sums": sums, "counts": counts, "background": (labels == 0).sum()}


def statistics_of(found: dict[str, Tensor], against: Tensor | None = None) -> dict[str, Tensor]:
    """prototypes (n, F) of length 1, noise (n, F), root mean square of direction less prototype by channel,
    and lengths (n, 2), mean and unbiased deviation; 0 for a class without rows.

    against (K - 1, F): rows that stand for the prototypes in the noise, as far as there are.
    """
    counts = found["counts"].double()[:, None]
    width = (found["sums"].shape[1] - 2) // 2
    unit, squares, length, length_squares = found["sums"].split([width, width, 1, 1], 1)
    prototypes = F.normalize(unit, dim=1)
    origin = prototypes.clone()
    if against is not None:
        rows = min(len(against), len(origin))
        origin[:rows] = against[:rows].to(origin)
    present = counts.clamp(min=1)
    noise = (squares - 2 * origin * unit + counts * origin.square()) / present
    mean = length / present
    variance = (length_squares - counts * mean.square()) / (counts - 1).clamp(min=1)
    deviation = variance.clamp(min=0).sqrt()
    learnt = {
        "prototypes": prototypes,
        "noise": noise.clamp(min=0).sqrt(),
        "lengths": torch.cat([mean, deviation], 1),
    }
    return {name: value.float() for name, value in learnt.items()}


def margins(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two largest sigmoids of class logits (N, C - 1), and the channel of the first, counted from 1."""
    logits = wide(logits)
    values, channels = logits.sigmoid().topk(min(2, logits.shape[1]), dim=1)
    second = values[:, 1] if values.shape[1] > 1 else torch.zeros_like(values[:, 0])
    return values[:, 0], second, channels[:, 0] + 1


def uncertainty(logits: Tensor, labels: Tensor, sure: float) -> Tensor:
    """Mean of ((1 - (s1 - s2)) m)^2 over rows: s1, without gradient, and s2 the two largest sigmoids of class
    logits (N, C - 1), m 0 where s1 is above `sure` or of the label (N,), else 1 (G. Zhu et al., Adaptive
    Prototype Replay for Class Incremental Semantic Segmentation, AAAI 2025)."""
    first, second, channel = margins(logits)
    counts = ~((channel == labels) | (first > sure))
    unsure = (1 - (first.detach() - second)) * counts
    return mean_over(unsure.square().sum(), len(labels))


def sums_of_drift(new: Output, old: Output, labels: Tensor, sure: float) -> dict[str, Tensor]:
    """Directions (K - 1, F) of student and teacher, and rows (K - 1,), where a label is background and both
    give the same old class with a distance of more than `sure` between their two largest sigmoids."""
    classes = old.logits.shape[1] - 1
    (new_first, new_second, new_channel), (old_first, old_second, old_channel) = (
        margins(output.logits[:, 1:]) for output in (new, old)
    )
    agree = (labels == 0) & (new_channel == old_channel)
    agree &= (new_first - new_second > sure) & (old_first - old_second > sure)
    of, sums = old_channel[agree] - 1, {"rows": torch.bincount(old_channel[agree] - 1, minlength=classes)}
    for name, output in (("new", new), ("old", old)):
        unit = F.normalize(output.features[agree].double(), dim=1)
        sums[name] = unit.new_zeros(classes, unit.shape[1]).index_add(0, of, unit)
    return sums


def drifted(
    found: dict[str, Tensor], prototypes: Tensor, noise: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Prototypes and noise (K - 1, F) after a step, from `sums_of_drift`; numbers (K,) rows that background
    and each class have had."""
    share = (found["rows"] / numbers[1:].to(found["rows"].device).clamp(min=1))[:, None]
    change = share * (F.normalize(found["new"], dim=1) - F.normalize(found["old"], dim=1))
    change = change.to(prototypes)
    return prototypes + change, noise + change.abs()
