"""Confusion matrices -> every number that is reported. docs/metrics.md states each formula and edge case.

METRICS is the one place that knows them: whatever shows, sorts, bounds or explains a number asks it.

A confusion matrix is (C, C) integers: rows are the ground truth's channels, columns the predicted ones,
channel 0 is background and the classes follow in the order in which they arrive: an earlier step has the
smaller matrix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scannet_css.classes import IGNORE


@dataclass(frozen=True)
class Ious:
    """What a metric is computed from. `steps`: percent of every channel after each step, (C_t,) float64, NaN
    where it has none; `base`: how many classes are old."""

    steps: list[np.ndarray]
    base: int

    @property
    def last(self) -> np.ndarray:
        return self.steps[-1]

    @property
    def old(self) -> float | None:
        return _mean(self.last[1 : self.base + 1])

    @property
    def new(self) -> float | None:
        return _mean(self.last[self.base + 1 :])

    def forgetting(self) -> float | None:
        """Best earlier IoU less the last one, averaged over the classes known before the last step."""
        if len(self.steps) < 2:
            return None
        seen = len(self.steps[-2])
        best = np.full(seen, np.nan)
        for step in self.steps[:-1]:
            best[: len(step)] = np.fmax(best[: len(step)], step)  # fmax passes over NaN
        return _mean((best - self.last[:seen])[1:])

    def average(self) -> float | None:
        return _mean(np.array([_mean(step[1:]) for step in self.steps], dtype=np.float64))


@dataclass(frozen=True)
class Metric:
    """A reported number, in percent.

    `better` is "high" or "low", None where neither is good. `lowest` is the least value there can be, 100 the
    most. `needs` says what a run must have for the number to exist: NEW_CLASSES, EARLIER_STEP, SOME_POINT (of
    background, which no protocol promises), or nothing beyond classes.
    """

    name: str
    meaning: str  # one line, for readers of a table
    value: Callable[[Ious], float | None]
    better: str | None = "high"
    lowest: float = 0.0
    needs: str = ""
    decimals: int = 1  # as tables show it

    def shown(self, value: float | None, deviation: float | None = None) -> str:
        """As a table shows it, "12.3" or "12.3 ± 0.4"; empty where there is none."""
        numbers = [f"{number:.{self.decimals}f}" for number in (value, deviation) if number is not None]
        return " ± ".join(numbers)

    def rank(self, value: float) -> float:
        """Larger is better; the same for values that a table shows alike."""
        return round(value, self.decimals) * (-1 if self.better == "low" else 1)


NEW_CLASSES, EARLIER_STEP, SOME_POINT = "new classes", "an earlier step", "some point"
METRICS = {
    metric.name: metric
    for metric in (
        Metric("bg", "IoU of background", lambda ious: _mean(ious.last[:1]), None, needs=SOME_POINT),
        Metric("old", "mean over the classes of step 0", lambda ious: ious.old),
        Metric("new", "mean over all classes added after step 0", lambda ious: ious.new, needs=NEW_CLASSES),
        Metric(
            "all",
            "mean over all classes without background; the table is sorted by it",
            lambda ious: _mean(ious.last[1:]),
        ),
        Metric(
            "all_with_bg",
            "mean over all classes and background, as papers on images report it",
            lambda ious: _mean(ious.last),
        ),
        Metric("average", "mean of all over the steps", Ious.average),
        Metric(
            "hiou",
            "harmonic mean of old and new",
            lambda ious: _harmonic_mean(ious.old, ious.new),
            needs=NEW_CLASSES,
        ),
        Metric(
            "forgetting",
            "best earlier IoU less the last, over classes known before the last step; low is good",
            Ious.forgetting,
            better="low",
            lowest=-100.0,
            needs=EARLIER_STEP,
        ),
    )
}


def accumulate(confusion: Tensor | None, truth: Tensor, prediction: Tensor, channels: int) -> Tensor:
    """Adds points to a confusion matrix (None starts one): (C, C) int64 on the device of `truth`.

    `truth` (P,) holds channels or 255, which is skipped; `prediction` (P,) holds channels. Counting is
    exact and does not depend on order or device. Raises ValueError for a channel outside 0..C-1 at a
    counted point.
    """
    if truth.shape != prediction.shape:
        raise ValueError(
            f"truth is {tuple(truth.shape)}, prediction {tuple(prediction.shape)}, expected the same"
        )
    counted = truth != IGNORE
    truth, prediction = truth[counted].long(), prediction[counted].long()
    for name, values in (("truth", truth), ("prediction", prediction)):
        least, most = (int(values.min()), int(values.max())) if values.numel() else (0, 0)
        if least < 0 or most >= channels:
            raise ValueError(f"{name} holds {least}..{most}, expected 0..{channels - 1}")
    counts = torch.bincount(truth * channels + prediction, minlength=channels * channels)
    counts = counts.view(channels, channels)
    return counts if confusion is None else confusion + counts


def class_ious(confusion) -> np.ndarray:
    """TP / (TP + FP + FN) per channel: (C,) float64 in 0..1, NaN where truth and prediction both lack it."""
    matrix = _matrix(confusion)
    hit = matrix.diagonal().astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - matrix.diagonal()
    return np.divide(hit, union, out=np.full(len(matrix), np.nan), where=union > 0)


def summarise(confusions: Sequence, base_classes: int | None = None) -> dict[str, float | None]:
    """The reported numbers (METRICS) in percent from the confusion matrices after each step, in order.

    `confusions`: one (C_t, C_t) per step (tensor, array or nested lists), C_t never shrinking.
    `base_classes`: how many foreground classes are old; by default those of step 0, to be given for a joint
    run, which has one step. A number that has nothing to be computed from is None: no old or new class, no
    earlier step, no occurring class. Raises ValueError for anything that is not such a sequence.
    """
    steps = _ious_of_steps(confusions)
    ious = Ious(steps, _base_classes(steps, base_classes))
    return {name: metric.value(ious) for name, metric in METRICS.items()}


def iou_table(confusions: Sequence) -> np.ndarray:
    """The IoU of every channel after every step: (T, C) float64 in percent, C the channels of the last step.

    NaN where a class has not arrived yet, or where neither truth nor prediction has it. Raises ValueError as
    `summarise`.
    """
    ious = _ious_of_steps(confusions)
    table = np.full((len(ious), len(ious[-1])), np.nan)
    for row, step in zip(table, ious, strict=True):
        row[: len(step)] = step
    return table


def curves(confusions: Sequence, base_classes: int | None = None) -> dict[str, list[float | None]]:
    """Every number of METRICS after each step: T values in percent, the last of them those of `summarise`.

    The value at step t is what `summarise` gives for the steps up to t, so `new` grows with the classes and
    `average` and `forgetting` are those so far. Raises ValueError as `summarise`.
    """
    base = _base_classes(_ious_of_steps(confusions), base_classes)
    steps = [
        summarise(confusions[: step + 1], min(base, len(confusion) - 1))
        for step, confusion in enumerate(confusions)
    ]
    return {name: [numbers[name] for numbers in steps] for name in METRICS}


def backward_transfer(confusions: Sequence) -> float | None:
    """IoU after the last step less that right after the step that brought the class, in percent points,
    averaged over the classes seen before the last step; negative where learning on made them worse.

    D. Lopez-Paz and M. Ranzato, Gradient Episodic Memory for Continual Learning, NIPS 2017, section 2, over
    classes instead of over steps. None with a single step, or where no class has both. Raises ValueError as
    `summarise`.
    """
    table, learnt = iou_table(confusions), _when_learnt(confusions)
    changes = [
        table[-1, c] - table[learnt[c], c] for c in range(1, len(learnt)) if learnt[c] < len(table) - 1
    ]
    return _mean(np.array(changes, dtype=np.float64))


def intransigence(confusions: Sequence, joint) -> float | None:
    """What a method could not learn: the joint run's IoU of a step's classes less the method's right after
    that step, in percent points, averaged over each step's classes and then over the steps from 1 on.

    A. Chaudhry et al., Riemannian Walk for Incremental Learning, ECCV 2018, section 3, with one reference
    for all steps: `joint` (C, C), trained on all classes at once, channels as after the method's last step.
    Merging channels leaves another one's IoU as it is, so classes that are background to the method so far
    cost the reference nothing in counting; but it had to tell more classes apart. None without an added step,
    or where no class has both. Raises ValueError as `summarise`, and for a joint of other channels.
    """
    table, learnt = iou_table(confusions), _when_learnt(confusions)
    reference = 100 * class_ious(joint)
    if len(reference) != len(learnt):
        raise ValueError(
            f"joint has {len(reference)} channels, expected {len(learnt)} as after the last step"
        )
    gaps = [_mean((reference - table[step])[learnt == step]) for step in range(1, len(table))]
    return _mean(np.array(gaps, dtype=np.float64))


def _ious_of_steps(confusions: Sequence) -> list[np.ndarray]:
    """(C_t,) percent per step; raises ValueError for what is no sequence of growing matrices."""
    ious = [100 * class_ious(confusion) for confusion in confusions]
    sizes = [len(step) for step in ious]
    if not sizes or sizes[0] < 1 or sizes != sorted(sizes):
        raise ValueError(f"channels per step are {sizes}, expected at least one step and no shrinking")
    return ious


def _base_classes(ious: list[np.ndarray], base_classes: int | None) -> int:
    base = len(ious[0]) - 1 if base_classes is None else base_classes
    if not 0 <= base < len(ious[-1]):
        raise ValueError(f"base_classes is {base}, expected 0..{len(ious[-1]) - 1}")
    return base


def _when_learnt(confusions: Sequence) -> np.ndarray:
    """(C,) the step that brought each channel."""
    sizes = np.array([len(confusion) for confusion in confusions])
    return np.searchsorted(sizes, np.arange(sizes[-1]), side="right")


def _harmonic_mean(old: float | None, new: float | None) -> float | None:
    if old is None or new is None:
        return None
    return 2 * old * new / (old + new) if old + new > 0 else 0.0


def _mean(values: np.ndarray) -> float | None:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else None


def _matrix(confusion) -> np.ndarray:
    matrix = confusion.detach().cpu().numpy() if isinstance(confusion, Tensor) else np.asarray(confusion)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "iu":
        raise ValueError(f"expected a square integer matrix, got {matrix.dtype} of shape {matrix.shape}")
    if matrix.size and matrix.min() < 0:
        raise ValueError(f"a confusion matrix counts points, got {matrix.min()}")
    return matrix.astype(np.int64)
