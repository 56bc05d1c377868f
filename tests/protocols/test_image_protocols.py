"""The protocols of VOC, ADE20K and CamVid: class lists, and the images that each step of VOC has.

Which classes lie in which image of VOC 2012 is in tests/golden/voc_image_classes.npz (bit c of a number:
class c): 10,582 images for training (VOC and SBD), 1,449 for validation. The expected numbers of images are
those of the lists that MiB (CVPR 2020) published.
"""

from pathlib import Path

import numpy as np
import pytest

from scannet_css.classes import CLASS_LISTS
from scannet_css.protocols import load_protocol, protocol_names
from scannet_css.scenes import Manifest, SceneEntry

GOLDEN = Path(__file__).parents[1] / "golden" / "voc_image_classes.npz"
CUTS = {
    "voc": {"19-1": (19, 1), "15-5": (15, 5), "15-1": (15, *[1] * 5), "10-1": (10, *[1] * 10)},
    "ade20k": {
        "100-50": (100, 50),
        "100-10": (100, *[10] * 5),
        "50-50": (50, 50, 50),
        "100-5": (100, *[5] * 10),
    },
    "camvid": {"6-5": (6, 5), "8-3": (8, 3), "6-1": (6, *[1] * 5)},
}
BACKGROUND = {"voc": ("background",), "ade20k": ("other",), "camvid": ()}
SHIPPED = {
    f"{dataset}/{cut}{suffix}"
    for dataset, cuts in CUTS.items()
    for cut in cuts
    for suffix in (("",) if dataset == "camvid" else ("", "-disjoint"))
}
IMAGES = {
    "voc/19-1": (10410, 548),
    "voc/15-5": (9568, 2145),
    "voc/15-1": (9568, 487, 299, 491, 500, 548),
    "voc/19-1-disjoint": (10034, 548),
    "voc/15-5-disjoint": (8437, 2145),
    "voc/15-1-disjoint": (8437, 378, 299, 420, 500, 548),
}


def classes_of(dataset):
    return CLASS_LISTS[dataset].names


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """VOC as a manifest, one point for each class that an image has."""
    entries = {}
    with np.load(GOLDEN) as golden:
        for split in ("train", "val"):
            present = golden[f"{split}_classes"][:, None] >> np.arange(21, dtype=np.uint32) & 1
            for name, counts in zip(golden[f"{split}_images"].astype(str), present.tolist(), strict=True):
                points = sum(counts)
                entries[name] = SceneEntry(
                    name, split, "", "", points, points, tuple(counts), 0, {}, labelled=True
                )
    return Manifest(tmp_path_factory.mktemp("voc"), "voc", classes_of("voc"), 0.0, entries)


def test_these_are_shipped():
    assert {name for name in protocol_names() if name.split("/")[0] in CUTS} == SHIPPED


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_class_lists(name):
    protocol, (dataset, cut) = load_protocol(name), name.split("/")
    assert (protocol.name, protocol.version, protocol.unannotated) == (name, 1, "ignore")
    assert protocol.regime == ("disjoint" if cut.endswith("-disjoint") else "overlapped")
    assert tuple(len(step) for step in protocol.steps) == CUTS[dataset][cut.removesuffix("-disjoint")]
    background = BACKGROUND[dataset]
    assert protocol.background == background
    names = classes_of(dataset)
    # in the order of the ids, and background, where there is one, is the first
    assert (*background, *protocol.classes) == names
    last = len(protocol.steps) - 1
    assert protocol.predicts_background(last) == bool(background)
    assert protocol.evaluation_table(last, names)[: len(names)].tolist() == list(
        range(1 - len(background), len(names) + 1 - len(background))
    )


def test_voc_is_in_alphabetical_order():
    assert list(classes_of("voc")[1:]) == sorted(classes_of("voc")[1:])
    assert [len(set(classes_of(dataset))) for dataset in CUTS] == [21, 151, 11]


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_the_steps_of_voc_have_the_published_numbers_of_images(name, voc):
    protocol = load_protocol(name)
    assert (len(voc.split("train")), len(voc.split("val"))) == (10582, 1449)
    assert tuple(len(protocol.scenes(step, voc)) for step in range(len(protocol.steps))) == IMAGES[name]


def test_what_10_1_has(voc):
    """Its last steps are those of 15-1; disjoint, every image with a later class is left out."""
    overlapped, disjoint = (load_protocol(f"voc/10-1{suffix}") for suffix in ("", "-disjoint"))
    late = [len(overlapped.scenes(step, voc)) for step in range(6, 11)]
    assert tuple(late) == IMAGES["voc/15-1"][1:]
    late = [len(disjoint.scenes(step, voc)) for step in range(6, 11)]
    assert tuple(late) == IMAGES["voc/15-1-disjoint"][1:]
    seen = [{entry.name for entry in disjoint.scenes(step, voc)} for step in range(11)]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 10582


def test_labels_of_a_step_of_voc():
    """Sheep (17) is new in step 2 of 15-1, potted plant (16) old, sofa (18) to come; 255 stays ignored."""
    table = load_protocol("voc/15-1").training_table(2, classes_of("voc"))
    assert table[[0, 15, 16, 17, 18, 255]].tolist() == [0, 0, 0, 17, 0, 255]
    table = load_protocol("voc/15-1").evaluation_table(2, classes_of("voc"))
    assert table[[0, 15, 16, 17, 18, 255]].tolist() == [0, 15, 16, 17, 0, 255]


def test_other_of_ade20k_is_trained_and_scored():
    protocol = load_protocol("ade20k/100-50")
    assert protocol.training_table(0, classes_of("ade20k"))[[0, 100, 101, 255]].tolist() == [0, 100, 0, 255]
    assert protocol.evaluation_table(1, classes_of("ade20k"))[[0, 100, 101]].tolist() == [0, 100, 101]
