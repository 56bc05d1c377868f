"""Which reader fits what the user points at."""

from pathlib import Path

from scannet_css.classes import SCANNET_LISTS
from scannet_css.errors import InputError, did_you_mean
from scannet_css.raw import own_file, pointcept, s3dis, scannet, semantickitti
from scannet_css.raw.own_file import OwnFileReader
from scannet_css.raw.pointcept import PointceptReader
from scannet_css.raw.s3dis import S3DISReader
from scannet_css.raw.scan import Reader
from scannet_css.raw.scannet import ScanNetReader
from scannet_css.raw.scannet_labels import ROUTES
from scannet_css.raw.semantickitti import SemanticKITTIReader

# Those without options, in the order in which they are asked
_OTHERS = ((own_file, OwnFileReader), (s3dis, S3DISReader), (semantickitti, SemanticKITTIReader))


def reader_for(path: str | Path, labels: str | None = None, classes: str = "scannet20") -> Reader:
    """The reader of the raw scans at `path`, chosen by what lies there.

    labels (see ROUTES, None for the usual one) and classes (see SCANNET_LISTS) are options for ScanNet.
    Raises InputError if there is nothing, nothing that any reader knows, or nothing the options fit.
    """
    path = Path(path)
    for what, value, known in (("labels", labels, (None, *ROUTES)), ("classes", classes, SCANNET_LISTS)):
        if value not in known:
            words = [word for word in known if word]
            raise InputError(
                f"{what} {value!r}: expected one of {', '.join(words)}{did_you_mean(value, words)}"
            )
    if not path.exists():
        raise InputError(f"{path}: no such folder; expected a folder with scans")
    if scannet.matches(path):
        return ScanNetReader(path, labels, classes)
    if pointcept.matches(path):
        if labels == "ply":
            raise InputError(f"{path}: labels ply, but Pointcept's come by way of the segments")
        return PointceptReader(path, classes)
    for module, reader in _OTHERS:
        if module.matches(path):
            if labels is not None or classes != "scannet20":
                raise InputError(
                    f"{path}: labels and classes are options for ScanNet, this is {reader.dataset}"
                )
            return reader(path)
    raise InputError(
        f"{path}: no scans here; expected folders named like scene0000_00, Area_1 or sequences/00, or a "
        ".ply or .pcd file"
    )
