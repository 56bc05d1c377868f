"""How fast the engines of sparse convolutions are, on synthetic rooms: what `speed.py engine` measures.

Maps of all levels, forward pass without gradients, training step (forward, loss, backward), set against the
operations that are needed (existing pairs only) and the rate of a plain matrix product, measured before and
after. Engines take turns; what is shown are medians.
"""

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from scannet_css.commands import add_device_option
from scannet_css.errors import InputError
from scannet_css.network import build_network
from scannet_css.processes import keep_freed_memory
from scannet_css.sparse.engines.choice import ENGINES, choose_engine, engine_name, why_unavailable
from scannet_css.sparse.engines.trial import BOUNDS
from scannet_css.training.machine import find_device
from speed_lib.measure import (
    PEERS,
    Times,
    Workload,
    about,
    check_networks,
    check_sizes,
    largest_error,
    measure_times,
    multiply_add_rate,
    peak_memory,
    print_row,
    product_rate,
    save,
    useful_flops,
)
from speed_lib.measured_rooms import batch_of_scenes, batch_of_voxels

FEWEST_VOXELS = 4000
HEADER = (
    *("network", "voxel m", "scenes", "voxels", "neighbours", "step GFLOP", "engine", "maps s", "forward s"),
    *("step s", "GFLOP/s", "share of product", "share of FMA", "peak GiB", "x peer"),
)
COST_HEADER = ("network", "voxel m", "engine", "voxels", "step us / voxel", "x smallest")


def add_options(command: argparse.ArgumentParser) -> None:
    add, names, types = command.add_argument, "NAME", ("float32", "bfloat16", "float16")
    networks = ["minkunet14a", "minkunet18a", "minkunet34c"]
    add("--networks", nargs="+", default=networks, metavar=names, help=f"({' '.join(networks)})")
    add("--voxel-sizes", nargs="+", type=float, default=[0.02, 0.05], metavar="M", help="metres (0.02 0.05)")
    add("--scenes", nargs="+", type=int, default=[1], metavar="N", help="rooms in a batch (1)")
    in_voxels = "instead: batches of so many voxels, and their cost"
    add("--voxels", nargs="+", type=int, metavar="N", help=in_voxels)
    add("--engines", nargs="+", metavar=names, help=f"{', '.join(ENGINES)} (all that can run)")
    add_device_option(command)
    add("--dtype", default="float32", choices=types, help="half types by autocast, on CUDA (%(default)s)")
    add("--repeats", type=int, default=3, metavar="N", help="measurements of everything (%(default)s)")
    add("--same-batch", action="store_true", help="without what engines prepare for a new batch")
    add("--threads", type=int, metavar="N", help="CPU threads of torch")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")


def measure_engines(options: argparse.Namespace) -> None:
    """Measures, prints Markdown and writes --json. Raises InputError for options that cannot be measured."""
    keep_freed_memory()
    device = find_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    check(options, device)
    engines = chosen_engines(options.engines, device, dtype)
    result = {**about(device, dtype, engines), "repeats": options.repeats, "same_batch": options.same_batch}
    result["rows"] = rows = []
    save(result, options.json)  # a path that cannot be written is noticed now
    print_row(HEADER)
    print_row(["---"] * len(HEADER))
    batches = len(options.voxels or options.scenes) * len(options.voxel_sizes) * len(options.networks)
    with tqdm(total=batches * len(engines) * (options.repeats + 2), unit="run", disable=None) as bar:
        for network, voxel_size, scenes, coordinates in workloads(options):
            bar.set_description(f"{network}, {voxel_size} m, {len(coordinates)} voxels")
            row = {"network": network, "voxel_size": voxel_size, "scenes": scenes}
            row |= measure(network, coordinates, engines, device, dtype, options, bar)
            rows.append(row)
            save(result, options.json)
            for name in engines:
                if name in row["measured"]:
                    print_row(table_row(row, name))
                else:
                    tqdm.write(f"{name}: left out, wrong by {row['errors'][name]:.2g} of the largest value")
    if options.voxels:
        print_costs(rows)


def check(options: argparse.Namespace, device: torch.device) -> None:
    """Raises InputError for options that cannot be measured."""
    check_networks(options)
    check_sizes(options, {"scenes": 1, "voxels": FEWEST_VOXELS, "repeats": 1, "threads": 1})
    if device.type == "cpu" and options.dtype != "float32":
        raise InputError(
            f"--dtype {options.dtype} on cpu: expected float32, the only type trained with there"
        )


def chosen_engines(names: list[str] | None, device: torch.device, dtype: torch.dtype) -> list[str]:
    """The engines to measure. Raises InputError for one that is not known or cannot run."""
    if names is None:
        return [name for name in ENGINES if why_unavailable(name, device, dtype) is None]
    chosen = []
    for name in names:
        choose_engine(name)
        chosen.append(engine_name(device, dtype))
    return list(dict.fromkeys(chosen))


def workloads(options: argparse.Namespace) -> Iterator[tuple[str, float, int, Tensor]]:
    """(network, voxel size, scenes, coordinates) of every row."""
    for network in options.networks:
        for voxel_size in options.voxel_sizes:
            for size in options.voxels or options.scenes:
                batch = batch_of_voxels if options.voxels else batch_of_scenes
                coordinates = batch(size, voxel_size)
                yield network, voxel_size, int(coordinates[-1, 0]) + 1, coordinates


def measure(
    network: str,
    coordinates: Tensor,
    engines: list[str],
    device: torch.device,
    dtype: torch.dtype,
    options: argparse.Namespace,
    bar: tqdm,
) -> dict[str, Any]:
    """What is measured of one network on one batch, by all engines."""
    torch.manual_seed(0)
    work = Workload(build_network(network), coordinates, device, dtype)
    errors = {name: largest_error(name, work) for name in engines}
    engines = [name for name in engines if errors[name] <= BOUNDS[dtype]]  # not for NaN
    peaks = {}
    for name in engines:
        peaks[name] = peak_memory(network, name, coordinates, device, dtype, torch.get_num_threads())
        bar.update()
    x = work.new_batch()
    choose_engine("auto")
    forward, step = useful_flops(work.network, x)
    neighbours = x.manager.map(1, 3, 1).pairs / len(coordinates)
    del x
    rate = product_rate(device, dtype)
    times = measure_times(work, engines, options.repeats, options.same_batch, bar.update)
    rate = max(rate, product_rate(device, dtype))
    peak_rate = multiply_add_rate() if device.type == "cpu" else None
    return {
        "errors": errors,
        "multiply_add_gflops": None if peak_rate is None else peak_rate / 1e9,
        "voxels": len(coordinates),
        "neighbours": neighbours,
        "forward_gflop": forward / 1e9,
        "step_gflop": step / 1e9,
        "product_gflops": rate / 1e9,
        "measured": {name: summary(name, times, step, rate, peaks[name]) for name in engines},
    }


def summary(name: str, times: dict[str, Times], flops: int, rate: float, peak: int | None) -> dict[str, Any]:
    """Medians of the engine `name`, and what they mean for a step of `flops`."""
    steps = {engine: statistics.median(taken.step) for engine, taken in times.items()}
    fastest_peer = min((steps[engine] for engine in steps if engine in PEERS), default=None)
    seconds = asdict(times[name])
    return {
        **{f"{kind}_seconds": statistics.median(values) for kind, values in seconds.items()},
        "step_gflops": flops / steps[name] / 1e9,
        "share_of_product": flops / steps[name] / rate,
        "peak_bytes": peak,
        "times_as_fast_as_peer": None if fastest_peer is None else fastest_peer / steps[name],
        "all_seconds": seconds,
    }


def table_row(row: dict[str, Any], engine: str) -> list[str]:
    values = row["measured"][engine]
    peak, peer = values["peak_bytes"], values["times_as_fast_as_peer"]
    limit = row["multiply_add_gflops"]
    return [
        row["network"],
        f"{row['voxel_size']:g}",
        str(row["scenes"]),
        str(row["voxels"]),
        f"{row['neighbours']:.1f}",
        f"{row['step_gflop']:.1f}",
        engine,
        *(f"{values[kind]:.3g}" for kind in ("maps_seconds", "forward_seconds", "step_seconds")),
        f"{values['step_gflops']:.0f}",
        f"{values['share_of_product']:.0%}",
        "" if limit is None else f"{values['step_gflops'] / limit:.0%}",
        "" if peak is None else f"{peak / 2**30:.2f}",
        "" if peer is None else f"{peer:.2f}",
    ]


def print_costs(rows: list[dict[str, Any]]) -> None:
    """What a voxel costs, set against the smallest batch of the same network, voxel size and engine."""
    print()
    print_row(COST_HEADER)
    print_row(["---"] * len(COST_HEADER))
    for row in rows:
        alike = [r for r in rows if (r["network"], r["voxel_size"]) == (row["network"], row["voxel_size"])]
        smallest = min(alike, key=lambda other: other["voxels"])
        for name in row["measured"]:
            cost, least = (r["measured"][name]["step_seconds"] / r["voxels"] for r in (row, smallest))
            cells = (row["network"], f"{row['voxel_size']:g}", name, str(row["voxels"]))
            print_row([*cells, f"{1e6 * cost:.3g}", f"{cost / least:.2f}"])
