"""ScanNet's frames, the release of its 2D benchmark (scannet_frames_25k), and views of the synthetic rooms.

    scene0000_00/color/000100.jpg       the photo
    scene0000_00/label/000100.png       NYU40 ids, 8 bits, 0 unlabelled; not there for test frames

Classes, ids and splits are those of the scans (scannet.py), so protocols apply word for word. depth/, pose/,
instance/ and the intrinsics are not read. A folder with a synthetic.json holds views of synthetic rooms, and
its data set is called so.
"""

import json
from pathlib import Path

from scannet_css.classes import SCANNET20
from scannet_css.errors import InputError
from scannet_css.raw.images.image_files import LabelIds, RawImage, check_labels, images_in, read_image
from scannet_css.raw.scan import Found, Source
from scannet_css.raw.scannet import SCAN_NAME, SPLITS, read_lists

_NYU40 = range(41)  # 0: nobody labelled it
_IDS = LabelIds(SCANNET20.ids, tuple(i for i in _NYU40 if i not in SCANNET20.ids), most_unknown=3)
VIEWS = "synthetic.json"


def matches(path: Path) -> bool:
    """Whether folders named like scans lie in `path`, with color/ in the first."""
    return any((folder / "color").is_dir() for folder in _scans(path)[:1])


class ScanNetFramesReader:
    """Reads a folder of scans with color/ and label/. See Reader in scan.py."""

    domain = "images"
    classes = SCANNET20.names

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.settings: dict[str, str] = {"domain": self.domain}
        self.dataset = "scannet_frames"
        if (self.root / VIEWS).is_file():
            self.dataset = "synthetic_views"
            self.settings["size"] = view_size(self.root / VIEWS)

    def find(self) -> Found:
        """The frames of the listed scans. Raises InputError for none, bad lists, labels of another kind."""
        split_of = read_lists(self.root)
        scans = {folder.name: folder for folder in _scans(self.root)}
        sources, alone = [], 0
        for name in sorted(scans.keys() & split_of.keys()):
            photos, labels = images_in(scans[name] / "color"), images_in(scans[name] / "label")
            alone += len(labels.keys() - photos.keys())
            for number, photo in photos.items():
                label = labels.get(number, scans[name] / "label" / f"{number}.png")
                unlabelled = split_of[name] == "test" and not labels
                files = (photo,) if unlabelled else (photo, label)
                sources.append(Source(f"{name}_{number}", split_of[name], files))
        if not sources:
            raise InputError(f"{self.root}: no frames of scans that are in a split list")
        check_labels([source.files[1] for source in sources if source.files[1:]], _IDS)
        return Found(
            sources,
            unlisted=sorted(scans.keys() - split_of.keys()),
            absent={s: sum(split_of[n] == s and n not in scans for n in split_of) for s in SPLITS},
            findings={"lone_labels": alone},
        )

    def read(self, source: Source) -> RawImage:
        """One frame with its label; ids that NYU40 does not have are ignored and counted, up to three."""
        return read_image(source, _IDS)


def view_size(path: Path) -> str:
    """The size of the views in a folder, as "160x120", from its synthetic.json."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        width, height = int(settings["width"]), int(settings["height"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the settings of synthetic views ({error})") from None
    return f"{width}x{height}"


def _scans(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(f for f in root.iterdir() if SCAN_NAME.fullmatch(f.name) and f.is_dir())
