"""Replay: cross-entropy on the step's scenes and on a memory of earlier ones (experience replay, as in A.
Robins, "Catastrophic forgetting, rehearsal and pseudorehearsal", Connection Science 1995), alone
(`replay`) and with MiB's distillation (`mib-augm`: T. Park et al., arXiv 2405.09858).

The memory holds `scenes_kept` whole scenes with the labels that were shown when they were of the step,
chosen after each step: the classes seen take turns, each with the scene that has most of its points, as
long as there is one. A kept scene that is also of the present step shows both steps' labels.

Cross-entropy is unbiased: where a scene shows no class, background stands for all classes that it does not
show. A plain one (`--cross-entropy plain`) teaches, on the step's own scenes, that remembered classes are
background. What a kept scene did not show is ignored by `replay`, unless it is of the step; `mib-augm` learns
from it as from any other background.

Against the original: `mib-augm`'s cross-entropy exact to 1e-9 for both kinds of scenes, but for rows to be
ignored, which its code takes for background. Different: memory and step share a batch by chance, and the mean
is over all labelled rows, where its batches are half memory, half step, and each half has its own mean.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.mib import MiB
from scannet_css.errors import InputError
from scannet_css.methods.losses import cross_entropy, cross_entropy_of_shown
from scannet_css.methods.method import Method, option


@dataclass
class MemoryMethod(Method):
    """The memory, for any method."""

    scenes_kept: int = option(100, "scenes in the memory", least=1)

    def check(self, protocol, manifest):
        super().check(protocol, manifest)
        scenes = len(manifest.split("train"))
        if self.scenes_kept > scenes:
            raise InputError(
                f"method {self.name!r}: scenes_kept is {self.scenes_kept}; expected at most the {scenes}"
                f" training scenes of {manifest.folder}"
            )
        self._entries = {entry.name: entry for entry in manifest.split("train")}
        self._labels = {name: label for label, name in enumerate(manifest.classes)}

    def remembered(self, step):
        return self.state["memory"]

    def scenes(self, step):
        kept = {name: self._entries[name] for name in self.state["memory"]}
        return list({entry.name: entry for entry in [*step.scenes, *kept.values()]}.values())

    def shown(self, step, batch) -> Tensor:
        """(N, C) bool: the classes that the scene of each row shows."""
        own, memory = {entry.name for entry in step.scenes}, self.remembered(step)
        channel = {name: c for c, name in enumerate(step.protocol.channel_names(step.index))}
        shown = torch.zeros(len(batch.names), step.channels, dtype=torch.bool)
        for number, name in enumerate(batch.names):
            if name in own or name not in memory:
                shown[number, step.old_channels :] = True
            shown[number, [channel[each] for each in memory.get(name, ())]] = True
        return shown.to(batch.labels.device)[batch.coordinates[:, 0].long()]

    def end(self, step):
        super().end(step)
        shown = {entry.name: list(step.protocol.steps[step.index]) for entry in step.scenes}
        for name, classes in self.state.get("memory", {}).items():
            shown[name] = [*classes, *shown.get(name, [])]
        self.state["memory"] = self._chosen(shown, step.protocol.seen(step.index))

    def _chosen(self, shown, classes):
        """Of the scenes and what they show, those to keep."""
        queues = []
        for name in classes:
            label = self._labels[name]
            points = {scene: self._entries[scene].class_counts[label] for scene in shown}
            having = [scene for scene in shown if name in shown[scene] and points[scene]]
            queues.append(sorted(having, key=lambda scene: (-points[scene], scene)))
        kept = {}
        while len(kept) < min(self.scenes_kept, len(shown)):
            for queue in queues:
                scene = next((each for each in queue if each not in kept), None)
                if scene is not None and len(kept) < self.scenes_kept:
                    kept[scene] = shown[scene]
        return kept


@dataclass
class ReplayMethod(MemoryMethod):
    """The memory and its cross-entropy."""

    cross_entropy: str = option(
        "unbiased",
        "unbiased: background stands for what a scene does not show; plain: for itself",
        choices=("unbiased", "plain"),
        since="0.2.0",
    )

    def classification(self, step, batch, new, old):
        if self.cross_entropy == "plain":
            return cross_entropy(new.logits, batch.labels)
        return cross_entropy_of_shown(new.logits, batch.labels, self.shown(step, batch))


@dataclass
class Replay(ReplayMethod):
    name = "replay"
    needs_teacher = False


@dataclass
class MiBAugM(ReplayMethod, MiB):
    name = "mib-augm"
    shows_rest = True
