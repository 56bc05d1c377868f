"""Continual semantic segmentation on ScanNet: data, protocols, networks, the continual loop and the records."""

__version__ = "0.1.0"
