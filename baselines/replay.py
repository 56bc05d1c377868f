"""Replay: cross-entropy on the step's scenes and on a memory of earlier ones (experience replay, as in A.
Robins, "Catastrophic forgetting, rehearsal and pseudorehearsal", Connection Science 1995).

The memory holds `scenes_kept` whole scenes with the labels that were shown when they were of the step,
chosen after each step: the classes seen take turns, each with the scene that has most of its points, as
long as there is one. A kept scene that is also of the present step shows both steps' labels; in any other,
what it did not show is ignored, since it may be of a class that came since.
"""

from dataclasses import dataclass

from scannet_css.errors import InputError
from scannet_css.methods.method import Method, option


@dataclass
class Replay(Method):
    name = "replay"
    needs_teacher = False
    scenes_kept: int = option(100, "scenes in the memory", least=1)

    def check(self, protocol, manifest):
        scenes = len(manifest.split("train"))
        if self.scenes_kept > scenes:
            raise InputError(
                f"method 'replay': scenes_kept is {self.scenes_kept}; expected at most the {scenes} training"
                f" scenes of {manifest.folder}"
            )
        self._entries = {entry.name: entry for entry in manifest.split("train")}
        self._labels = {name: label for label, name in enumerate(manifest.classes)}

    def remembered(self, step):
        return self.state["memory"]

    def scenes(self, step):
        kept = {name: self._entries[name] for name in self.state["memory"]}
        return list({entry.name: entry for entry in [*step.scenes, *kept.values()]}.values())

    def end(self, step):
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
