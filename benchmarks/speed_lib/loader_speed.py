"""How fast scenes become batches: what `speed.py loader` measures, on synthetic scenes of ScanNet's size."""

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from scannet_css.commands import add_device_option
from scannet_css.processes import keep_freed_memory, one_thread
from scannet_css.scenes.augment import augment
from scannet_css.scenes.loader import BatchSet, batches_of, derived_generator, plan_batches, point_features
from scannet_css.scenes.store import Manifest, SceneEntry, load_manifest
from scannet_css.scenes.voxelize import majority_labels, voxel_mean, voxelize
from scannet_css.training.machine import find_device
from speed_lib.measure import about_machine, check_sizes, print_row, save, timed
from speed_lib.prepare_speed import VERTICES, make_scans, run_tool

INPUTS = "colour"
LABELS = torch.arange(256)  # as they are
SEED, STEP = 0, 0
STAGES = ("read", "send", "augment", "voxelise", "labels", "features")


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--scenes", type=int, default=12, metavar="N", help="scenes of 150,000 vertices (%(default)s)")
    add("--passes", type=int, default=16, metavar="N", help="times a run loads each of them (%(default)s)")
    add("--batch-voxels", type=int, default=1_200_000, metavar="N", help="most in a batch (%(default)s)")
    add("--workers", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="processes (0 1 2)")
    add_device_option(command)
    add("--repeats", type=int, default=3, metavar="N", help="runs, of which the median counts (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")


def measure_loader(options: argparse.Namespace) -> None:
    """Measures, prints Markdown and writes --json. Raises InputError for wrong options."""
    keep_freed_memory()
    device = find_device(options.device)
    check_sizes(options, {"scenes": 1, "passes": 1, "batch_voxels": 1, "workers": 0, "repeats": 1})
    result = {**about_machine(device), "passes": options.passes, "repeats": options.repeats}
    result["batch_voxels"] = options.batch_voxels
    save(result, options.json)  # a path that cannot be written is noticed now
    with tempfile.TemporaryDirectory(prefix="loader-speed-") as folder:
        scans, out = Path(folder, "scans"), Path(folder, "prepared")
        processes = max(1, *options.workers)
        make_scans(scans, options.scenes, VERTICES, processes)
        run_tool("--scans", scans, "--out", out, "--workers", processes)
        manifest = load_manifest(out)
        scenes = manifest.split("train")
        result["scenes"] = [{"vertices": scene.vertices, "voxels": scene.voxels} for scene in scenes]
        result["runs"] = measure_runs(manifest, scenes, options, device)
        with one_thread():  # as the loader does
            result["stages"] = [
                {"elastic": elastic, **measure_stages(manifest, scenes, elastic, options.repeats, device)}
                for elastic in (False, True)
            ]
    save(result, options.json)
    print_tables(result)


def measure_runs(
    manifest: Manifest, scenes: list[SceneEntry], options: argparse.Namespace, device: torch.device
) -> list[dict[str, Any]]:
    """Each kind of run, in turns so that a drift of the machine meets all alike."""
    batches = plan_batches(scenes * options.passes, options.batch_voxels)
    kinds = list(itertools.product((False, True), options.workers))
    seconds: dict[tuple[bool, int], list[float]] = {kind: [] for kind in kinds}
    turns = [(turn, *kind) for turn in range(options.repeats + 1) for kind in kinds]
    for turn, elastic, workers in tqdm(turns, desc="loading", unit="run", disable=None):
        batch_set = BatchSet(manifest, batches, LABELS, INPUTS, (SEED, STEP, turn), elastic)
        taken = timed(device, load_all, batch_set, workers, device)[1]
        if turn:  # the first one warms up
            seconds[elastic, workers].append(taken)
    loaded = len(scenes) * options.passes
    return [
        {
            "elastic": elastic,
            "workers": workers,
            "batches": len(batches),
            "scenes": loaded,
            "seconds": statistics.median(taken),
            "scenes_per_second": loaded / statistics.median(taken),
            "all_seconds": taken,
        }
        for (elastic, workers), taken in seconds.items()
    ]


def load_all(batch_set: BatchSet, workers: int, device: torch.device) -> None:
    """A whole pass, the start of its processes included, for a consumer that only waits for batches."""
    for _ in batches_of(batch_set, workers, device):
        pass


def measure_stages(
    manifest: Manifest, scenes: list[SceneEntry], elastic: bool, repeats: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each stage of a scene in this process, one after the other."""
    seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    batch_set = BatchSet(manifest, [], LABELS, INPUTS, (SEED, STEP, 0), elastic)
    for turn, scene in itertools.product(range(repeats + 1), scenes):

        def stage(name: str, work: Any, *arguments: Any, warm: bool = turn > 0) -> Any:
            result, taken = timed(device, work, *arguments)
            if warm:
                seconds[name].append(taken)
            return result

        ((_, tensors),) = stage("read", batch_set.read, [scene])
        tensors = stage("send", sent, tensors, device)
        points, normals, colours = tensors["points"], tensors["normals"], tensors["colours"].float()
        generator = derived_generator(SEED, STEP, turn, scene.name, device=device)
        moved = stage("augment", augment, points, normals, colours, generator, elastic)
        coordinates, inverse = stage("voxelise", voxelize, moved[0], manifest.voxel_size)
        stage("labels", majority_labels, tensors["labels"], inverse, len(coordinates))
        stage("features", means, moved, inverse, len(coordinates))
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def sent(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def means(moved: tuple[torch.Tensor, ...], inverse: torch.Tensor, voxels: int) -> torch.Tensor:
    return voxel_mean(point_features(INPUTS, *moved), inverse, voxels)


def print_tables(result: dict[str, Any]) -> None:
    """Markdown."""
    vertices, voxels = (
        statistics.median(s[what] for s in result["scenes"]) for what in ("vertices", "voxels")
    )
    count = len(result["scenes"])
    print(f"{count} scenes, median {vertices:,.0f} vertices, {voxels:,.0f} voxels\n")
    print_row(["elastic", "workers", "scenes/s", "slowest run", "fastest run"])
    print_row(["---", *["---:"] * 4])
    for run in result["runs"]:
        rates = [run["scenes_per_second"]]
        rates += [run["scenes"] / seconds for seconds in (max(run["all_seconds"]), min(run["all_seconds"]))]
        print_row([_yes(run["elastic"]), str(run["workers"]), *(f"{rate:.1f}" for rate in rates)])
    print()
    print_row(["elastic", *(f"{stage} ms" for stage in STAGES), "sum ms"])
    print_row(["---", *["---:"] * (len(STAGES) + 1)])
    for row in result["stages"]:
        times = [row[stage] for stage in STAGES]
        print_row([_yes(row["elastic"]), *(f"{1000 * time:.2f}" for time in (*times, sum(times)))])


def _yes(value: bool) -> str:
    return "yes" if value else "no"
