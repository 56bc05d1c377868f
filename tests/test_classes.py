"""The class lists: as long, as distinct and as grouped as the data sets', and the same wherever they show."""

import io
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from plyfile import PlyData

import scannet_css.classes
from scannet_css.classes import (
    BACKGROUND,
    CLASS_LISTS,
    CLASSES,
    IGNORE,
    SCANNET20,
    SCANNET200,
    class_list,
)
from scannet_css.raw.images.ade20k import ADE20KReader
from scannet_css.raw.images.camvid import CamVidReader
from scannet_css.raw.images.voc import VOCReader
from scannet_css.raw.own_file import OwnFileReader
from scannet_css.raw.pointcept import PointceptReader
from scannet_css.raw.s3dis import S3DISReader
from scannet_css.raw.semantickitti import SemanticKITTIReader
from scannet_css.training.predictor import Predictor
from scannet_css.viewer.browser import pack_room
from scannet_css.viewer.picture import named_colours, paint
from scannet_css.viewer.ply import room_plys
from tests.viewer.viewed_room import make_room


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


def test_the_lists_of_the_other_data_sets():
    s3dis, kitti = CLASS_LISTS["s3dis"], CLASS_LISTS["semantickitti"]
    assert s3dis.ids == tuple(range(1, 14)) and dict(zip(s3dis.names, s3dis.colours, strict=True)) == {
        **{"ceiling": (0, 255, 0), "floor": (0, 0, 255), "wall": (0, 255, 255), "beam": (255, 255, 0)},
        **{"column": (255, 0, 255), "window": (100, 100, 255), "door": (200, 200, 100)},
        **{"table": (170, 120, 200), "chair": (255, 0, 0), "sofa": (200, 100, 100)},
        **{"bookcase": (10, 200, 100), "board": (200, 200, 200), "clutter": (50, 50, 50)},
    }
    # semantic-kitti.yaml: learning_map, and color_map (blue green red) of learning_map_inv
    assert kitti.ids == tuple(range(1, 20)) and kitti.ignored_ids == (0, 1, 52, 99)
    rows = dict(zip(kitti.names, zip(kitti.raw_ids, kitti.colours, strict=True), strict=True))
    assert rows["car"] == ((10, 252), (100, 150, 245)) and rows["road"] == ((40, 60), (255, 0, 255))
    assert rows["traffic-sign"] == ((81,), (255, 0, 0)) and rows["vegetation"] == ((70,), (0, 175, 0))


READERS = {  # data set -> what its reader calls its classes
    "scannet20": OwnFileReader("room.ply").classes,
    "scannet200": PointceptReader("scannet", "scannet200").classes,
    "s3dis": S3DISReader.classes,
    "semantickitti": SemanticKITTIReader.classes,
    "voc": VOCReader.classes,
    "ade20k": ADE20KReader.classes,
    "camvid": CamVidReader.classes,
}


@pytest.mark.parametrize("name", CLASS_LISTS)
def test_prediction_viewer_and_reader_have_the_same_classes_in_the_same_colours(name):
    path = Path(scannet_css.classes.__file__).parent / "class_lists" / f"{name}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["classes"]
    names, palette = [row["name"] for row in rows], [tuple(row["colour"]) for row in rows]
    assert list(READERS[name]) == names
    # VOC's own class of this name is the channel
    learnt = [(n, c) for n, c in zip(names, palette, strict=True) if n != "background"]
    channels, colours_learnt = ["background", *(n for n, _ in learnt)], [c for _, c in learnt]
    about = SimpleNamespace(classes=names, channels=channels)
    network = SimpleNamespace(about=about, network=torch.nn.Identity(), predict=None, path=path)
    predictor = Predictor(network, torch.device("cpu"))
    assert predictor.colours.tolist() == [[150, 150, 150], *map(list, colours_learnt)]
    shown = named_colours(READERS[name])
    assert list(shown) == [*channels, "unlabelled"]
    assert list(shown.values()) == [(150, 150, 150), *colours_learnt, (225, 225, 225)]
    values = np.arange(len(channels), dtype=np.uint8)
    assert np.array_equal(paint(values, channels, READERS[name]), predictor.colours)
    assert np.array_equal(paint(values[:2], [channels[0], channels[-1]], names), predictor.colours[[0, -1]])
    if "background" in names:
        return  # VOC, which has no rooms to view
    # the viewer's page numbers them 1 + label
    room = make_room()
    room.labels[: len(names)] = torch.arange(len(names), dtype=torch.uint8)
    legend = pack_room(room, [], names)["classes"]
    colours = {entry["number"]: (entry["name"], tuple(entry["colour"])) for entry in legend}
    expected = {label + 1: one for label, one in enumerate(zip(names, palette, strict=True))}
    assert {n: colours[n] for n in expected} == expected and colours[255] == ("unlabelled", (225, 225, 225))
    # and a point cloud names them by the ids that predictions are written with
    comments = PlyData.read(io.BytesIO(room_plys(room, [], names)[""])).comments
    written = [f"label {number} {name}" for number, name in zip(predictor.ids, channels, strict=True)]
    assert comments == ["label -1 unlabelled", *written]


def test_a_class_list_is_found_by_its_names_in_their_order():
    for one in CLASS_LISTS.values():
        assert class_list(list(one.names)) is one
    other = class_list(SCANNET20.names[::-1])
    assert other.names == SCANNET20.names[::-1] and other.ids == tuple(range(1, 21))
    assert other.colours == SCANNET200.colours[:20]
    with pytest.raises(KeyError):
        SCANNET20.channel_ids(["background", "ceiling"])


def test_labels_of_no_class_stand_once():
    assert (IGNORE, BACKGROUND) == (255, 0)
    root = Path(scannet_css.classes.__file__).parent
    holders = [
        p for p in root.rglob("*.py") if re.search(r"^\s*(IGNORE|BACKGROUND)\b.*= *\d", p.read_text(), re.M)
    ]
    assert holders == [root / "classes.py"]
