"""How fast a step of a protocol is trained: what `speed.py train` prints, on rooms of ScanNet's size.

The methods take turns on the same batches. In its turn each one trains on some batches undisturbed, which
gives the step's time, and then on as many with a timer around every part: on a GPU such timers wait for it
and so cost time. What is shown are medians over the turns.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from scannet_css.commands import add_device_option
from scannet_css.errors import InputError
from scannet_css.methods.method import find_method
from scannet_css.processes import keep_freed_memory
from scannet_css.raw.readers import reader_for
from scannet_css.scenes import Manifest
from scannet_css.scenes.prepare import prepare
from scannet_css.sparse.engines.choice import engine_name
from scannet_css.training.machine import Machine, find_device
from scannet_css.training.recipe import Recipe
from speed_lib.measure import about, check_networks, check_sizes, print_row, save
from speed_lib.prepare_speed import make_scans
from speed_lib.trainee import PARTS, PROTOCOL, Case, Trainee, Turn, peak_memory

BASELINE = "finetune"  # what the others are set against
LEAST = {"scenes": 1, "vertices": 1000, "repeats": 1, "batches": 1, "workers": 0, "threads": 1}
HEADER = (
    *("network", "voxel m", "scenes", "method", "voxels"),
    *(f"{part} ms" for part in PARTS),
    *("step s", "scenes/s", "voxels/s", "x finetune", "peak GiB"),
)


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    networks, methods = ["minkunet18a", "minkunet34c"], [BASELINE, "lgkd"]
    add("--networks", nargs="+", default=networks, metavar="NAME", help=f"({' '.join(networks)})")
    add("--voxel-sizes", nargs="+", type=float, default=[0.05], metavar="M", help="metres (0.05)")
    add("--scenes", nargs="+", type=int, default=[1], metavar="N", help="rooms in a batch (1)")
    add("--methods", nargs="+", default=methods, metavar="NAME", help=f"({' '.join(methods)})")
    add_device_option(command)
    types = ("auto", "float32", "bfloat16", "float16")
    add("--precision", default="auto", choices=types, help="as in the recipe (%(default)s)")
    add("--deterministic", action="store_true", help="on CUDA: the same bits every time")
    add("--vertices", type=int, default=150_000, metavar="N", help="of a room (%(default)s)")
    add("--repeats", type=int, default=3, metavar="N", help="turns, of which the median counts (%(default)s)")
    add("--batches", type=int, default=1, metavar="N", help="consecutive batches in a turn (%(default)s)")
    add("--workers", type=int, default=0, metavar="N", help="processes that load data (%(default)s)")
    add("--threads", type=int, metavar="N", help="CPU threads of torch")
    add("--cpu-time", action="store_true", help="seconds of the CPU, not of the clock: for a busy machine")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")


def measure_training(options: argparse.Namespace) -> None:
    """Measures, prints Markdown and writes --json. Raises InputError for options that cannot be measured."""
    keep_freed_memory()
    device = find_device(options.device)
    check(options, device)
    machine = Machine(device, options.workers, deterministic=options.deterministic)
    machine.make_deterministic()
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    dtype = machine.compute_type(options.precision)
    result = {**about(device, dtype, [engine_name(device, dtype)]), "protocol": PROTOCOL}
    result |= {
        name: getattr(options, name) for name in ("vertices", "repeats", "batches", "workers", "cpu_time")
    }
    result |= {"deterministic": machine.is_deterministic, "rows": []}
    save(result, options.json)  # a path that cannot be written is noticed now
    with tempfile.TemporaryDirectory(prefix="train-speed-") as folder:
        sets = prepared_sets(Path(folder), options)
        cases = [
            Case(manifest, scenes, Recipe(network=network, precision=options.precision), machine, clock)
            for network in options.networks
            for manifest in sets
            for scenes in options.scenes
        ]
        print_row(HEADER)
        print_row(["---"] * len(HEADER))
        turns = len(cases) * len(options.methods) * (options.repeats + 2)
        with tqdm(total=turns, unit="turn", disable=None) as bar:
            for case in cases:
                bar.set_description(f"{case.recipe.network}, {case.manifest.voxel_size} m")
                result["rows"].append(measure(case, options, bar))
                save(result, options.json)
                for name in options.methods:
                    print_row(table_row(result["rows"][-1], name))


def check(options: argparse.Namespace, device: torch.device) -> None:
    """Raises InputError for options that cannot be measured."""
    check_networks(options)
    check_sizes(options, LEAST)
    options.methods = list(dict.fromkeys(options.methods))
    for name in options.methods:
        if find_method(name).offline:
            raise InputError(f"--methods {name}: expected methods that are trained step by step")
    if options.cpu_time and (device.type != "cpu" or options.workers or options.threads != 1):
        raise InputError("--cpu-time: expected --device cpu --workers 0 --threads 1; it sees no other work")
    if device.type == "cpu" and options.precision not in ("auto", "float32"):
        raise InputError(
            f"--precision {options.precision} on cpu: expected float32, the only type trained with there"
        )


def prepared_sets(folder: Path, options: argparse.Namespace) -> list[Manifest]:
    """The same rooms, made once, as a prepared set for each voxel size."""
    make_scans(folder / "scans", max(options.scenes), options.vertices, workers=1)
    sets = []
    for number, voxel_size in enumerate(options.voxel_sizes):
        report = prepare(reader_for(folder / "scans"), folder / f"prepared{number}", voxel_size)
        for name, reason in report.failures.items():
            raise InputError(f"{name}: {reason}")
        sets.append(report.manifest)
    return sets


def measure(case: Case, options: argparse.Namespace, bar: tqdm) -> dict[str, Any]:
    """What is measured of one network on one batch, by all methods."""
    peaks = {}
    for name in options.methods:
        peaks[name] = peak_memory(case, name)
        bar.update()
    turns: dict[str, list[Turn]] = {name: [] for name in options.methods}
    with tempfile.TemporaryDirectory(prefix="train-speed-") as folder:
        trainees = {
            name: Trainee(case, name, Path(folder, str(number)))
            for number, name in enumerate(options.methods)
        }
        for turn in range(options.repeats + 1):
            for name, trainee in trainees.items():
                taken = trainee.turn(turn, options.batches)
                if turn:  # the first one warms up
                    turns[name].append(taken)
                bar.update()
    return {
        "network": case.recipe.network,
        "voxel_size": case.manifest.voxel_size,
        "scenes": case.scenes,
        "measured": {name: summary(name, turns, case.scenes, peaks[name]) for name in options.methods},
    }


def summary(name: str, turns: dict[str, list[Turn]], scenes: int, peak: int | None) -> dict[str, Any]:
    """Medians of the method `name`, and how it stands to fine-tuning in the same turns."""
    mine, median = turns[name], statistics.median
    ratios = [mine.update / other.update for mine, other in zip(mine, turns.get(BASELINE, ()), strict=False)]
    return {
        "voxels": round(median(turn.voxels for turn in mine)),
        "part_seconds": {part: median(turn.parts[part] for turn in mine) for part in PARTS},
        "step_seconds": median(turn.step for turn in mine),
        "update_seconds": median(turn.update for turn in mine),
        "scenes_per_second": median(scenes / turn.step for turn in mine),
        "voxels_per_second": median(turn.voxels / turn.step for turn in mine),
        "times_finetune": median(ratios) if ratios else None,
        "peak_bytes": peak,
        "turns": [asdict(turn) for turn in mine],
    }


def table_row(row: dict[str, Any], method: str) -> list[str]:
    values = row["measured"][method]
    ratio, peak = values["times_finetune"], values["peak_bytes"]
    return [
        row["network"],
        f"{row['voxel_size']:g}",
        str(row["scenes"]),
        method,
        str(values["voxels"]),
        *(f"{1000 * seconds:.1f}" for seconds in values["part_seconds"].values()),
        f"{values['step_seconds']:.3g}",
        f"{values['scenes_per_second']:.3g}",
        f"{values['voxels_per_second']:.0f}",
        "" if ratio is None else f"{ratio:.2f}",
        "" if peak is None else f"{peak / 2**30:.2f}",
    ]
