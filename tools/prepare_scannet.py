"""Prepares raw scans for training: labels, normals, voxels, one file per scene and a manifest.

    python tools/prepare_scannet.py --scans /data/ScanNet --out data/scannet
    python tools/prepare_scannet.py --scans data/synthetic/scans --out data/synthetic/prepared

A second run does only what is missing: after a crash or a kill give the same command again. A bad scan is
reported in one line and the others go on; the exit code is then 1. What is read and written: docs/data.md.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

from scannet_css.errors import InputError, run_command
from scannet_css.scenes.prepare import Report, prepare
from scannet_css.scenes.raw import FINDINGS
from scannet_css.scenes.readers import reader_for


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", required=True, help="ScanNet's root, or a folder of scans")
    parser.add_argument("--out", required=True, help="folder of the prepared data set")
    parser.add_argument("--voxel-size", type=float, help="metres (default: 0.02 for ScanNet)")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument(
        "--workers", type=int, default=cores, help="processes (default: all cores, %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.workers < 1:
        raise InputError(f"--workers {options.workers}: expected at least 1")
    start = time.perf_counter()
    report = prepare(reader_for(options.scans), options.out, options.voxel_size, options.workers)
    print_report(report, time.perf_counter() - start)
    return 1 if report.failures else 0


def print_report(report: Report, seconds: float) -> None:
    """Says what was prepared, what was odd and what failed."""
    if report.manifest:
        print_scenes(report, seconds)
    for split, missing in report.absent.items():
        if missing:
            print(f"{split}: {missing} listed scans have no folder")
    if report.unlisted:
        print(f"in no split list, left out: {', '.join(report.unlisted)}")
    if report.leftover:
        print(f"without a scan, left out of the manifest: {', '.join(report.leftover)}")
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
    findings, unknown = Counter(), Counter()
    for entry in entries:
        findings.update(entry.findings)
        unknown.update(entry.unknown_ids)
    for name, count in sorted(findings.items()):
        print(f"{count} {FINDINGS.get(name, name)}")
    if unknown:
        print("unknown ids:", ", ".join(f"{number} ({n} vertices)" for number, n in sorted(unknown.items())))
    print(f"manifest {manifest.hash[:12]} in {manifest.folder}")


if __name__ == "__main__":
    sys.exit(run_command(main))
