"""CamVid (Brostow et al., PRL 2009) in the folders of the SegNet tutorial: frames of a drive, 11 classes.

    train/0001TP_006690.png         likewise val/ and test/; JPEGs are read too
    trainannot/0001TP_006690.png    ids 0 to 10; 11 is void, ignored

Its lists hold paths of another machine and say nothing that the folders do not. The labels of the original
release, colours of 32 classes, are refused.
"""

from pathlib import Path

from scannet_css.classes import CLASS_LISTS
from scannet_css.errors import InputError
from scannet_css.raw.images.ade20k import missing
from scannet_css.raw.images.image_files import LabelIds, RawImage, check_labels, images_in, read_image
from scannet_css.raw.scan import Found, Source

_CLASSES = CLASS_LISTS["camvid"]
_IMAGES = {"train": 367, "val": 101, "test": 233}  # of the data set
_IDS = LabelIds(tuple(raw for (raw,) in _CLASSES.raw_ids), _CLASSES.ignored_ids)
_SPLITS = ("train", "val", "test")


def matches(path: Path) -> bool:
    """Whether `path` or its CamVid/ holds train/ and trainannot/."""
    return _root(path) is not None


class CamVidReader:
    """Reads the folder that holds train/, trainannot/ and so on. See Reader in scan.py."""

    dataset = "camvid"
    domain = "images"
    classes = _CLASSES.names

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.settings: dict[str, str] = {"domain": self.domain}

    def find(self) -> Found:
        """The images of the three splits. Raises InputError for none, or labels of another kind."""
        root = _root(self.root) or self.root
        sources, alone = [], 0
        for split in _SPLITS:
            photos, labels = images_in(root / split), images_in(root / f"{split}annot")
            alone += len(labels.keys() - photos.keys())
            for name, photo in photos.items():
                label = labels.get(name, root / f"{split}annot" / f"{name}.png")
                sources.append(Source(name, split, (photo, label)))
        if not sources:
            raise InputError(f"{root}: no images; expected files like train/0001TP_006690.png")
        check_labels([source.files[1] for source in sources], _IDS)
        return Found(sources, absent=missing(sources, _IMAGES), findings={"lone_labels": alone})

    def read(self, source: Source) -> RawImage:
        """One image with its label."""
        return read_image(source, _IDS)


def _root(path: Path) -> Path | None:
    for root in (path, path / "CamVid"):
        if (root / "train").is_dir() and (root / "trainannot").is_dir():
            return root
    return None
