"""PASCAL VOC 2012 (Everingham et al., IJCV 2010), with the masks of SBD (Hariharan et al., ICCV 2011).

    VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg
    VOCdevkit/VOC2012/SegmentationClass/2007_000032.png         VOC's own masks: 1,464 + 1,449
    VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt
    SegmentationClassAug/2007_000032.png, list/train_aug.txt    both together as they are passed around, or
    benchmark_RELEASE/dataset/{cls/2008_000002.mat,train.txt,val.txt}       SBD as downloaded

The usual training set has 10,582 images: VOC train (1,464), and SBD's train and val less those of VOC
(6,820 + 2,298). SBD's train_noval has 5,623 and is not it. VOC's own mask wins over SBD's. Masks are ids, or
pictures in VOC's colours; 255, the outline of objects, is ignored.
"""

import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scannet_css.classes import CLASS_LISTS
from scannet_css.errors import InputError
from scannet_css.raw.images.ade20k import missing
from scannet_css.raw.images.image_files import (
    LabelIds,
    RawImage,
    check_labels,
    images_in,
    read_image,
    read_label_ids,
)
from scannet_css.raw.scan import Found, Source

_CLASSES = CLASS_LISTS["voc"]
_IMAGES = {"train": 10_582, "val": 1_449}  # of the data set
_BLACK, _OUTLINE = (0, 0, 0), (224, 224, 192)  # the colours of 0 and 255
_SETS = "ImageSets/Segmentation"
_TRAIN_LISTS = ("train_aug.txt", "trainaug.txt")
_LIST_FOLDERS = ("list", "lists", "ImageSets/SegmentationAug", _SETS, ".")
_SBD_RELEASE = "benchmark_RELEASE/dataset"
_SBD_FOLDERS = (_SBD_RELEASE, "sbd", "SBD", f"sbd/{_SBD_RELEASE}", f"SBD/{_SBD_RELEASE}", "dataset", ".")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_mask(path: Path, colours: Mapping[tuple[int, int, int], int]) -> np.ndarray:
    """Ids (H, W) uint8 of a PNG, or of a .mat of SBD."""
    if path.suffix != ".mat":
        return read_label_ids(path, colours)
    from scipy.io import loadmat  # takes longer to import than all that the other readers need
    from scipy.io.matlab import MatReadError

    damaged = (OSError, ValueError, TypeError, LookupError, NotImplementedError, MatReadError)
    try:
        ids = loadmat(path)["GTcls"]["Segmentation"][0, 0]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (*damaged, zlib.error, struct.error) as error:
        raise InputError(f"{path}: not a mask of SBD ({error})") from None
    if not isinstance(ids, np.ndarray) or ids.dtype != np.uint8 or ids.ndim != 2:
        raise InputError(f"{path}: GTcls.Segmentation is no picture of 8 bits")
    return ids


_COLOURS = dict(zip(_CLASSES.colours[1:], _CLASSES.ids[1:], strict=True)) | {_BLACK: 0, _OUTLINE: 255}
_IDS = LabelIds(_CLASSES.ids, _CLASSES.ignored_ids, _COLOURS, decode=read_mask)


def matches(path: Path) -> bool:
    """Whether VOC2012 is `path`, or lies in it, in its VOCdevkit/ or in its PascalVOC2012/VOCdevkit/."""
    return _voc(path) is not None


class VOCReader:
    """Reads VOC 2012 with what of SBD lies below the same folder. See Reader in scan.py."""

    dataset = "voc"
    domain = "images"
    classes = _CLASSES.names

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.settings: dict[str, str] = {"domain": self.domain}
        self._folder = _voc(self.root) or self.root
        # SegmentationClassAug, lists and SBD may lie beside VOC2012 or VOCdevkit, but not outside of `root`
        above = [place for place in self._folder.parents if place == self.root or self.root in place.parents]
        self._places = [self._folder, *above]

    def find(self) -> Found:
        """The images of the lists. Raises InputError for no list, a bad one, or masks of another kind."""
        findings: dict[str, int] = {}
        joint, sbd = self._first(("SegmentationClassAug",)), self._sbd()
        val = self._read_list(self._first(_LIST_FOLDERS, ("val.txt",)), findings)
        listed = self._first(_LIST_FOLDERS, _TRAIN_LISTS)
        named = self._read_list(listed, findings) if listed else self._all_with_masks(joint, sbd, findings)
        train = list(dict.fromkeys(name for name in named if name not in set(val)))
        if listed:
            findings["validation_in_training"] = len(named) - len(train)
        photos, masks = images_in(self._folder / "JPEGImages"), images_in(self._folder / "SegmentationClass")
        masks |= images_in(joint) if joint else {}
        sources, without = [], 0
        for split, names in (("train", train), ("val", val)):
            for name in names:
                mask = masks.get(name) or _expected_mask(name, joint, sbd)
                if mask is None:
                    without += 1
                    continue
                photo = photos.get(name) or _expected_photo(name, self._folder, sbd)
                sources.append(Source(name, split, (photo, mask)))
        check_labels([source.files[1] for source in sources], _IDS)
        absent = missing(sources, _IMAGES)
        findings["listed_without_mask"] = without
        if joint is None and sbd is None:
            findings["without_sbd"] = absent["train"]
        return Found(sources, absent=absent, findings=findings)

    def read(self, source: Source) -> RawImage:
        """One image with its mask."""
        return read_image(source, _IDS)

    def _all_with_masks(self, joint: Path | None, sbd: Path | None, findings: dict[str, int]) -> list[str]:
        """What there is to train on without a list of it: VOC train, then SBD or all joint masks."""
        names = self._read_list(self._first((_SETS,), ("train.txt",)), findings)
        if joint is not None:
            return [*names, *images_in(joint)]
        for path in (sbd / "train.txt", sbd / "val.txt") if sbd else ():
            if path.is_file():
                names += self._read_list(path, findings)
            else:
                findings["missing_sbd_lists"] = findings.get("missing_sbd_lists", 0) + 1
        return names

    def _read_list(self, path: Path | None, findings: dict[str, int]) -> list[str]:
        """The names in a list, whatever editor saved it; of several columns the first is the photo."""
        if path is None:
            raise InputError(
                f"{self.root}: no list of images; expected VOC2012/{_SETS}/train.txt and val.txt"
            )
        names = []
        for number, line in enumerate(_text(path).splitlines(), start=1):
            if not line.strip():
                continue
            name = line.split()[0].replace("\\", "/").rsplit("/", 1)[-1]
            name = name.rsplit(".", 1)[0] if "." in name else name
            if not _NAME.fullmatch(name):
                raise InputError(f"{path}:{number}: {line.strip()!r}; expected a name like 2007_000032")
            names.append(name)
        findings["repeated_names"] = findings.get("repeated_names", 0) + len(names) - len(set(names))
        return list(dict.fromkeys(names))

    def _first(self, folders: tuple[str, ...], names: tuple[str, ...] = ()) -> Path | None:
        """The first file of `names`, or folder without any, in one of `folders` of where things may lie."""
        for place in self._places:
            for folder in folders:
                path = place / folder
                if not names and path.is_dir():
                    return path
                for name in names:
                    if (path / name).is_file():
                        return path / name
        return None

    def _sbd(self) -> Path | None:
        """The folder of SBD that holds cls/."""
        cls = self._first(tuple(f"{folder}/cls" for folder in _SBD_FOLDERS))
        return cls.parent if cls else None


def _expected_mask(name: str, joint: Path | None, sbd: Path | None) -> Path | None:
    """Where the mask should be that is not among VOC's own and the joint ones."""
    if joint is not None:
        return joint / f"{name}.png"
    return sbd / "cls" / f"{name}.mat" if sbd else None


def _expected_photo(name: str, voc: Path, sbd: Path | None) -> Path:
    """Where the photo should be that is not among VOC's: SBD has its own."""
    beside = sbd / "img" / f"{name}.jpg" if sbd else None
    return beside if beside and beside.is_file() else voc / "JPEGImages" / f"{name}.jpg"


def _voc(root: Path) -> Path | None:
    for folder in (".", "VOC2012", "VOCdevkit/VOC2012", "PascalVOC2012/VOCdevkit/VOC2012"):
        if (root / folder / "JPEGImages").is_dir():
            return root / folder
    return None


def _text(path: Path) -> str:
    data = path.read_bytes()
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode("utf-16" if wide else "utf-8-sig", errors="replace")
