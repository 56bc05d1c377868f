"""Labels scans with a trained network: what a run of benchmarks/run.py left, on any .ply with colours.

    python tools/predict.py --checkpoint RUN --scan room.ply --out predictions             # its last step
    python tools/predict.py --checkpoint RUN --step 1 --scan a.ply b.ply --out predictions
    python tools/predict.py --checkpoint RUN/weights/step1.safetensors --scan room.ply --out predictions

For room.ply two files are written: room.predicted.txt, a line with the id of its class for each vertex, and
room.predicted.ply, the scan in the classes' colours with the id as the vertices' property `label`. Ids are
NYU40's for ScanNet's 20 classes; background is 0. docs/predict.md says more.
"""

import scannet_css  # noqa: F401  before torch: how its threads wait

# isort: split
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

import baselines  # noqa: F401  registers the methods
from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError
from scannet_css.files import write_atomic
from scannet_css.raw.benchmark_zip import as_lines
from scannet_css.raw.own_file import SUFFIXES, OwnFileReader, matches, scene_name
from scannet_css.raw.ply_files import ply_bytes
from scannet_css.raw.scan import FINDINGS, RawScan
from scannet_css.training.predictor import Predictor, add_network_options, predictor_of


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    scans = named(options.scan)
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"{options.out}: a file; expected a folder for the predictions")
    predictor = predictor_of(options)
    about = predictor.about
    print(predictor)
    for name, path in tqdm(scans.items(), unit="scan", disable=None):
        reader = OwnFileReader(path)
        scan = reader.read(reader.find().sources[0])
        for finding in ("changed_colours", "odd_normals", "cut_faces"):
            if scan.findings.get(finding):
                tqdm.write(f"{path}: {scan.findings[finding]} {FINDINGS[finding]}")
        if scan.findings.get("no_faces") and "normal" in about.inputs.split("+"):
            tqdm.write(f"warning: {path}: no normals and no triangles; the network takes normals, zero here")
        try:
            channels = predictor.predict_scan(scan)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        write(options.out / f"{name}.predicted", predictor, scan, channels)
        tqdm.write(f"{path}: {summary(about.channels, channels)}")
    print(f"{len(scans)} scans labelled, in {options.out}")
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_network_options(parser)
    parser.add_argument(
        "--scan",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        metavar="FILE",
        help=".ply files, binary or text: x y z in metres, z up, red green blue of one byte; normals as they"
        " are given, else by the triangles",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the predictions")
    return parser.parse_args(arguments)


def named(scans: Sequence[Path]) -> dict[str, Path]:
    """Name -> file; raises InputError for a file that is none and for two of one name."""
    found: dict[str, Path] = {}
    for path in scans:
        if not matches(path):
            reason = "a folder" if path.is_dir() else "no scan" if path.exists() else "no such file"
            raise InputError(f"{path}: {reason}; expected a scan as {' or '.join(SUFFIXES)}")
        name = scene_name(path)
        if name in found:
            raise InputError(f"{path}: its predictions would have the name of {found[name]}'s, {name}")
        found[name] = path
    return found


def write(stem: Path, predictor: Predictor, scan: RawScan, channels: Tensor) -> None:
    """STEM.ply and STEM.txt."""
    numbers = channels.numpy()
    ids = predictor.ids[numbers]
    fields = [(axis, "<f4") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    vertices = np.empty(len(ids), [*fields, ("label", "<i4")])
    for column, axis in enumerate("xyz"):
        vertices[axis] = scan.points[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertices[name] = predictor.colours[numbers, column]
    vertices["label"] = ids
    legend = [
        " ".join(f"label {number} {name}".encode("ascii", "replace").decode().split())
        for number, name in zip(predictor.ids, predictor.about.channels, strict=True)
    ]
    write_atomic(stem.with_name(f"{stem.name}.ply"), ply_bytes(vertices, scan.faces, legend))
    write_atomic(stem.with_name(f"{stem.name}.txt"), as_lines(ids))


def summary(names: Sequence[str], channels: Tensor) -> str:
    """The most frequent classes with their share of the vertices."""
    counts = np.bincount(channels.numpy(), minlength=len(names))
    shares = [
        f"{names[c]} {100 * counts[c] / len(channels):.0f} %" for c in np.argsort(-counts)[:4] if counts[c]
    ]
    return f"{len(channels)} vertices, {', '.join(shares)}"


if __name__ == "__main__":
    sys.exit(run_command(main))
