"""The class lists: as long, as distinct and as grouped as ScanNet's."""

from collections import Counter

import pytest

from scannet_css.classes import CLASSES, SCANNET20, SCANNET200


@pytest.mark.parametrize(("classes", "count"), [(SCANNET20, 20), (SCANNET200, 200)])
def test_every_column_is_as_long_and_ids_and_names_are_distinct(classes, count):
    assert len(classes.names) == len(set(classes.names)) == len(classes.ids) == len(set(classes.ids)) == count
    assert len(classes.colours) == len(classes.groups) == count and classes.ids == tuple(sorted(classes.ids))
    assert all(len(colour) == 3 and all(0 <= c <= 255 for c in colour) for colour in classes.colours)


def test_the_twenty_are_scannets():
    assert SCANNET20.ids == (*range(1, 13), 14, 16, 24, 28, 33, 34, 36, 39)
    assert CLASSES[3] == "bed" and CLASSES[14] == "refrigerator" and SCANNET20.colours[0] == (174, 199, 232)


def test_the_two_hundred_are_scannets():
    assert Counter(SCANNET200.groups) == {"head": 66, "common": 68, "tail": 66}
    by_name = dict(zip(SCANNET200.names, zip(SCANNET200.ids, SCANNET200.groups, strict=True), strict=True))
    assert by_name["wall"] == (1, "head") and by_name["chair"] == (2, "head") and by_name["floor"][0] == 3
    assert by_name["cushion"] == (39, "common") and by_name["mattress"] == (1191, "common")
    assert by_name["paper"] == (79, "tail") and by_name["luggage"] == (1190, "tail")
    # the 20 classes have the same colours where they have the same name
    colours = dict(zip(SCANNET200.names, SCANNET200.colours, strict=True))
    same = ("wall", "floor", "cabinet", "bed", "chair", "bookshelf", "toilet", "bathtub", "refrigerator")
    assert all(colours[name] == SCANNET20.colours[CLASSES.index(name)] for name in same)
