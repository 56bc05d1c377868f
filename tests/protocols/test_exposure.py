"""What a step shows and hides against a count of one vertex at a time, by the rules of docs/protocols.md."""

from collections import Counter

import pytest
import torch

from scannet_css.classes import CLASSES
from scannet_css.errors import InputError
from scannet_css.protocols import Protocol
from scannet_css.protocols.exposure import NO_CLASS, OUTCOMES, count_instances, measure_exposure
from scannet_css.scenes import load_manifest, load_scene

STEPS = (("floor", "wall", "chair"), ("sofa", "sink", "desk"), ("bathtub", "bed", "bookshelf"))
BACKGROUND = tuple(name for name in CLASSES if not any(name in step for step in STEPS))


@pytest.fixture(scope="module")
def prepared(small_set):
    manifest = load_manifest(small_set)
    scenes = {entry.name: load_scene(manifest.path(entry)) for entry in manifest.split("train")}
    counts = {
        name: count_instances(scene.labels, scene.instances, len(CLASSES)) for name, scene in scenes.items()
    }
    return manifest, scenes, counts


def protocol(regime, unannotated="ignore", background=BACKGROUND, steps=STEPS):
    return Protocol("test", 1, "for tests", steps, background, regime, unannotated)


def expected_outcome(name, step, regime, unannotated):
    """The rules of docs/protocols.md in words."""
    if name is None:
        return "ignored" if unannotated == "ignore" else "no_class_hidden"
    if name in BACKGROUND:
        return "background"
    arrives = next(number for number, names in enumerate(STEPS) if name in names)
    if arrives == step:
        return "new"
    if arrives > step:
        return "future_hidden"
    return "old" if regime == "sequential" else "old_hidden"


def belongs(labels, step, regime):
    present = {CLASSES[label] for label in labels if label != 255}
    later = {name for names in STEPS[step + 1 :] for name in names}
    return bool(present & set(STEPS[step])) and not (regime == "disjoint" and present & later)


@pytest.mark.parametrize("unannotated", ["ignore", "background"])
@pytest.mark.parametrize("regime", ["overlapped", "disjoint", "sequential"])
def test_every_vertex_and_instance_is_counted_where_it_belongs(prepared, regime, unannotated):
    manifest, scenes, counts = prepared
    steps = measure_exposure(protocol(regime, unannotated), manifest, counts)
    assert [one.classes for one in steps] == list(STEPS)
    for one in steps:
        points, instances, present, names = Counter(), Counter(), Counter(), []
        for name, scene in sorted(scenes.items()):
            labels = scene.labels.tolist()
            if not belongs(labels, one.step, regime):
                continue
            names.append(name)
            points.update(labels)
            present.update(set(labels))
            votes = {}
            for label, instance in zip(labels, scene.instances.tolist(), strict=True):
                if instance >= 0:
                    votes.setdefault(instance, []).append(label)
            instances.update(
                min(votes_of, key=lambda c: (-votes_of.count(c), c)) for votes_of in votes.values()
            )
        assert list(one.scenes) == names
        assert sorted(group.name for group in one.groups) == sorted((*CLASSES, NO_CLASS))
        shown = Counter()
        for group in one.groups:
            label = 255 if group.name == NO_CLASS else CLASSES.index(group.name)
            assert (group.points, group.instances, group.scenes) == (
                points[label],
                instances[label],
                present[label],
            )
            name = None if group.name == NO_CLASS else group.name
            assert group.outcome == expected_outcome(name, one.step, regime, unannotated)
            shown[group.outcome] += points[label]
        assert {outcome: one.points(outcome) for outcome in OUTCOMES} == {o: shown[o] for o in OUTCOMES}
        assert one.points() == sum(points.values()) and one.instances() == sum(instances.values()) > 0
        hidden = shown["old_hidden"] + shown["future_hidden"]
        background = hidden + shown["background"] + shown["no_class_hidden"]
        assert one.background_shift == pytest.approx(hidden / background)
    regimes_differ = {"overlapped": "old_hidden", "disjoint": "old_hidden", "sequential": "old"}
    assert steps[2].points(regimes_differ[regime]) > 0
    assert (steps[0].points("future_hidden") > 0) is (regime != "disjoint")


def test_joint_training_has_no_background(prepared):
    manifest, _, counts = prepared
    (one,) = measure_exposure(protocol("overlapped", background=(), steps=(CLASSES,)), manifest, counts)
    assert one.background_shift is None
    assert len(one.scenes) == 10
    assert one.points("new") + one.points("ignored") == one.points()


def test_a_step_without_scenes_is_refused(prepared):
    manifest, _, counts = prepared
    rest = tuple(name for name in CLASSES if name not in ("floor", "wall"))
    with pytest.raises(InputError, match="no train scene for step 0"):
        measure_exposure(
            protocol("disjoint", background=rest[1:], steps=(rest[:1], ("floor", "wall"))),
            *(manifest, counts),
        )


@pytest.mark.parametrize(
    ("labels", "instances", "expected"),
    [
        ([0, 0, 1, 255], [7, 7, 7, 7], (1, 0, 0)),
        ([1, 0, 255, 255], [3, 3, 2**31 - 1, -1], (1, 0, 1)),  # a tie goes to the smaller label
        ([1, 1, 255, 255, 255], [0, 0, 0, 0, 0], (0, 0, 1)),
        ([0, 1], [-1, -1], (0, 0, 0)),
        ([], [], (0, 0, 0)),
    ],
)
def test_the_class_of_an_instance(labels, instances, expected):
    labels, instances = torch.tensor(labels, dtype=torch.uint8), torch.tensor(instances, dtype=torch.int32)
    assert count_instances(labels, instances, 2) == expected
