"""How fast raw scans are prepared: what `speed.py prepare` measures, on synthetic scans of ScanNet's size."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from scannet_css.errors import InputError
from scannet_css.files import write_atomic, write_json
from scannet_css.raw.scannet_labels import ROUTES
from scannet_css.scenes.store import load_manifest, load_scene
from scannet_css.synthetic.scans import label_map, make_scan, scan_name, write_scan
from speed_lib.measure import about_machine, check_sizes, print_row, save

VERTICES = 150_000  # of a usual scan; about 290,000 faces
MOST_VERTICES = 550_000  # ScanNet's largest has 552,614
LOADS = 50
TOOL = Path(__file__).parents[2] / "tools" / "prepare_scannet.py"
HEADER = ("labels", "workers", "scans/s, whole command", "scans/s without start-up")


@dataclass
class Command:
    """What one run of the tool took."""

    seconds: float
    peak_bytes: int  # resident memory of the largest of its processes; not below what this one has


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--scans", type=int, default=24, metavar="N", help="scans of 150,000 vertices (%(default)s)")
    add("--workers", type=int, nargs="+", default=[1, 2], metavar="N", help="processes (1 2)")
    add("--repeats", type=int, default=3, metavar="N", help="runs, of which the median counts (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")


def measure_preparation(options: argparse.Namespace) -> None:
    """Measures, prints Markdown and writes --json. Raises InputError for wrong options and if a preparation
    fails."""
    check_sizes(options, {"scans": 1, "repeats": 1, "workers": 1})
    result = {**about_machine(torch.device("cpu")), "repeats": options.repeats}
    save(result, options.json)  # a path that cannot be written is noticed now
    with tempfile.TemporaryDirectory(prefix="prepare-speed-") as folder:
        usual, large = Path(folder, "usual"), Path(folder, "large")
        result["scans"] = make_scans(usual, options.scans, VERTICES, max(options.workers))
        result["large_scan"] = make_scans(large, 1, MOST_VERTICES, 1)[0]
        result["startup_seconds"] = statistics.median(run_tool("--help").seconds for _ in range(3))
        result["runs"] = []
        for labels in ROUTES:
            for workers in options.workers:
                result["runs"].append(measure_run(usual, labels, workers, options.repeats))
        result["peak_bytes"] = {labels: prepare(large, labels, 1)[0].peak_bytes for labels in ROUTES}
        result["load"] = measure_loading(usual)
    for run in result["runs"]:
        working = run["seconds"] - result["startup_seconds"]
        run["scans_per_second"] = options.scans / run["seconds"]
        # a busy machine and few scans can make the start-up look longer than the run
        run["scans_per_second_without_startup"] = options.scans / working if working > 0 else None
    save(result, options.json)
    print_tables(result)


def make_scans(folder: Path, scans: int, vertices: int, workers: int) -> list[dict[str, int]]:
    """Makes a set of train scans that have nearly `vertices` each; gives what they have."""
    names = [scan_name("train", index) for index in range(scans)]
    write_json(folder / "synthetic.json", {"dataset": "synthetic"})
    write_atomic(folder / "scannetv2-labels.combined.tsv", label_map())
    write_atomic(folder / "scannetv2_train.txt", "".join(f"{name}\n" for name in names))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:  # frees what making took
        jobs = [pool.submit(_make_one, folder / name, k, vertices) for k, name in enumerate(names)]
        return [job.result() for job in tqdm(jobs, desc="making scans", unit="scan", disable=None)]


def _make_one(folder: Path, index: int, vertices: int) -> dict[str, int]:
    """The size of a room decides how many vertices it gets of the median; the second scan makes up for it."""
    found = len(make_scan(0, "train", index, vertices).points)
    scan = make_scan(0, "train", index, round(vertices * vertices / found))
    write_scan(scan, folder)
    return {"vertices": len(scan.points), "faces": len(scan.faces)}


def measure_run(scans: Path, labels: str, workers: int, repeats: int) -> dict[str, Any]:
    """The median run of the command: its seconds, and those of each stage per scan."""
    runs = [prepare(scans, labels, workers) for _ in range(repeats)]
    command, report = sorted(runs, key=lambda run: run[0].seconds)[len(runs) // 2]
    return {
        "labels": labels,
        "workers": workers,
        "seconds": command.seconds,
        "all_seconds": [run[0].seconds for run in runs],
        "stages": {stage: times["mean"] for stage, times in report["seconds"].items()},
    }


def prepare(scans: Path, labels: str, workers: int) -> tuple[Command, dict[str, Any]]:
    """Runs the tool on `scans` into a new folder; what it took and its report."""
    with tempfile.TemporaryDirectory(dir=scans.parent) as out:
        arguments = ("--scans", scans, "--out", out, "--labels", labels, "--workers", workers)
        command = run_tool(*arguments)
        return command, json.loads(Path(out, "report.json").read_bytes())


def run_tool(*arguments: object) -> Command:
    """Runs tools/prepare_scannet.py. Raises InputError with its message if it fails."""
    words = [sys.executable, str(TOOL), *map(str, arguments)]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with process.stderr:
        message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)  # its workers' memory counts too
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise InputError(f"{' '.join(words[1:])}: {message}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Command(seconds, usage.ru_maxrss * unit)


def measure_loading(scans: Path) -> dict[str, Any]:
    """The median time that `load_scene` takes for a scene that the system has in memory."""
    with tempfile.TemporaryDirectory(dir=scans.parent) as out:
        run_tool("--scans", scans, "--out", out)
        manifest = load_manifest(out)
        entry = manifest.split("train")[0]
        times = []
        for _ in range(LOADS):
            start = time.perf_counter()
            load_scene(manifest.path(entry))
            times.append(time.perf_counter() - start)
    return {"vertices": entry.vertices, "voxels": entry.voxels, "seconds": statistics.median(times)}


def print_tables(result: dict[str, Any]) -> None:
    """Markdown."""
    scans, load, large = result["scans"], result["load"], result["large_scan"]["vertices"]
    vertices, faces = (statistics.median(scan[what] for scan in scans) for what in ("vertices", "faces"))
    startup = result["startup_seconds"]
    print(
        f"{len(scans)} scans, median {vertices:,.0f} vertices, {faces:,.0f} faces; start-up {startup:.2f} s\n"
    )
    stages = list(result["runs"][0]["stages"])
    print_row([*HEADER, *(f"{stage} ms" for stage in stages)])
    print_row(["---", *["---:"] * (len(HEADER) + len(stages) - 1)])
    for run in result["runs"]:
        rates = (run["scans_per_second"], run["scans_per_second_without_startup"])
        rates = ("" if rate is None else f"{rate:.1f}" for rate in rates)
        times = (f"{1000 * run['stages'][stage]:.0f}" for stage in stages)
        print_row([run["labels"], str(run["workers"]), *rates, *times])
    peaks = ", ".join(f"{size / 1e6:.0f} MB ({labels})" for labels, size in result["peak_bytes"].items())
    print(f"\nPeak memory of a process with a scan of {large:,} vertices: {peaks}")
    print(f"Loading a scene of {load['vertices']:,} vertices: {1000 * load['seconds']:.2f} ms")
