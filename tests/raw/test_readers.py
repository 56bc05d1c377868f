"""Which reader is taken for what lies there, and which options it takes."""

import re

import pytest

from scannet_css.classes import SCANNET200
from scannet_css.errors import InputError
from scannet_css.raw.own_file import OwnFileReader
from scannet_css.raw.pointcept import PointceptReader
from scannet_css.raw.readers import reader_for
from scannet_css.raw.s3dis import S3DISReader
from scannet_css.raw.scannet import ScanNetReader
from scannet_css.raw.semantickitti import SemanticKITTIReader

PLACES = {  # what must lie in the folder that is given
    ScanNetReader: "scene0000_00/scene0000_00_vh_clean_2.ply",
    PointceptReader: "train/scene0000_00/coord.npy",
    S3DISReader: "Area_1/office_1/Annotations/chair_1.txt",
    SemanticKITTIReader: "sequences/00/velodyne/000000.bin",
}


def place(folder, path):
    (folder / path).parent.mkdir(parents=True)
    (folder / path).touch()
    return folder


@pytest.mark.parametrize("reader", PLACES)
def test_by_what_lies_there(tmp_path, reader):
    assert type(reader_for(place(tmp_path, PLACES[reader]))) is reader


def test_scannets_root_and_single_files(tmp_path):
    assert type(reader_for(place(tmp_path / "a", "scans/scene0000_00/x"))) is ScanNetReader
    assert type(reader_for(place(tmp_path / "b", "scans_test/scene0707_00/x"))) is ScanNetReader
    for name in ("mesh.ply", "cloud.PCD"):
        assert type(reader_for(place(tmp_path / name, name) / name)) is OwnFileReader


def test_scannet200_of_pointcept(tmp_path):
    assert (
        reader_for(place(tmp_path, PLACES[PointceptReader]), None, "scannet200").classes == SCANNET200.names
    )
    assert type(reader_for(tmp_path, "segments")) is PointceptReader
    with pytest.raises(InputError, match="labels ply, but Pointcept's come by way of the segments"):
        reader_for(tmp_path, "ply")


def test_what_is_refused(tmp_path):
    rooms = place(tmp_path / "rooms", PLACES[S3DISReader])
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    for path, options, reason in (
        (rooms, ("segments",), f"{rooms}: labels and classes are options for ScanNet, this is s3dis"),
        (rooms, (None, "scannet200"), f"{rooms}: labels and classes are options for ScanNet, this is s3dis"),
        (rooms, ("segment",), "labels 'segment': expected one of ply, segments (did you mean 'segments'?)"),
        (rooms, (None, "nyu40"), "classes 'nyu40': expected one of scannet20, scannet200"),
        (tmp_path / "nowhere", (), "nowhere: no such folder"),
        (tmp_path / "empty", (), "empty: no scans here"),
        (tmp_path / "notes.txt", (), "notes.txt: no scans here"),
    ):
        with pytest.raises(InputError, match=re.escape(reason)):
            reader_for(path, *options)
