"""Raw data, one reader a data set: from the files that are passed around to points with labels."""

from scannet_css.raw.scannet_files import ScanFiles, read_scan

__all__ = ["ScanFiles", "read_scan"]
