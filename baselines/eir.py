"""EIR: the instance memory of Q. Yin et al., "Beyond Background Shift: Rethinking Instance Replay in
Continual Semantic Segmentation", CVPR 2025, on points.

The memory holds cut-out objects of old classes instead of scenes, `objects_kept` in all, the same number of
each class: after a step the instances of its classes, those of the scenes with most points of the class
first. Up to `pasted` of them, of classes taken at random, are put into each scene of a step, onto floor with
nothing above it, and carry their label. Loss: MiB's (baselines/mib.py), with the pasted objects' labels as
true ones.

Against the original: its code cannot be run, and its formulas could not be read; what carries over is the
memory and the pasting. There, images are pasted onto, at regions of most background, with classes that the
teacher sees in the image; pseudo-labels and a distillation by regions are left out. On points an object is
turned about the vertical and never overlaps the room.
"""

from dataclasses import dataclass

import torch

from baselines.mib import MiB
from scannet_css.errors import InputError
from scannet_css.methods.losses import cross_entropy_of_shown
from scannet_css.methods.method import option
from scannet_css.methods.objects import objects_of, pasted
from scannet_css.scenes import load_scene

LEAST_VERTICES = 20
SQUARE = 2  # voxels: see FreeFloor
LOOKED_AT = 20  # scenes, for whether the data have instances at all


@dataclass
class EIR(MiB):
    name = "eir"
    objects_kept: int = option(100, "objects in the memory", least=1)
    pasted: int = option(3, "most objects that are put into a scene", least=1)

    def check(self, protocol, manifest):
        super().check(protocol, manifest)
        entries = [entry for entry in manifest.split("train") if entry.voxels]
        looked_at = entries[:: -(-len(entries) // LOOKED_AT)] if entries else []
        if not any(bool((load_scene(manifest.path(entry)).instances >= 0).any()) for entry in looked_at):
            raise InputError(
                f"method {self.name!r}: {manifest.folder} has no instances (of {len(looked_at)} scenes looked"
                " at none has any); expected data with objects to be kept"
            )
        if len(manifest.classes) + self.pasted > 255:
            raise InputError(
                f"method {self.name!r}: {len(manifest.classes)} classes leave no labels to paste"
            )
        self._manifest = manifest

    def classification(self, step, batch, new, old):
        shown = torch.zeros_like(new.logits, dtype=torch.bool)
        shown[:, step.old_channels :] = True
        return cross_entropy_of_shown(new.logits, batch.labels, shown)

    def change(self, step, tensors, table, generator):
        tensors, table = super().change(step, tensors, table, generator)
        by_class = {}
        for each in self.state["objects"]:
            by_class.setdefault(each["class"], []).append(each)
        if not by_class or not len(tensors["points"]):
            return tensors, table
        channel = {name: c for c, name in enumerate(step.protocol.channel_names(step.index))}
        chosen, names = [], sorted(by_class)
        for _ in range(self.pasted):
            kept = by_class[names[_drawn(len(names), generator)]]
            chosen.append(kept[_drawn(len(kept), generator)])
        labels = [len(self._manifest.classes) + number for number in range(len(chosen))]
        table = table.clone()
        for label, each in zip(labels, chosen, strict=True):
            table[label] = channel[each["class"]]
        square = SQUARE * self._manifest.voxel_size
        return pasted(tensors, chosen, labels, square, generator)[0], table

    def end(self, step):
        super().end(step)
        share = max(1, self.objects_kept // (step.channels - 1))
        kept, count = [], {}
        for each in self.state.get("objects", []):
            count[each["class"]] = count.get(each["class"], 0) + 1
            if count[each["class"]] <= share:
                kept.append(each)
        for name in step.protocol.steps[step.index]:
            kept += self._found(step, name, share)
        self.state["objects"] = kept[: self.objects_kept]

    def _found(self, step, name, number):
        """At most so many objects of a class, from the scenes that have most points of it."""
        label = self._manifest.classes.index(name)
        having = [entry for entry in step.scenes if entry.class_counts[label]]
        having.sort(key=lambda entry: (-entry.class_counts[label], entry.name))
        found = []
        for entry in having:
            if len(found) >= number:
                break
            found += objects_of(load_scene(self._manifest.path(entry)), label, name, LEAST_VERTICES)
        return found[:number]


def _drawn(count, generator):
    return int(torch.randint(count, (1,), generator=generator))
