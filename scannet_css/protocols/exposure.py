"""What each step of a protocol shows of a prepared data set, and what it hides as background.

Points that a step shows as background though they belong to an old or a future class are the background shift
that MiB (Cermelli et al., CVPR 2020) and its successors work against; here it is counted, without training.
Which scenes and labels a step has is asked of the protocol.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from scannet_css.errors import InputError
from scannet_css.protocols.protocol import BACKGROUND, IGNORE, Protocol

if TYPE_CHECKING:
    from scannet_css.scenes import Manifest

NO_CLASS = "no class"  # label 255: nobody annotated it, or as something outside the data set's classes
# what becomes of a group of points in a step's training labels, in the order of the picture
OUTCOMES = {
    "new": "new class, shown",
    "old": "old class, shown",
    "old_hidden": "old class, as background",
    "future_hidden": "future class, as background",
    "background": "true background",
    "no_class_hidden": "no class, as background",
    "ignored": "ignored",
}
HIDDEN = ("old_hidden", "future_hidden")


@dataclass(frozen=True)
class Group:
    """The points and instances of one class, or of none, in the scenes of a step."""

    name: str
    outcome: str  # see OUTCOMES
    points: int  # vertices
    instances: int
    scenes: int  # with at least one of its points


@dataclass(frozen=True)
class StepExposure:
    """One step: its scenes, and what its training labels make of every class."""

    step: int
    classes: tuple[str, ...]  # that the step adds
    scenes: tuple[str, ...]  # names, sorted
    groups: tuple[Group, ...]  # in the order of channels, then true background, then no class

    def points(self, *outcomes: str) -> int:
        """Vertices with one of the outcomes; all without any named."""
        return sum(group.points for group in self.groups if not outcomes or group.outcome in outcomes)

    def instances(self, *outcomes: str) -> int:
        """Instances with one of the outcomes; all without any named."""
        return sum(group.instances for group in self.groups if not outcomes or group.outcome in outcomes)

    @property
    def background_shift(self) -> float | None:
        """Share (0 to 1) of the points shown as background that are an old or a future class; None without
        any."""
        shown = self.points(*HIDDEN, "background", "no_class_hidden")
        return self.points(*HIDDEN) / shown if shown else None


def measure_exposure(
    protocol: Protocol, manifest: "Manifest", instances: Mapping[str, Sequence[int]], split: str = "train"
) -> list[StepExposure]:
    """What every step of `protocol` shows and hides in the scenes of `split`.

    `instances` has for each of these scenes what `count_instances` gives. Points come from the manifest.
    Raises InputError if the protocol does not fit the data set or a step has no scene.
    """
    steps = []
    for step in range(len(protocol.steps)):
        entries = protocol.scenes(step, manifest, split)
        counts = torch.tensor([(*entry.class_counts, entry.ignored) for entry in entries])
        objects = torch.tensor([tuple(instances[entry.name]) for entry in entries])
        order = (*protocol.classes, *protocol.background, NO_CLASS)
        rows = {name: row for row, name in enumerate((*manifest.classes, NO_CLASS))}
        groups = tuple(
            Group(
                name=name,
                outcome=_outcome(protocol, step, manifest.classes, name),
                points=int(counts[:, rows[name]].sum()),
                instances=int(objects[:, rows[name]].sum()),
                scenes=int((counts[:, rows[name]] > 0).sum()),
            )
            for name in order
        )
        steps.append(StepExposure(step, protocol.steps[step], tuple(e.name for e in entries), groups))
    return steps


def measure_recurrence(
    protocol: Protocol, manifest: "Manifest", split: str = "train"
) -> dict[str, list[tuple[int, int]]]:
    """Of the protocol's regime, of overlapped and of partitioned: for every step its scenes, and how many of
    them an earlier step has had. A regime that the protocol does not have may leave a step none."""
    found = {}
    for regime in dict.fromkeys((protocol.regime, "overlapped", "partitioned")):
        seen: set[str] = set()
        found[regime] = []
        for step in range(len(protocol.steps)):
            try:
                entries = replace(protocol, regime=regime).scenes(step, manifest, split)
            except InputError:
                if regime == protocol.regime:
                    raise
                entries = []
            names = {entry.name for entry in entries}
            found[regime].append((len(names), len(names & seen)))
            seen |= names
    return found


def count_instances(labels: torch.Tensor, instances: torch.Tensor, classes: int) -> tuple[int, ...]:
    """Instances of each of `classes` classes, and last those of none: one scene's (classes + 1,) numbers.

    labels (P,) uint8, 255 for none; instances (P,) int32, -1 for none. The class of an instance is the most
    frequent label of its vertices, 255 among them; a tie goes to the smaller label.
    """
    inside = instances >= 0
    ids, instance = torch.unique(instances[inside], return_inverse=True)
    column = labels[inside].long().clamp(max=classes)
    votes = torch.bincount(instance * (classes + 1) + column, minlength=len(ids) * (classes + 1))
    winners = votes.view(len(ids), classes + 1).argmax(dim=1) if len(ids) else column[:0]
    return tuple(torch.bincount(winners, minlength=classes + 1).tolist())


def _outcome(protocol: Protocol, step: int, dataset_classes: Sequence[str], name: str) -> str:
    """What the training labels of `step` make of the points of class `name`."""
    label = IGNORE if name == NO_CLASS else dataset_classes.index(name)
    channel = int(protocol.training_table(step, dataset_classes)[label])
    if channel == IGNORE:
        return "ignored"
    if channel != BACKGROUND:
        return "new" if channel in protocol.new_channels(step) else "old"
    if name == NO_CLASS:
        return "no_class_hidden"
    if name in protocol.background:
        return "background"
    return "old_hidden" if name in protocol.seen(step) else "future_hidden"
