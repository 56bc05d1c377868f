"""Continual semantic segmentation on ScanNet: data, protocols, networks, the continual loop, records."""

__version__ = "0.1.0"
