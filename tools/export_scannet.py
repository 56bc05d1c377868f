"""Predictions on ScanNet's hidden test scans, as the zip that the official benchmark takes.

    python tools/export_scannet.py --checkpoint RUN --scans /data/ScanNet --out submission.zip
    python tools/export_scannet.py --checkpoint RUN --data data/scannet --out submission.zip

--scans is ScanNet's root (with scans_test/) or a folder of scans, --data a prepared set with the test scans.
All 100 scans of the official list have to be there. A run that was interrupted goes on when the same command
is given again: finished scans lie in OUT.work-<digest> until the zip is written, whole or not at all.

Only the ids of the 20 classes can be submitted. A vertex that is predicted background gets id 0, which the
server counts as a wrong answer for the vertex' true class, and as a false alarm of none. docs/predict.md.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

import baselines  # noqa: F401  registers the methods
from scannet_css.classes import SCANNET20
from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError
from scannet_css.files import digest, digest_file, locked, remove_temporary_files, write_atomic
from scannet_css.raw.benchmark_zip import (
    NONE_ID,
    TEST_LIST,
    as_lines,
    check,
    pack,
    read_list,
    require_all,
)
from scannet_css.raw.ply_files import read_scan_ply
from scannet_css.raw.scan import Source
from scannet_css.raw.scannet import ScanNetReader, find_scans
from scannet_css.raw.scannet_files import scan_files
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.training.predictor import Predictor, add_network_options, predictor_of


class RawScans:
    """The scans below ScanNet's root or a folder of scans."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.reader, self.folders = ScanNetReader(folder), find_scans(folder)
        require_all(folder, names, {name for name in self.folders if self._mesh(name).is_file()})
        self.identity = [[name, self._mesh(name).stat().st_size] for name in names]

    def predict(self, predictor: Predictor, name: str) -> Tensor:
        source = Source(name, "test", scan_files(self.folders[name]))
        return predictor.predict_scan(self.reader.read(source))

    def vertices(self, name: str) -> int:
        return len(read_scan_ply(self._mesh(name))["vertex"])

    def _mesh(self, name: str) -> Path:
        return scan_files(self.folders[name])[0]


class PreparedScans:
    """The scenes of a prepared set."""

    def __init__(self, folder: Path, names: Sequence[str], voxel_size: float) -> None:
        self.manifest = load_manifest(folder)
        if self.manifest.voxel_size != voxel_size:
            raise InputError(
                f"{folder}: voxels of {self.manifest.voxel_size} m, but the network learnt on {voxel_size} m"
            )
        require_all(folder, names, set(self.manifest.scenes))
        self.identity = self.manifest.hash

    def predict(self, predictor: Predictor, name: str) -> Tensor:
        return predictor.predict(load_scene(self.manifest.path(self.manifest.scenes[name])))

    def vertices(self, name: str) -> int:
        return self.manifest.scenes[name].vertices


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    names = read_list(options.list)
    predictor = predictor_of(options)
    about, path = predictor.about, predictor.trained.path
    if about.classes != list(SCANNET20.names):
        raise InputError(
            f"{path}: learnt {len(about.classes)} classes of {about.dataset}; expected ScanNet's 20"
        )
    if options.scans:
        scans = RawScans(options.scans, names)
    else:
        scans = PreparedScans(options.data, names, about.voxel_size)
    print(predictor)
    identity = digest([digest_file(path), about.step, options.method, names, scans.identity])
    work = options.out.with_name(f"{options.out.name}.work-{identity[:12]}")
    with locked(work, lambda holder: refuse(work, holder)):
        remove_temporary_files(work)
        predict_all(predictor, scans, names, work)
        content = pack({name: work / f"{name}.txt" for name in names})
        counts = check(content, {name: scans.vertices(name) for name in names})
        write_atomic(work / options.out.name, content)  # a kill leaves its traces in there
        os.replace(work / options.out.name, options.out)
        shutil.rmtree(work)
    vertices, none = sum(counts.values()), counts[NONE_ID]
    print(f"{options.out}: {len(names)} scans, {vertices} vertices, checked")
    if none:
        print(f"background: {none} vertices ({100 * none / vertices:.1f} %) have id 0, which counts as wrong")
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; raises InputError for what argparse does not check."""
    parser = Parser(__doc__)
    add_network_options(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--scans", type=Path, metavar="DIR", help="ScanNet's root, or a folder of scans")
    source.add_argument("--data", type=Path, metavar="DIR", help="prepared set with the test scans")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.zip", help="the submission")
    parser.add_argument(
        "--list", type=Path, default=TEST_LIST, help="names of the scans (default: the official 100)"
    )
    options = parser.parse_args(arguments)
    if options.out.suffix != ".zip" or options.out.is_dir():
        what = "a folder" if options.out.is_dir() else "not a .zip"
        raise InputError(f"--out {options.out}: {what}; expected the file to write, such as submission.zip")
    return options


def predict_all(predictor: Predictor, scans: RawScans | PreparedScans, names: list[str], work: Path) -> None:
    """Writes the text of every scan into `work`, but for those that are there already."""
    missing = [name for name in names if not (work / f"{name}.txt").exists()]
    if len(missing) < len(names):
        print(f"{work}: {len(names) - len(missing)} of {len(names)} scans are done already")
    progress = tqdm(missing, total=len(names), initial=len(names) - len(missing), unit="scan", disable=None)
    for name in progress:
        try:
            channels = scans.predict(predictor, name)
        except InputError as error:
            text = str(error)
            raise InputError(text if name in text else f"{name}: {text}") from None
        write_atomic(work / f"{name}.txt", as_lines(predictor.ids[channels.numpy()]))


def refuse(work: Path, holder: str) -> None:
    raise InputError(f"{work}: {holder} is at work on the same submission")


if __name__ == "__main__":
    sys.exit(run_command(main))
