"""Which reader fits what the user points at."""

from pathlib import Path

from scannet_css.errors import InputError
from scannet_css.scenes import scannet
from scannet_css.scenes.raw import Reader


def reader_for(path: str | Path) -> Reader:
    """The reader of the raw scans at `path`, chosen by what lies there.

    Raises InputError if there is nothing, or nothing that any reader knows.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such folder; expected a folder with scans")
    if path.is_dir() and scannet.matches(path):
        return scannet.ScanNetReader(path)
    raise InputError(f"{path}: no scans here; expected folders named like scene0000_00")
