"""How fast this machine is: the engine and its peers, training, loading and the preparation of scans.

    python benchmarks/speed.py prepare                                 # raw scans to prepared scenes
    python benchmarks/speed.py loader                                  # prepared scenes to augmented batches
    python benchmarks/speed.py train --methods finetune lwf lgkd       # a step of each method, part by part
    python benchmarks/speed.py engine                                  # every engine that can run here
    python benchmarks/speed.py engine --networks minkunet18a --voxel-sizes 0.05 --threads 1 --json speed.json
    python benchmarks/speed.py engine --device cuda --dtype bfloat16 --scenes 1 12
    python benchmarks/speed.py engine --networks minkunet14s --voxels 10000 100000 1000000

engine: networks on synthetic rooms: maps of all levels, forward pass without gradients, training step
(forward, loss, backward), set against the operations that are needed (existing pairs only) and the rate
of a plain matrix product, measured before and after. Engines take turns; what is shown are medians.
train: a step of continual training with the real loader, teacher and losses; methods take turns.
docs/performance.md explains the columns.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch
from speed_lib import loader_speed
from speed_lib.measure import (
    Times,
    Workload,
    check_sizes,
    measure_times,
    peak_memory,
    print_row,
    product_rate,
    save,
    useful_flops,
)
from speed_lib.measured_rooms import batch_of_scenes, batch_of_voxels
from speed_lib.prepare_speed import add_options, measure_preparation
from speed_lib.train_speed import add_train_options, measure_training
from torch import Tensor
from tqdm import tqdm

from scannet_css.errors import InputError, run_command
from scannet_css.network import build_network
from scannet_css.records.record import environment
from scannet_css.sparse.engines.choice import (
    ENGINES,
    choose_engine,
    engine_name,
    load_engine,
    why_unavailable,
)
from scannet_css.sparse.memory import keep_freed_memory
from scannet_css.training.machine import find_device

PEERS = {"spconv": "spconv", "minkowski": "MinkowskiEngine"}  # the modules they come in
FEWEST_VOXELS = 4000
HEADER = (
    *("network", "voxel m", "scenes", "voxels", "neighbours", "step GFLOP", "engine", "maps s", "forward s"),
    *("step s", "GFLOP/s", "share of product", "peak GiB", "x peer"),
)
COST_HEADER = ("network", "voxel m", "engine", "voxels", "step us / voxel", "x smallest")


def main(arguments: Sequence[str]) -> None:
    options = build_parser().parse_args(arguments)
    if options.command == "prepare":
        machine = about(torch.device("cpu"), torch.float32, [])
        return measure_preparation(options, {key: machine[key] for key in ("date", "environment")})
    keep_freed_memory()
    if options.command == "train":
        return measure_training(options, about)
    device = find_device(options.device)
    if options.command == "loader":
        machine = about(device, torch.float32, [])
        return loader_speed.measure_loader(options, device, {k: machine[k] for k in ("date", "environment")})
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
                print_row(table_row(row, name))
    if options.voxels:
        print_costs(rows)


class Parser(argparse.ArgumentParser):
    """Wrong options are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def build_parser() -> argparse.ArgumentParser:
    usage, _, rest = (__doc__ or "").partition("\n\n")
    shape = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = Parser(description=usage, epilog=rest, allow_abbrev=False, **shape)
    commands = parser.add_subparsers(dest="command", required=True)
    add_options(commands.add_parser("prepare", help="raw scans to prepared scenes"))
    loader_speed.add_options(commands.add_parser("loader", help="prepared scenes to augmented batches"))
    add_train_options(commands.add_parser("train", help="a step of continual training, part by part"))
    command = commands.add_parser("engine", help="maps, forward pass and training step", epilog=rest, **shape)
    add = command.add_argument
    networks = ["minkunet14a", "minkunet18a", "minkunet34c"]
    add(
        "--networks",
        nargs="+",
        default=networks,
        metavar="NAME",
        help="(minkunet14a minkunet18a minkunet34c)",
    )
    add("--voxel-sizes", nargs="+", type=float, default=[0.02, 0.05], metavar="M", help="metres (0.02 0.05)")
    add("--scenes", nargs="+", type=int, default=[1], metavar="N", help="rooms in a batch (1)")
    add(
        "--voxels",
        nargs="+",
        type=int,
        metavar="N",
        help="instead: batches of so many voxels, and their cost",
    )
    add("--engines", nargs="+", metavar="NAME", help=f"{', '.join(ENGINES)} (all that can run)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    types = ("float32", "bfloat16", "float16")
    add("--dtype", default="float32", choices=types, help="half types by autocast, on CUDA (%(default)s)")
    add("--repeats", type=int, default=3, metavar="N", help="measurements of everything (%(default)s)")
    add("--same-batch", action="store_true", help="without what engines prepare for a new batch")
    add("--threads", type=int, metavar="N", help="CPU threads of torch")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return parser


def check(options: argparse.Namespace, device: torch.device) -> None:
    """Raises InputError for options that cannot be measured."""
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


def about(device: torch.device, dtype: torch.dtype, engines: list[str]) -> dict[str, Any]:
    """When, where and with what."""
    versions = {}
    for name in engines:
        if name == "native":
            versions[name] = load_engine(name).library().variant
            continue
        module = PEERS.get(name, "triton" if name == "triton" else "torch")
        versions[name] = import_module(module).__version__
    machine = environment(device, dtype)
    for name in ("engine", "vectors", "not_native"):
        del machine[name]  # here it is many
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "environment": machine,
        "dtype": str(dtype).removeprefix("torch."),
        "engines": versions,
    }


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
    peaks = {}
    for name in engines:
        peaks[name] = peak_memory(network, name, coordinates, device, dtype, torch.get_num_threads())
        bar.update()
    torch.manual_seed(0)
    work = Workload(build_network(network), coordinates, device, dtype)
    x = work.new_batch()
    choose_engine("auto")
    forward, step = useful_flops(work.network, x)
    neighbours = x.manager.map(1, 3, 1).pairs / len(coordinates)
    del x
    rate = product_rate(device, dtype)
    times = measure_times(work, engines, options.repeats, options.same_batch, bar.update)
    rate = max(rate, product_rate(device, dtype))
    return {
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


if __name__ == "__main__":
    raise SystemExit(run_command(main))
