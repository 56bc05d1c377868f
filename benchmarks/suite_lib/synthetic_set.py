"""The synthetic set that runs use where no data are given, made by the tools as a user would."""

import logging
import subprocess
import sys
from pathlib import Path

from scannet_css.errors import InputError
from scannet_css.scenes import Manifest, load_manifest

ROOT = Path(__file__).resolve().parents[2]
SYNTHETIC = ROOT / "data" / "synthetic"
# The set that is made where no --data is given: small enough for a laptop's CPU.
SYNTHETIC_SET = {"train": 150, "val": 24, "seed": 0, "vertices": 20000, "voxel_size": 0.1}

log = logging.getLogger("run")


def synthetic_set() -> Manifest:
    """The synthetic set below data/synthetic, made and prepared by the tools where it is missing."""
    return make_synthetic_set(SYNTHETIC, **SYNTHETIC_SET)


def make_synthetic_set(
    folder: Path, train: int, val: int, seed: int, vertices: int, voxel_size: float
) -> Manifest:
    """Synthetic rooms in folder/scans and prepared in folder/prepared, made by the tools where they are
    missing."""
    scans, prepared = folder / "scans", folder / "prepared"
    if (prepared / "manifest.json").exists():
        log.info("using the synthetic set in %s", folder)
        return load_manifest(prepared)
    log.info("making the synthetic set in %s", folder)
    size = ("--train", train, "--val", val, "--seed", seed, "--vertices", vertices)
    run_script("tools/make_scans.py", "--out", str(scans), *map(str, size))  # what is there is kept
    options = ("--scans", str(scans), "--out", str(prepared), "--voxel-size", str(voxel_size))
    run_script("tools/prepare_scannet.py", *options)
    return load_manifest(prepared)


def run_script(path: str, *arguments: str) -> None:
    """Runs a script of the repository as a user would. Raises InputError if it fails (it has said why)."""
    code = subprocess.run([sys.executable, str(ROOT / path), *arguments], check=False).returncode
    if code:
        raise InputError(f"{path} failed with exit code {code}")
