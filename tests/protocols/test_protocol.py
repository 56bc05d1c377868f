"""The shipped class lists against the published ones, the tables of a step, its scenes, what is refused."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scannet_css.classes import CLASSES
from scannet_css.errors import InputError
from scannet_css.protocols import Protocol, load_protocol, protocol_names
from scannet_css.protocols.partition import partition
from scannet_css.scenes import Manifest, SceneEntry

# 3DPC-CISS (CVPR 2023), and ScanNet's own order without otherfurniture
S0 = (
    "wall floor chair table desk bed bookshelf sofa sink bathtub toilet curtain counter door window "
    "shower_curtain refrigerator picture cabinet otherfurniture"
)
S1 = (
    "bathtub bed bookshelf cabinet chair counter curtain desk door floor otherfurniture picture refrigerator "
    "shower_curtain sink sofa table toilet wall window"
)
BY_ID = (
    "wall floor cabinet bed chair sofa table door window bookshelf picture counter desk curtain "
    "refrigerator shower_curtain toilet sink bathtub"
)
SHIPPED = {
    "scannet/lgkd-18-1": (BY_ID, (18, 1), ("otherfurniture",)),
    "scannet/lgkd-14-5": (BY_ID, (14, 5), ("otherfurniture",)),
    "scannet/lgkd-14-1": (BY_ID, (14, 1, 1, 1, 1, 1), ("otherfurniture",)),
    "scannet/s0-15-5": (S0, (15, 5), ()),
    "scannet/s0-17-3": (S0, (17, 3), ()),
    "scannet/s0-19-1": (S0, (19, 1), ()),
    "scannet/s0-15-1": (S0, (15, 1, 1, 1, 1, 1), ()),
    "scannet/s1-15-5": (S1, (15, 5), ()),
    "scannet/s1-17-3": (S1, (17, 3), ()),
    "scannet/s1-19-1": (S1, (19, 1), ()),
    "scannet/s1-15-1": (S1, (15, 1, 1, 1, 1, 1), ()),
    "scannet/offline": (BY_ID + " otherfurniture", (20,), ()),
}
HASHES = {  # records carry them
    "lgkd-14-5": "d48ed5f9a6a5b14e3db9029be083bcfbd88f8eaacba4ad26c1f00bfeb0e7ce0b",
    "s0-15-1": "998842f100eeb850b4f790427ef077a64a97fc027feae5393dbdcf1f9d658639",
    "three-steps-sequential": "8a44b8a75cdb5a648899a971f4d21c2d9d89c1d9ef5faab70db8c1434e168545",
}
TOY = ("wall", "floor", "chair", "sofa", "lamp")


def toy(**changes):
    """wall, floor | chair | sofa; lamp is true background."""
    steps = (("wall", "floor"), ("chair",), ("sofa",))
    protocol = Protocol("toy", 1, "for tests", steps, ("lamp",), "overlapped", "ignore")
    return replace(protocol, **changes)


def toy_manifest(*present, split="train"):
    """One scene per argument, which names the classes that have a point in it."""
    entries = {}
    for number, names in enumerate(present):
        name = f"scene{number:04d}_00"
        counts = tuple(int(c in names.split()) for c in TOY)
        entries[name] = SceneEntry(
            name, split, f"{split}/{name}.safetensors", "0" * 64, 10, 10, counts, 10 - sum(counts), {}, True
        )
    return Manifest(Path("prepared"), "toy", TOY, 0.02, entries)


def test_these_are_shipped():
    names = tuple(name for name in protocol_names() if name.startswith("scannet/"))
    assert names == tuple(sorted(SHIPPED))


@pytest.mark.parametrize("name", SHIPPED)
def test_class_lists(name):
    order, sizes, background = SHIPPED[name]
    protocol = load_protocol(name)
    assert (protocol.name, protocol.version) == (name, 1)
    assert protocol.classes == tuple(word.replace("_", " ") for word in order.split())
    assert tuple(len(step) for step in protocol.steps) == sizes
    assert protocol.background == background
    assert (protocol.regime, protocol.unannotated) == ("overlapped", "ignore")
    assert protocol.channels(len(sizes) - 1) == 1 + sum(sizes)
    assert protocol.predicts_background(len(sizes) - 1) is bool(background)
    assert all(protocol.predicts_background(step) for step in range(len(sizes) - 1))
    protocol.check_dataset(CLASSES)


def test_the_last_part_of_a_name_is_enough():
    assert load_protocol("offline") == load_protocol("scannet/offline")
    assert load_protocol("lgkd-14-5") == load_protocol("scannet/lgkd-14-5")


def test_channels():
    protocol = toy()
    assert [protocol.channels(step) for step in range(3)] == [3, 4, 5]
    assert protocol.channel_names(1) == ("background", "wall", "floor", "chair")
    assert [list(protocol.new_channels(step)) for step in range(3)] == [[1, 2], [3], [4]]
    assert protocol.classes == ("wall", "floor", "chair", "sofa")
    for step in (-1, 3):
        with pytest.raises(IndexError, match="steps 0 to 2"):
            protocol.channels(step)


@pytest.mark.parametrize(
    ("regime", "unannotated", "step", "expected"),
    [
        ("overlapped", "ignore", 0, [1, 2, 0, 0, 0, 255]),
        ("overlapped", "ignore", 1, [0, 0, 3, 0, 0, 255]),
        ("overlapped", "ignore", 2, [0, 0, 0, 4, 0, 255]),
        ("disjoint", "ignore", 1, [0, 0, 3, 0, 0, 255]),
        ("sequential", "ignore", 1, [1, 2, 3, 0, 0, 255]),
        ("sequential", "background", 2, [1, 2, 3, 4, 0, 0]),
        ("overlapped", "background", 0, [1, 2, 0, 0, 0, 0]),
    ],
)
def test_training_labels(regime, unannotated, step, expected):
    table = toy(regime=regime, unannotated=unannotated).training_table(step, TOY)
    assert table.dtype == torch.int64 and table.shape == (256,)
    assert table[[0, 1, 2, 3, 4, 255]].tolist() == expected


@pytest.mark.parametrize("unannotated", ["ignore", "background"])
def test_evaluation_labels(unannotated):
    protocol = toy(unannotated=unannotated)
    tables = [protocol.evaluation_table(step, TOY) for step in range(3)]
    assert [table[:5].tolist() for table in tables] == [[1, 2, 0, 0, 0], [1, 2, 3, 0, 0], [1, 2, 3, 4, 0]]
    assert all(table.shape == (256,) and (table[5:] == 255).all() for table in tables)


def test_labels_follow_the_data_sets_order():
    shuffled = ("lamp", "sofa", "wall", "chair", "floor")
    assert toy().training_table(0, shuffled)[:5].tolist() == [0, 0, 1, 0, 2]
    assert toy().evaluation_table(2, shuffled)[:5].tolist() == [0, 4, 1, 3, 2]


def test_lgkd_on_scannet():
    protocol = load_protocol("scannet/lgkd-14-5")
    base, last = (protocol.training_table(step, CLASSES) for step in (0, 1))
    assert base[:20].tolist() == [*range(1, 15), 0, 0, 0, 0, 0, 0]
    assert last[:20].tolist() == [0] * 14 + [15, 16, 17, 18, 19, 0]
    assert protocol.evaluation_table(1, CLASSES)[:20].tolist() == [*range(1, 20), 0]


def test_true_background_is_always_an_answer():
    without = toy(steps=(("wall", "floor"), ("chair", "sofa", "lamp")), background=())
    assert [without.predicts_background(step) for step in range(2)] == [True, False]
    assert toy().predicts_background(2)
    assert replace(without, unannotated="background").predicts_background(1)


def chosen(protocol, step, manifest, split="train"):
    return [int(entry.name[5:9]) for entry in protocol.scenes(step, manifest, split)]


def test_scenes_of_a_step():
    manifest = toy_manifest("wall", "wall chair", "floor sofa", "chair sofa lamp", "lamp", "chair", "")
    for regime in ("overlapped", "sequential"):
        protocol = toy(regime=regime)
        assert [chosen(protocol, step, manifest) for step in range(3)] == [[0, 1, 2], [1, 3, 5], [2, 3]]
    protocol = toy(regime="disjoint")
    assert [chosen(protocol, step, manifest) for step in range(3)] == [[0], [1, 5], [2, 3]]


def test_partitioned_scenes_are_of_one_step_each():
    present = ["wall", "wall chair", "floor sofa", "chair sofa lamp", "lamp", "chair", "", "wall chair sofa"]
    manifest = toy_manifest(*present)
    steps = [chosen(toy(regime="partitioned"), step, manifest) for step in range(3)]
    assert sorted(scene for names in steps for scene in names) == [0, 1, 2, 3, 5, 7]
    overlapped = [chosen(toy(), step, manifest) for step in range(3)]
    assert all(set(mine) <= set(all_of_them) for mine, all_of_them in zip(steps, overlapped, strict=True))
    assert [len(names) for names in steps] == [2, 2, 2]  # 4, 4 and 3 fit
    backwards = dict(reversed(manifest.scenes.items()))
    again = replace(manifest, scenes=backwards)
    assert [chosen(toy(regime="partitioned"), step, again) for step in range(3)] == steps
    table = toy(regime="partitioned").training_table(1, TOY)
    assert table[[0, 1, 2, 3, 4, 255]].tolist() == [0, 0, 3, 0, 0, 255]


def test_a_partition_is_pinned():
    """Fewest steps first, then by hash, each to the emptiest of its steps."""
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in "abcdef"}
    steps = {"a": [0, 1, 2], "b": [0], "c": [1], "d": [0], "e": [0, 1], "f": [1, 0], "g": []}
    counts, expected = [0, 0, 0], {}
    for group in ("bcd", "ef", "a"):
        for name in sorted(group, key=hashes.get):
            fewest = min(counts[step] for step in steps[name])
            expected[name] = min(step for step in steps[name] if counts[step] == fewest)
            counts[expected[name]] += 1
    assert partition(steps) == expected
    assert counts == [3, 2, 1]
    assert partition({"scene0000_00": [0, 1], "scene0001_00": [0, 1], "scene0002_00": [1]}) == {
        "scene0002_00": 1,
        "scene0000_00": 0,
        "scene0001_00": 0,
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_partition_is_as_even_as_its_scenes_allow(seed):
    """Any step may take a scene: then numbers differ by one at most. Rare steps get all that they can."""
    names = [f"scene{seed}{number:03d}_00" for number in range(100)]
    numbers = Counter(partition(dict.fromkeys(names, (0, 1, 2))).values())
    assert sorted(numbers.values()) == [33, 33, 34]
    rare = {name: (0, 1) if number < 5 else (0,) for number, name in enumerate(names)}
    assert Counter(partition(rare).values()) == {0: 95, 1: 5}


def test_the_hash_of_a_protocol_is_what_it_was():
    hashes = {name: load_protocol(name).hash for name in ("lgkd-14-5", "s0-15-1", "three-steps-sequential")}
    assert hashes == HASHES
    assert toy(regime="partitioned").hash != toy().hash


def test_a_partition_that_leaves_a_step_without_a_scene_is_refused():
    message = str(
        pytest.raises(InputError, toy(regime="partitioned").scenes, 1, toy_manifest("wall chair")).value
    )
    assert message == (
        "prepared: no train scene for step 1 of protocol toy; expected one with a point of chair that no"
        " other step has"
    )


def test_scenes_of_a_split():
    manifest = toy_manifest("wall", "chair", split="val")
    assert chosen(toy(), 1, manifest, "val") == [1]
    message = str(pytest.raises(InputError, toy().scenes, 1, manifest).value)
    assert message == (
        "prepared: no train scene for step 1 of protocol toy; expected one with a point of chair"
    )
    with pytest.raises(InputError, match="point of wall, floor and none of a later class"):
        toy(regime="disjoint").scenes(0, toy_manifest("wall chair"))


def test_offline():
    protocol = toy(regime="sequential").offline()
    assert protocol.steps == (("wall", "floor", "chair", "sofa"),) and protocol.background == ("lamp",)
    assert (protocol.name, protocol.regime, protocol.unannotated) == ("toy-offline", "sequential", "ignore")
    assert protocol.training_table(0, TOY)[:5].tolist() == toy().evaluation_table(2, TOY)[:5].tolist()
    assert protocol.offline().hash == protocol.hash


def test_the_hash_is_that_of_the_meaning():
    # this value stands in records: it may change only with the protocol's version
    assert load_protocol("scannet/lgkd-14-5").hash.startswith("d48ed5f9")
    protocol = toy()
    same = [replace(protocol, name="other"), replace(protocol, description="other")]
    assert {other.hash for other in same} == {protocol.hash}
    two = toy(steps=(("wall", "floor"), ("chair",)), background=("sofa", "lamp"))
    assert replace(two, background=("lamp", "sofa")).hash == two.hash
    others = [
        two,
        replace(protocol, version=2),
        replace(protocol, regime="disjoint"),
        replace(protocol, unannotated="background"),
        replace(protocol, background=()),
        replace(protocol, steps=(("floor", "wall"), ("chair",), ("sofa",))),
        replace(protocol, steps=(("wall", "floor", "chair"), ("sofa",))),
    ]
    assert len({protocol.hash, *(other.hash for other in others)}) == 8


def test_a_data_set_that_does_not_fit():
    refusals = {
        ("wall", "floor", "chair", "sofa"): "class 'lamp' is not in the data set; expected among",
        (
            "wall",
            "floor",
            "chairs",
            "sofa",
            "lamp",
        ): "class 'chair' is not in the data set (did you mean 'chairs'?)",
        (*TOY, "bed"): "class 'bed' of the data set is in no step",
    }
    for classes, reason in refusals.items():
        for use in (
            lambda classes: toy().check_dataset(classes),
            lambda classes: toy().training_table(0, classes),
            lambda classes: toy().evaluation_table(0, classes),
            lambda classes: toy().scenes(0, replace(toy_manifest("wall"), classes=classes)),
        ):
            message = str(pytest.raises(InputError, use, classes).value)
            assert reason in message and message.startswith("protocol toy: ") and "\n" not in message


GOOD = {
    "name": "own",
    "version": 3,
    "description": "mine",
    "steps": [["wall", "floor"], ["chair", "sofa"]],
    "background": ["lamp"],
    "regime": "disjoint",
    "unannotated": "background",
}


def test_own_protocols(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(GOOD))
    protocol = load_protocol(str(path))
    assert protocol == load_protocol(path)
    assert protocol == Protocol(
        "own", 3, "mine", (("wall", "floor"), ("chair", "sofa")), ("lamp",), "disjoint", "background"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steps": [["wall"], ["chair", "wall"]]}, "class 'wall' occurs twice"),
        ({"background": ["wall"]}, "class 'wall' occurs twice"),
        ({"steps": [["wall"], []]}, "step 1 is empty"),
        ({"steps": []}, "steps is empty"),
        ({"steps": [15, 5]}, "steps[0] is 15: expected a list"),
        ({"steps": "wall"}, "steps is 'wall': expected a list"),
        ({"steps": [["wall", ""]]}, "steps[0][1] is '': expected a text that is not empty"),
        ({"background": "lamp"}, "background is 'lamp': expected a list"),
        ({"regime": "overlaped"}, "regime is 'overlaped' (did you mean 'overlapped'?)"),
        ({"unannotated": "skip"}, "unannotated is 'skip'; expected ignore or background"),
        ({"unannotated": None}, "unannotated is None: expected text"),
        ({"version": "1"}, "version is '1': expected an integer"),
        ({"version": True}, "version is True: expected an integer"),
        ({"version": 0}, "version is 0: expected a whole number from 1"),
        ({"regimes": "disjoint"}, "regimes is 'disjoint': unknown field (did you mean 'regime'?), expected"),
        ({"steps": [[f"class {i}" for i in range(255)]]}, "256 classes; expected fewer than 255"),
    ],
)
def test_protocols_that_are_none(tmp_path, change, reason):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({**GOOD, **change}))
    message = str(pytest.raises(InputError, load_protocol, path).value)
    assert reason in message and "\n" not in message


@pytest.mark.parametrize("field", GOOD)
def test_a_field_that_is_missing(tmp_path, field):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({key: value for key, value in GOOD.items() if key != field}))
    assert str(pytest.raises(InputError, load_protocol, path).value) == f"{path}: {field} is None: missing"


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\xff"])
def test_files_that_are_no_protocol(tmp_path, text):
    path = tmp_path / "own.json"
    path.write_bytes(text.encode("latin-1"))
    message = str(pytest.raises(InputError, load_protocol, path).value)
    assert message.startswith(f"{path}: ") and "\n" not in message


def test_unknown_names(tmp_path):
    message = str(pytest.raises(InputError, load_protocol, "scannet/lgkd14-5").value)
    assert "'scannet/lgkd14-5' is not known (did you mean 'scannet/lgkd-14-5'?)" in message
    message = str(pytest.raises(InputError, load_protocol, "s0-15-6").value)
    assert "(did you mean 's0-15-" in message and message.count("\n") == 0
    message = str(pytest.raises(InputError, load_protocol, tmp_path / "none.json").value)
    assert message == f"{tmp_path / 'none.json'}: no such protocol file"
