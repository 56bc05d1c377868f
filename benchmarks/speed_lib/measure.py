"""What speed.py measures: work of a network on a batch, its useful operations, its time and its memory."""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from scannet_css.errors import InputError
from scannet_css.files import write_json
from scannet_css.network import MinkUNet, build_network
from scannet_css.processes import keep_freed_memory
from scannet_css.records.record import environment
from scannet_css.sparse import Conv3d, ConvTranspose3d, SparseTensor
from scannet_css.sparse.engines.choice import choose_engine, load_engine
from scannet_css.sparse.maps import KernelMap

PEERS = {"spconv": "spconv", "minkowski": "MinkowskiEngine"}  # the modules they come in
WARM_UP_VOXELS = 4000
MULTIPLY_ADD_ROUNDS = 1_000_000  # some milliseconds
PROCESS_STATUS = Path("/proc/self/status")  # Linux


class Workload:
    """A network and a batch, and what a training loop does with them."""

    def __init__(self, network: MinkUNet, coordinates: Tensor, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        self.network = network.to(device)
        self.coordinates = coordinates.to(device)
        random = torch.Generator().manual_seed(0)
        self.features = torch.randn(len(coordinates), network.in_channels, generator=random).to(device)
        self.labels = torch.randint(network.classes, (len(coordinates),), generator=random).to(device)

    def new_batch(self) -> SparseTensor:
        """The batch as one that was never seen: every level and map is built, no engine has prepared
        anything."""
        x = SparseTensor(self.features, self.coordinates)
        x.manager.map(1, self.network.conv0p1s1.kernel_size, 1)
        for stride in (1, 2, 4, 8):
            x.manager.map(stride, 3, 1)
            _ = x.manager.map(stride, 2, 2).reverse
        x.manager.map(16, 3, 1)
        return x

    def forward(self, x: SparseTensor) -> None:
        self.network.eval()
        with torch.no_grad(), self._autocast():
            self.network(x)

    def step(self, x: SparseTensor) -> None:
        """Forward pass, loss and backward pass of a training step, without the optimiser."""
        self.network.train()
        self.network.zero_grad(set_to_none=True)
        with self._autocast():
            loss = F.cross_entropy(self.network(x).logits, self.labels)
        loss.backward()

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def about(device: torch.device, dtype: torch.dtype, engines: Sequence[str] = ()) -> dict[str, Any]:
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


def about_machine(device: torch.device) -> dict[str, Any]:
    """When and where, of what no engine takes part in."""
    found = about(device, torch.float32)
    return {"date": found["date"], "environment": found["environment"]}


def save(result: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        write_json(path, result)


def print_row(cells: Sequence[str]) -> None:
    tqdm.write(f"| {' | '.join(cells)} |", file=sys.stdout)
    sys.stdout.flush()


def check_sizes(options: argparse.Namespace, least: dict[str, int]) -> None:
    """Raises InputError for an option below its smallest value in `least`."""
    for name, smallest in least.items():
        given = getattr(options, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < smallest:
                raise InputError(f"--{name.replace('_', '-')} {value}: expected at least {smallest}")


def check_networks(options: argparse.Namespace) -> None:
    """Raises InputError for networks that are not known and for voxel sizes that no scene has."""
    for name in options.networks:
        build_network(name)
    for size in options.voxel_sizes:
        if not 0.005 <= size <= 0.5:
            raise InputError(f"--voxel-sizes {size}: expected metres, from 0.005 to 0.5")


def useful_flops(network: MinkUNet, x: SparseTensor) -> tuple[int, int]:
    """Multiplications and additions of a forward pass and of a training step, over existing pairs only.

    A step takes three products per layer; the stem two, because nobody asks for the input's gradient.
    """
    flops: dict[torch.nn.Module, int] = {}

    def count(layer: torch.nn.Module, inputs: tuple[SparseTensor], out: SparseTensor) -> None:
        pairs = len(out)
        if layer.kernel_size > 1:
            pairs = x.manager.map(min(inputs[0].stride, out.stride), layer.kernel_size, layer.stride).pairs
        flops[layer] = 2 * pairs * layer.in_channels * layer.kernel.shape[-1]

    layers = [module for module in network.modules() if isinstance(module, Conv3d | ConvTranspose3d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    forward = sum(flops.values())
    return forward, 3 * forward - flops[network.conv0p1s1]


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a plain matrix product: 2048^3 on a CPU, 8192^3 elsewhere."""
    side = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    times = [timed(device, torch.mm, a, b)[1] for _ in range(5)]
    return 2 * side**3 / statistics.median(times)


def timed(device: torch.device, work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What `work` gives and the seconds until the device has finished it."""
    synchronize(device)
    start = time.perf_counter()
    result = work(*arguments)
    synchronize(device)
    return result, time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def multiply_add_rate() -> float | None:
    """FLOP per second of multiply-adds in registers alone, on torch's threads: what the processor can do;
    None without the native engine's library."""
    functions, threads = load_engine("native").library().functions, torch.get_num_threads()
    if functions is None:
        return None
    sink, rates = torch.ones(threads), []
    for _ in range(5):
        start = time.perf_counter()
        flops = functions.multiply_add(MULTIPLY_ADD_ROUNDS, sink.data_ptr(), threads)
        rates.append(flops / (time.perf_counter() - start))
    return max(rates)


def largest_error(name: str, work: Workload) -> float:
    """The largest error of the engine's 3^3 convolution and gradients on the batch's finest level, relative
    to the largest value, of three attempts: threads that get in each other's way do not do so every time.

    Compared with the plain engine in float64. NaN if the engine gives NaN.
    """
    kernel_map = work.new_batch().manager.map(1, 3, 1)
    random = torch.Generator().manual_seed(0)
    shapes = (kernel_map.inputs, 32), (kernel_map.offsets, 32, 32), (kernel_map.outputs, 32)
    tensors = [torch.randn(shape, generator=random).to(work.device, work.dtype) for shape in shapes]
    exact = _results("torch", kernel_map, *(each.double() for each in tensors))
    errors = [
        (one.double() - other).abs().max() / other.abs().max()
        for _ in range(3)
        for one, other in zip(_results(name, kernel_map, *tensors), exact, strict=True)
    ]
    return torch.stack(errors).max().item()


def _results(
    name: str, kernel_map: KernelMap, features: Tensor, kernel: Tensor, gradient: Tensor
) -> list[Tensor]:
    engine = load_engine(name)
    grads = engine.gradients(features, kernel, gradient, kernel_map, True, True)
    return [engine.convolve(features, kernel, kernel_map), *grads]


@dataclass
class Times:
    """Seconds of every repeat."""

    maps: list[float]
    forward: list[float]
    step: list[float]


def measure_times(
    work: Workload, engines: list[str], repeats: int, keeps_batch: bool, on_done: Callable[[], object]
) -> dict[str, Times]:
    """Each engine's times, taken in turns so that a drift of the machine meets all alike.

    Every measurement gets a new batch and so contains what the engine prepares for one, or, with
    `keeps_batch`, one that the engine has seen.
    """
    times = {name: Times([], [], []) for name in engines}
    kept: dict[str, SparseTensor] = {}
    for turn in range(repeats + 1):  # the first turn warms up
        for name in engines:
            choose_engine(name)
            for work_on, taken in ((work.forward, times[name].forward), (work.step, times[name].step)):
                x, maps_seconds = timed(work.device, work.new_batch)
                x = kept.setdefault(name, x) if keeps_batch else x
                _, work_seconds = timed(work.device, work_on, x)
                if turn:
                    times[name].maps.append(maps_seconds)
                    taken.append(work_seconds)
            on_done()
    return times


def peak_memory(
    network: str, engine: str, coordinates: Tensor, device: torch.device, dtype: torch.dtype, threads: int
) -> int | None:
    """Bytes that a training step on a new batch, maps included, takes above what was there before.

    On CUDA what torch allocated; on a CPU resident memory of a process of its own, None where /proc does not
    tell.
    """
    arguments = (network, engine, coordinates.numpy(), device, dtype, threads)
    if device.type == "cuda":
        return _peak_memory(*arguments)
    if not PROCESS_STATUS.exists():
        return None
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_memory, *arguments).result()


def _peak_memory(network, engine, coordinates, device, dtype, threads) -> int:
    keep_freed_memory()
    torch.set_num_threads(threads)
    choose_engine(engine)
    coordinates = torch.from_numpy(coordinates)
    built = build_network(network)
    small = Workload(built, coordinates[:WARM_UP_VOXELS], device, dtype)
    small.step(small.new_batch())  # libraries are loaded, kernels compiled
    del small
    work = Workload(built, coordinates, device, dtype)
    built.zero_grad(set_to_none=True)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work.step(work.new_batch())
        return torch.cuda.max_memory_allocated(device) - before
    before = resident("VmRSS")
    work.step(work.new_batch())
    return resident("VmHWM") - before


def resident(entry: str) -> int:
    """Resident memory of this process in bytes: VmRSS now, VmHWM at its highest."""
    lines = PROCESS_STATUS.read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{entry}:"))
    return int(kilobytes) * 1024
