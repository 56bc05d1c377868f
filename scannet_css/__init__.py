"""Continual semantic segmentation on ScanNet: data, protocols, networks, the continual loop, records."""

import os

__version__ = "0.2.0"

# How long one of OpenMP's threads spins, waiting for the others, before it sleeps: some 20 microseconds, not
# milliseconds. Where other programs keep the cores busy, a spinning thread burns the very time slice that the
# one it waits for needs, and a training step takes ten times as long. Read when torch is loaded, so a command
# imports this package first.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
