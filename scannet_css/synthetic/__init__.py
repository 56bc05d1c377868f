"""Synthetic rooms, scanned and written in ScanNet's own file format."""
