"""The protocols of S3DIS and SemanticKITTI: class lists as published, for the classes their readers give."""

import pytest

from scannet_css.protocols import load_protocol, protocol_names
from scannet_css.raw.s3dis import CLASSES as S3DIS_CLASSES
from scannet_css.raw.semantickitti import CLASSES as SEMANTICKITTI_CLASSES

# 3DPC-CISS (CVPR 2023)
S0 = "ceiling floor wall beam column window door table chair sofa bookcase board clutter"
S1 = "beam board bookcase ceiling chair clutter column door floor sofa table wall window"
CUTS = {"8-5": (8, 5), "10-3": (10, 3), "12-1": (12, 1), "8-1": (8, 1, 1, 1, 1, 1)}
S3DIS = {
    f"s3dis/s{number}-{name}": (order, cuts)
    for number, order in enumerate((S0, S1))
    for name, cuts in CUTS.items()
}

# Camuffo and Milani (CVPR workshops 2023): step of each class in the order of the learning map, from its code
STEP_OF = (2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 1, 1)
SEMANTICKITTI = ("semantickitti/three-steps-overlapped", "semantickitti/three-steps-sequential")


def test_these_are_shipped():
    others = ("scannet/", "voc/", "ade20k/", "camvid/")  # test_protocol.py, test_image_protocols.py
    names = {name for name in protocol_names() if not name.startswith(others)}
    assert names == {*S3DIS, *SEMANTICKITTI}


@pytest.mark.parametrize("name", S3DIS)
def test_s3dis_class_lists(name):
    order, cuts = S3DIS[name]
    protocol = load_protocol(name)
    assert (protocol.name, protocol.version) == (name, 1)
    assert protocol.classes == tuple(order.split())
    assert tuple(len(step) for step in protocol.steps) == cuts
    assert (protocol.background, protocol.regime, protocol.unannotated) == ((), "overlapped", "ignore")
    last = len(cuts) - 1
    assert protocol.predicts_background(last - 1) and not protocol.predicts_background(last)
    protocol.check_dataset(S3DIS_CLASSES)
    assert load_protocol(name.split("/")[1] if "8-5" in name else name) == protocol


@pytest.mark.parametrize("name", SEMANTICKITTI)
def test_semantickitti_class_lists(name):
    protocol = load_protocol(name)
    assert (protocol.name, protocol.version) == (name, 1)
    expected = [
        tuple(c for c, at in zip(SEMANTICKITTI_CLASSES, STEP_OF, strict=True) if at == step)
        for step in range(3)
    ]
    assert [set(step) for step in protocol.steps] == [set(step) for step in expected]
    assert [len(step) for step in protocol.steps] == [6, 5, 8]
    assert (protocol.background, protocol.unannotated) == ((), "ignore")
    assert protocol.regime == name.rsplit("-", 1)[1]
    protocol.check_dataset(SEMANTICKITTI_CLASSES)


def test_what_the_second_step_of_semantickitti_shows():
    """Road is old, building new, car to come: only the sequential regime still shows road."""
    labels = [SEMANTICKITTI_CLASSES.index(name) for name in ("road", "building", "car")]
    for name, expected in zip(SEMANTICKITTI, ([0, 7, 0], [1, 7, 0]), strict=True):
        table = load_protocol(name).training_table(1, SEMANTICKITTI_CLASSES)
        assert table[labels].tolist() == expected and table[255] == 255


def test_the_orders_of_s3dis_differ():
    hashes = [load_protocol(name).hash for name in S3DIS]
    assert len(set(hashes)) == 8
    first, second = (load_protocol(f"s3dis/s{number}-8-1").steps[1:] for number in (0, 1))
    assert first == (("chair",), ("sofa",), ("bookcase",), ("board",), ("clutter",))
    assert second == (("floor",), ("sofa",), ("table",), ("wall",), ("window",))
