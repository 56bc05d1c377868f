"""ADE20K's scene parsing challenge (Zhou et al., CVPR 2017): ADEChallengeData2016, 150 classes.

    images/training/ADE_train_00000001.jpg          likewise validation/
    annotations/training/ADE_train_00000001.png     ids 0 to 150

0 is everything else. It is a class like the others, trained and scored as background, as published numbers
are (MiB, PLOP, LGKD). The full release, with 3,000 classes coded in colours, is another data set.
"""

from pathlib import Path

from scannet_css.classes import CLASS_LISTS
from scannet_css.errors import InputError
from scannet_css.raw.images.image_files import LabelIds, RawImage, check_labels, images_in, read_image
from scannet_css.raw.scan import Found, Source

_CLASSES = CLASS_LISTS["ade20k"]
_IMAGES = {"train": 20_210, "val": 2_000}  # of the data set
_IDS = LabelIds(_CLASSES.ids, _CLASSES.ignored_ids)
_ROOT = "ADEChallengeData2016"
_FOLDERS = {"train": "training", "val": "validation"}
_FULL_RELEASE = ("index_ade20k.mat", "index_ade20k.pkl")


def matches(path: Path) -> bool:
    """Whether `path` holds images/training/ and annotations/, is their parent, or is the full release."""
    return _root(path) is not None or any((path / name).is_file() for name in _FULL_RELEASE)


class ADE20KReader:
    """Reads ADEChallengeData2016, or the folder it lies in. See Reader in scan.py."""

    dataset = "ade20k"
    domain = "images"
    classes = _CLASSES.names

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.settings: dict[str, str] = {"domain": self.domain}

    def find(self) -> Found:
        """The images of both splits. Raises InputError for the full release, or labels of another kind."""
        root = _root(self.root)
        if root is None:
            raise InputError(
                f"{self.root}: the full release of ADE20K, 3,000 classes; expected {_ROOT}, with 150"
            )
        sources, alone = [], 0
        for split, folder in _FOLDERS.items():
            photos, labels = (images_in(root / kind / folder) for kind in ("images", "annotations"))
            alone += len(labels.keys() - photos.keys())
            for name, photo in photos.items():
                label = labels.get(name, root / "annotations" / folder / f"{name}.png")
                sources.append(Source(name, split, (photo, label)))
        if not sources:
            raise InputError(f"{root}: no images; expected files like images/training/ADE_train_00000001.jpg")
        check_labels([source.files[1] for source in sources], _IDS)
        return Found(sources, absent=missing(sources, _IMAGES), findings={"lone_labels": alone})

    def read(self, source: Source) -> RawImage:
        """One image with its label."""
        return read_image(source, _IDS)


def missing(sources: list[Source], expected: dict[str, int]) -> dict[str, int]:
    """Split -> how many images of the data set are not there."""
    there = [source.split for source in sources]
    return {split: max(0, count - there.count(split)) for split, count in expected.items()}


def _root(path: Path) -> Path | None:
    for root in (path, path / _ROOT):
        if (root / "annotations").is_dir() and (root / "images" / "training").is_dir():
            return root
    return None
