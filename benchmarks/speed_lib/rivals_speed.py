"""Ours and other libraries on the same scenes, in one table: what `speed.py rivals` measures.

Cold: a batch that was never seen, with all that the engine prepares for one; warm: the same batch again.
Each engine's answer is compared with float64 before it is timed; a wrong one, and what is not installed, is
left out by name.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from scannet_css.commands import add_device_option
from scannet_css.network import build_network
from scannet_css.processes import keep_freed_memory
from scannet_css.sparse.engines.choice import ENGINES, choose_engine, why_unavailable
from scannet_css.sparse.engines.trial import BOUNDS
from scannet_css.training.machine import find_device
from speed_lib.engine_speed import check
from speed_lib.measure import Workload, about, largest_error, measure_times, print_row, save
from speed_lib.measured_rooms import batch_of_scenes

HEADER = (
    "network",
    "voxel m",
    "voxels",
    "engine",
    "forward cold s",
    "warm s",
    "step cold s",
    "warm s",
    "error",
)


def add_options(command: argparse.ArgumentParser) -> None:
    add, types = command.add_argument, ("float32", "bfloat16", "float16")
    networks = ["minkunet18a", "minkunet34c"]
    add("--networks", nargs="+", default=networks, metavar="NAME", help=f"({' '.join(networks)})")
    add("--voxel-sizes", nargs="+", type=float, default=[0.05, 0.02], metavar="M", help="metres (0.05 0.02)")
    add("--scenes", type=int, default=1, metavar="N", help="rooms in the batch (%(default)s)")
    add_device_option(command)
    add("--dtype", default="float32", choices=types, help="half types by autocast, on CUDA (%(default)s)")
    add("--repeats", type=int, default=3, metavar="N", help="measurements of everything (%(default)s)")
    add("--threads", type=int, metavar="N", help="CPU threads of torch")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")


def measure_rivals(options: argparse.Namespace) -> None:
    """Measures, prints Markdown and writes --json. Raises InputError for options that cannot be measured."""
    keep_freed_memory()
    device, dtype = find_device(options.device), getattr(torch, options.dtype)
    options.voxels = None
    check(options, device)
    if options.threads:
        torch.set_num_threads(options.threads)
    reasons = {name: why_unavailable(name, device, dtype) for name in ENGINES}
    engines = [name for name, reason in reasons.items() if reason is None]
    result = {**about(device, dtype, engines), "repeats": options.repeats, "left_out": reasons, "rows": []}
    save(result, options.json)  # a path that cannot be written is noticed now
    print_row(HEADER)
    print_row(["---"] * len(HEADER))
    for network in options.networks:
        for voxel_size in options.voxel_sizes:
            row = measure(network, voxel_size, options, engines, device, dtype)
            result["rows"].append(row)
            save(result, options.json)
            for name in engines:
                show(row, name)
    for name, reason in reasons.items():
        if reason is not None:
            tqdm.write(f"{name}: left out: {reason}")


def measure(
    network: str,
    voxel_size: float,
    options: argparse.Namespace,
    engines: list[str],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Medians of one network at one voxel size, of the engines whose answer is right."""
    torch.manual_seed(0)
    coordinates = batch_of_scenes(options.scenes, voxel_size)
    work = Workload(build_network(network), coordinates, device, dtype)
    errors = {name: largest_error(name, work) for name in engines}
    right = [name for name in engines if errors[name] <= BOUNDS[dtype]]  # not for NaN
    times = [measure_times(work, right, options.repeats, keeps, lambda: None) for keeps in (False, True)]
    choose_engine("auto")
    median = statistics.median
    seconds = {
        name: [median(getattr(each[name], part)) for part in ("forward", "step") for each in times]
        for name in right
    }
    place = {"network": network, "voxel_size": voxel_size, "voxels": len(coordinates)}
    return {**place, "errors": errors, "seconds": seconds}


def show(row: dict[str, Any], name: str) -> None:
    error = f"{row['errors'][name]:.1e}"
    if name not in row["seconds"]:
        tqdm.write(f"{name}: left out, wrong by {error} of the largest value")
        return
    cells = row["network"], f"{row['voxel_size']:g}", str(row["voxels"]), name
    print_row([*cells, *(f"{value:.3g}" for value in row["seconds"][name]), error])
