"""Prepares raw scans for training: labels, normals, voxels, one file per scene, a manifest and a report.

    python tools/prepare_scannet.py --scans /data/ScanNet --out data/scannet
    python tools/prepare_scannet.py --scans /data/ScanNet --out data/scannet200 --classes scannet200
    python tools/prepare_scannet.py --scans data/synthetic/scans --out data/synthetic/prepared
    python tools/prepare_scannet.py --verify data/scannet

Other data sets and own files are recognised by what lies in --scans. A second run does only what is missing:
after a crash or a kill give the same command again. A bad scan is reported in one line and the others go on.
Exit code 0: all is well; 1: a scan failed, or --verify found something; 2: nothing could be done as asked.
What is read and written: docs/data.md.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

from scannet_css.classes import SCANNET_LISTS
from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError, printable
from scannet_css.raw.readers import reader_for
from scannet_css.raw.scan import FINDINGS
from scannet_css.raw.scannet_labels import ROUTES
from scannet_css.scenes.prepare import Report, prepare
from scannet_css.scenes.report.summary import write_report
from scannet_css.scenes.verify_prepared import verify


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    if options.verify:
        return print_problems(options.verify, verify(options.verify, options.workers))
    start = time.perf_counter()
    reader = reader_for(options.scans, options.labels, options.classes)
    report = prepare(reader, options.out, options.voxel_size, options.workers)
    write_report(report, options.out)
    print_report(report, time.perf_counter() - start)
    print(f"report {options.out}/report.html")
    return 1 if report.failures else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; raises InputError for what argparse does not check."""
    parser = Parser(__doc__)
    parser.add_argument("--scans", help="ScanNet's root, a folder of scans, or another data set's root")
    parser.add_argument("--out", help="folder of the prepared data set")
    parser.add_argument(
        "--labels",
        choices=ROUTES,
        help="ScanNet: labels of labels.ply, or of the segments' objects through the label table "
        "(default: ply; segments for scannet200)",
    )
    parser.add_argument("--classes", choices=SCANNET_LISTS, default="scannet20")
    parser.add_argument("--voxel-size", type=float, help="metres (default: what the data set usually has)")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument(
        "--workers", type=int, default=cores, help="processes (default: all cores, %(default)s)"
    )
    parser.add_argument("--verify", metavar="DIR", help="check a prepared data set against its manifest")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        raise InputError(f"--workers {options.workers}: expected at least 1")
    if options.verify and (options.scans or options.out):
        raise InputError("--verify checks a folder and prepares nothing; expected no --scans and no --out")
    if not options.verify and not (options.scans and options.out):
        raise InputError("expected --scans and --out, or --verify")
    return options


def print_problems(folder: str, problems: list[str]) -> int:
    """Says what --verify found; gives the exit code."""
    for problem in problems:
        print(problem)
    print(f"{folder}: {len(problems)} problems" if problems else f"{folder}: all scenes are whole")
    return 1 if problems else 0


def print_report(report: Report, seconds: float) -> None:
    """Says what was prepared, what was odd and what failed."""
    if report.manifest:
        print_scenes(report, seconds)
    for split, missing in report.absent.items():
        if missing:
            print(f"{split}: {missing} listed scans have no folder")
    if report.unlisted:
        print(printable(f"in no split list, left out: {', '.join(report.unlisted)}"))
    if report.leftover:
        print(printable(f"without a scan, left out of the manifest: {', '.join(report.leftover)}"))
    if report.failures:
        print(f"failed {len(report.failures)}: {', '.join(report.failures)}", file=sys.stderr)


def print_scenes(report: Report, seconds: float) -> None:
    """The summary line, and what was found odd in the scans."""
    manifest = report.manifest
    entries = manifest.scenes.values()
    print(
        f"{manifest.dataset}: {len(entries)} scans ({report.made} made, {report.kept} kept), "
        f"{sum(e.vertices for e in entries)} vertices, {sum(e.voxels for e in entries)} voxels of "
        f"{manifest.voxel_size} m, {seconds:.1f} s"
    )
    findings, unknown_ids = Counter(report.findings), Counter()
    for entry in entries:
        findings.update(entry.findings)
        unknown_ids.update(entry.unknown_ids)
    for name, count in sorted(findings.items()):
        print(f"{count} {FINDINGS.get(name, name)}")
    if unknown_ids:
        ids = (f"{number} ({count} vertices)" for number, count in sorted(unknown_ids.items()))
        print(f"unknown ids: {', '.join(ids)}")
    print(f"manifest {manifest.hash[:12]} in {manifest.folder}")


if __name__ == "__main__":
    sys.exit(run_command(main))
