"""The readers of images: folders as people have them, and labels that are read right or refused."""

import shutil

import numpy as np
import pytest
from PIL import Image

from scannet_css.errors import InputError
from scannet_css.raw.images.ade20k import ADE20KReader
from scannet_css.raw.images.camvid import CamVidReader
from scannet_css.raw.images.image_files import images_in, open_photo, read_label_ids, read_photo
from scannet_css.raw.images.scannet_frames import ScanNetFramesReader
from scannet_css.raw.images.voc import VOCReader
from tests.fixtures import raw_images as made


def read_all(reader):
    """Split -> name -> the different labels from the top; and what cannot be read, name -> why."""
    found, failures = {}, {}
    for source in reader.find().sources:
        try:
            image = reader.read(source)
        except InputError as error:
            failures[source.name] = str(error)
            continue
        assert image.labels.dtype == np.uint8 and image.labels.shape == image.size
        rows = image.labels[:, 0].tolist()
        found.setdefault(source.split, {})[source.name] = list(dict.fromkeys(rows))
    return found, failures


VOC = {"train": {"a1": [0, 1], "a2": [0, 2, 255], "s3": [20, 15]}, "val": {"v1": [0, 7]}}


@pytest.mark.parametrize("joint, sbd", [(True, False), (False, True)])
@pytest.mark.parametrize("place", [".", "VOCdevkit"])
def test_voc_with_joint_masks_or_with_sbd(joint, sbd, place, tmp_path):
    """SBD's masks of a1 and v1 are not taken: VOC has its own, and v1 is for validation."""
    made.voc(tmp_path, joint, sbd)
    if sbd and place != ".":
        shutil.move(tmp_path / "benchmark_RELEASE", tmp_path / "VOCdevkit")
    reader = VOCReader(tmp_path / place)
    assert read_all(reader) == (VOC, {})
    found = reader.find()
    assert (reader.dataset, len(reader.classes), found.absent) == ("voc", 21, {"train": 10579, "val": 1448})
    assert not any(found.findings.values())
    photo = reader.read(found.sources[0]).photo
    assert photo == (tmp_path / "VOCdevkit/VOC2012/JPEGImages/a1.jpg").read_bytes()


def test_voc_with_joint_masks_and_no_list_of_them(tmp_path):
    folder = made.voc(tmp_path)
    shutil.rmtree(folder / "list")
    assert read_all(VOCReader(folder)) == (VOC, {})


def test_voc_says_what_is_missing_of_the_usual_training_set(tmp_path):
    made.voc(tmp_path, joint=False)
    reader = VOCReader(tmp_path)
    assert list(read_all(reader)[0]["train"]) == ["a1", "a2"]
    assert reader.find().findings["without_sbd"] == 10580
    made.voc(tmp_path / "two", joint=False, sbd=True)
    (tmp_path / "two/benchmark_RELEASE/dataset/train.txt").unlink()
    assert VOCReader(tmp_path / "two").find().findings["missing_sbd_lists"] == 1


def test_lists_of_any_editor(tmp_path):
    folder = made.voc(tmp_path)
    text = "\ufeff/JPEGImages/a1.jpg /x/a1.png\r\n\r\nJPEGImages\\a2.jpg\tx \t\r\n/home/me/s3.jpg"
    for encoding in ("utf-8", "utf-16"):
        (folder / "list/train_aug.txt").write_bytes(text.encode(encoding))
        assert read_all(VOCReader(folder)) == (VOC, {})
    (folder / "list/train_aug.txt").write_text("a1\nv1\na1\n")
    found = VOCReader(folder).find()
    assert [source.name for source in found.sources] == ["a1", "v1"]
    assert {name: n for name, n in found.findings.items() if n} == {
        "repeated_names": 1,
        "validation_in_training": 1,
    }
    (folder / "list/train_aug.txt").write_text("a1\n<html>\n")
    with pytest.raises(InputError, match=r"train_aug.txt:2: '<html>'; expected a name like 2007_000032"):
        VOCReader(folder).find()


def test_ade20k_counts_0_as_a_class(tmp_path):
    folder = made.ade(tmp_path)
    (folder / "images/training/._ADE_train_00000001.jpg").write_bytes(b"\0\5\x16\7")
    (folder / "images/training/Thumbs.db").write_bytes(b"litter")
    for place in (folder, tmp_path):
        reader = ADE20KReader(place)
        found, failures = read_all(reader)
        assert failures == {} and found == {
            "train": {"ADE_train_00000001": [0, 1], "ADE_train_00000002": [150, 13, 0]},
            "val": {"ADE_val_00000001": [4]},
        }
    assert (reader.classes[0], reader.classes[150]) == ("other", "flag")
    assert reader.find().absent == {"train": 20208, "val": 1999}


def test_the_full_release_of_ade20k_is_refused(tmp_path):
    made.photo(tmp_path / "images/training/a/abbey/ADE_train_00000001.jpg")
    (tmp_path / "index_ade20k.mat").write_bytes(b"")
    with pytest.raises(
        InputError, match="full release of ADE20K, 3,000 classes; expected ADEChallengeData2016"
    ):
        ADE20KReader(tmp_path).find()


def test_camvid_has_three_labelled_splits(tmp_path):
    folder = made.camvid(tmp_path)
    (folder / "train.txt").write_text("/SegNet/CamVid/train/gone.png /SegNet/CamVid/trainannot/gone.png\n")
    expected = {"train": {"train_1": [0, 10, 255]}, "val": {"val_1": [3]}, "test": {"test_1": [1, 2]}}
    assert read_all(CamVidReader(tmp_path)) == (expected, {})


def test_frames_have_the_ids_and_splits_of_scannet(tmp_path):
    """NYU40 id 39 is class 19, 16 class 13; 13, 40 and 0 are no classes of the benchmark."""
    folder = made.frames(tmp_path)
    reader = ScanNetFramesReader(folder)
    assert read_all(reader)[0] == {
        "train": {"scene0000_00_000000": [0, 255], "scene0000_00_000100": [19, 255]},
        "val": {"scene0011_00_000000": [1, 13]},
    }
    assert (reader.dataset, reader.settings) == ("scannet_frames", {"domain": "images"})
    (folder / "synthetic.json").write_text('{"width": 160, "height": 120}')
    reader = ScanNetFramesReader(folder)
    assert (reader.dataset, reader.settings["size"]) == ("synthetic_views", "160x120")


def test_frames_with_a_few_stray_ids(tmp_path):
    folder = made.frames(tmp_path)
    made.label(folder / "scene0000_00/label/000000.png", made.ids(1, 50, 149))
    source = ScanNetFramesReader(folder).find().sources[0]
    assert ScanNetFramesReader(folder).read(source).unknown_ids == {50: 64, 149: 64}
    made.label(folder / "scene0000_00/label/000000.png", made.ids(1, 50, 149, 60, 61))
    with pytest.raises(
        InputError, match=r"label/000000.png: id 50 at 32 pixels; expected ids from 1 to 39, and 0"
    ):
        ScanNetFramesReader(folder).read(source)


def test_test_frames_come_without_labels(tmp_path):
    made.photo(tmp_path / "scene0707_00/color/000000.jpg")
    (source,) = ScanNetFramesReader(tmp_path).find().sources
    assert source.split == "test" and ScanNetFramesReader(tmp_path).read(source).labels is None


# Labels that decoders would quietly change

VALUES = made.ids(0, 1, 7, 15, 255)
COLOURS = {(0, 0, 0): 0, (128, 0, 0): 1, (128, 128, 128): 7, (192, 128, 128): 15, (224, 224, 192): 255}


def test_greys_of_few_bits_are_not_stretched(tmp_path):
    for bits in (1, 2, 4, 8):
        values = made.ids(0, 1, (1 << bits) - 1)
        assert np.array_equal(read_label_ids(made.grey_png(tmp_path / "x.png", values, bits)), values)


def test_colours_are_read_as_colours(tmp_path):
    palette = np.zeros((256, 3), np.uint8)
    for colour, number in COLOURS.items():
        palette[number] = colour
    coloured = made.label(tmp_path / "rgb.png", palette[VALUES])
    usual = made.label(tmp_path / "usual.png", VALUES, palette)
    # an optimiser numbers the colours anew
    places = np.searchsorted([0, 1, 7, 15, 255], VALUES).astype(np.uint8)
    packed = made.label(tmp_path / "packed.png", places, [*COLOURS])
    for path in (coloured, usual, packed):
        assert np.array_equal(read_label_ids(path, COLOURS), VALUES)
        with pytest.raises(InputError, match=r"a coloured label, \(128, 0, 0\) is no class's colour"):
            read_label_ids(path)
    greys = made.label(tmp_path / "greys.png", places, [(i, i, i) for i in (0, 1, 7, 15, 255)])
    assert np.array_equal(read_label_ids(greys), VALUES)
    three = made.label(tmp_path / "three.png", np.repeat(VALUES[..., None], 3, axis=2))
    assert np.array_equal(read_label_ids(three, COLOURS), VALUES)


BAD = [  # file, what becomes of it, the message
    ("a1.jpg", lambda path: path.write_bytes(path.read_bytes()[:-40]), "a1.jpg: damaged (image file is "),
    ("a1.jpg", lambda path: path.write_bytes(b""), "a1.jpg: empty"),
    ("a1.jpg", lambda path: path.write_bytes(b"<html>404"), "a1.jpg: not an image of its kind"),
    ("a1.jpg", lambda path: path.unlink(), "a1.jpg: no such file"),
    ("a1.jpg", lambda path: made.photo(path, (11, 16)), "a1.png: 16 x 12 pixels, but a1.jpg has 16 x 11"),
    ("a1.png", lambda path: path.write_bytes(path.read_bytes()[:-30]), "a1.png: "),
    ("a1.png", lambda path: made.label(path, made.ids(0, 21)), "a1.png: id 21 at 96 pixels; expected ids "),
    ("a1.png", lambda path: made.label(path, made.ids(3).astype(np.uint16)), "a1.png: a label of 16 bits"),
    ("a1.png", lambda path: shutil.copy(path.parents[1] / "JPEGImages/a1.jpg", path), "a1.png: not an image"),
    ("a1.png", lambda path: path.unlink(), "SegmentationClassAug/a1.png: no such file"),
]  # fmt: skip


@pytest.mark.parametrize("name, change, message", BAD)
def test_one_bad_file_is_named_and_the_others_are_read(name, change, message, tmp_path):
    folder = made.voc(tmp_path)
    change(folder / ("JPEGImages" if name.endswith("jpg") else "SegmentationClassAug") / name)
    if "SegmentationClassAug" in message:
        (folder / "SegmentationClass" / name).unlink()
    found, failures = read_all(VOCReader(folder))
    assert list(failures) == ["a1"] and message in failures["a1"] and "\n" not in failures["a1"]
    assert found == {"train": {"a2": VOC["train"]["a2"], "s3": VOC["train"]["s3"]}, "val": VOC["val"]}


@pytest.mark.parametrize("maker, reader, labels", [
    (made.ade, ADE20KReader, "annotations/*/*.png"),
    (made.camvid, CamVidReader, "*annot/*.png"),
    (made.frames, ScanNetFramesReader, "*/label/*.png"),
    (made.voc, VOCReader, "Segmentation*/*.png"),
])  # fmt: skip
def test_a_folder_of_labels_of_another_kind_is_refused_whole(maker, reader, labels, tmp_path):
    folder = maker(tmp_path)
    for path in folder.glob(labels):
        made.label(path, made.ids(3).astype(np.uint16))
    with pytest.raises(InputError, match="a label of 16 bits; expected ids of 8 bits"):
        reader(folder).find()


# Photos


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_photos_become_rgb(mode, tmp_path):
    path = made.photo(tmp_path / "x.jpg", mode=mode)
    photo, stored, _, _ = read_photo(path)
    opened = open_photo(photo, stored)
    assert opened.mode == "RGB" and opened.tobytes() == Image.open(path).convert("RGB").tobytes()


def test_a_photo_of_16_bits_is_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x.png: a photo of mode I;16; expected 8 bits a channel"):
        read_photo(tmp_path / "x.png")


@pytest.mark.parametrize("shape, finding", [((16, 12), "turned_photos"), ((12, 16), "photos_left_as_stored")])
def test_exif_turns_a_photo_where_its_label_is_turned(shape, finding, tmp_path):
    folder, exif = made.camvid(tmp_path), Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    (folder / "train/train_1.png").unlink()
    path = made.photo(folder / "train/train_1.jpg", exif=exif, quality=95)
    made.label(folder / "trainannot/train_1.png", made.ids(0, 1, size=shape))
    reader = CamVidReader(folder)
    image = reader.read(reader.find().sources[0])
    assert (image.size, image.findings[finding], sum(image.findings.values())) == (shape, 1, 1)
    stored = Image.open(path)
    expected = stored if shape == (12, 16) else stored.transpose(Image.Transpose.ROTATE_270)
    assert open_photo(image.photo, image.size).tobytes() == expected.tobytes()


def test_two_photos_of_one_name_are_refused(tmp_path):
    for suffix in ("jpg", "png"):
        made.photo(tmp_path / f"x.{suffix}")
    with pytest.raises(InputError, match=r"x.png: is there as x.jpg too; expected one image of a name"):
        images_in(tmp_path)
