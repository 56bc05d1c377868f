"""Raw data, one reader a data set: from the files that are passed around to points with labels."""

from scannet_css.raw.scannet_files import Scan, read_scan

__all__ = ["Scan", "read_scan"]
