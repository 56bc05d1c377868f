"""How fast this code is on this machine: `python benchmarks/speed.py engine --networks minkunet18a`.

engine: coordinate maps, forward pass and training step of the networks on synthetic rooms, set against the
floating-point operations that are needed (existing pairs only) and the rate of a plain matrix product.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.errors import InputError, run_command
from scannet_css.network import MinkUNet, build_network
from scannet_css.sparse import Conv3d, ConvTranspose3d, SparseTensor

VOXEL = 0.05  # metres
FEWEST_VOXELS = 4000


def room(voxels: int, seed: int = 0) -> Tensor:
    """Coordinates (about `voxels`, 4) of a furnished room's surfaces: floor, walls, boxes; 4 mm of noise."""
    random = np.random.default_rng(seed)
    if voxels < FEWEST_VOXELS:
        raise InputError(
            f"--voxels {voxels}: expected at least {FEWEST_VOXELS}, a room that furniture fits in"
        )
    # voxels are about 5 times the floor's: walls, boxes, two layers of noise
    side = np.sqrt(voxels * VOXEL**2 / 5)
    boxes = [(0.0, 0.0, 0.0, side, side, 2.5)]
    for _ in range(max(3, round(side**2 / 2))):
        size = random.uniform((0.4, 0.4, 0.4), (1.2, 0.8, 1.1))
        corner = random.uniform(0, side - 1.2, 2)
        boxes.append((*corner, 0.0, *size))
    points = np.concatenate([_box_surface(box, random, is_room=i == 0) for i, box in enumerate(boxes)])
    turn = random.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    points = (points + random.normal(0, 0.004, points.shape)) @ rotation.T
    coordinates = np.unique(np.floor(points / VOXEL).astype(np.int64), axis=0)
    return F.pad(torch.from_numpy(coordinates), (1, 0))


def _box_surface(box: tuple[float, ...], random: np.random.Generator, is_room: bool) -> np.ndarray:
    """Points on a box's faces, 16 per voxel face; of the room only its floor and two walls."""
    corner, size = np.array(box[:3]), np.array(box[3:])
    faces = [(2, 0), (0, 0), (1, 0)] if is_room else [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)]
    points = []
    for axis, at in faces:
        area = np.prod(np.delete(size, axis))
        face = random.uniform(0, 1, (int(16 * area / VOXEL**2), 3))
        face[:, axis] = at
        points.append(corner + face * size)
    return np.concatenate(points)


def useful_flops(network: MinkUNet, x: SparseTensor) -> int:
    """Multiplications and additions of one forward pass over existing pairs of voxels."""
    total = 0

    def count(layer: torch.nn.Module, inputs: tuple[SparseTensor], out: SparseTensor) -> None:
        nonlocal total
        pairs = len(out)
        if layer.kernel_size > 1:
            fine = min(inputs[0].stride, out.stride)
            kernel_map = x.manager.map(fine, layer.kernel_size, layer.stride)
            pairs = int((kernel_map.table >= 0).sum())
        total += 2 * pairs * layer.kernel.shape[-2] * layer.kernel.shape[-1]

    layers = [module for module in network.modules() if isinstance(module, Conv3d | ConvTranspose3d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return total


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of a call, after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def sgemm_rate() -> float:
    """FLOP per second of a large float32 matrix product."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / seconds(lambda: torch.mm(a, b), 5)


def engine(options: argparse.Namespace) -> None:
    rate = sgemm_rate()
    print(f"sgemm {rate / 1e9:.0f} GFLOP/s on {torch.get_num_threads()} threads\n")
    print("| network | voxels | neighbours | maps s | forward s | step s | step GFLOP | step / sgemm |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.networks:
        network = build_network(name)
        for wanted in options.voxels:
            coordinates = room(wanted)
            features = torch.randn(len(coordinates), 3)
            labels = torch.randint(0, 20, (len(coordinates),))
            x = SparseTensor(features, coordinates)
            flops = useful_flops(network, x)
            neighbours = (x.manager.map(1, 3, 1).table >= 0).sum() / len(coordinates)

            def forward(x=x, network=network):
                with torch.no_grad():
                    return network(x)

            def step(x=x, network=network, labels=labels):
                network.zero_grad()
                F.cross_entropy(network(x).logits, labels).backward()

            def maps(features=features, coordinates=coordinates, network=network):
                _build_maps(SparseTensor(features, coordinates), network)

            times = [seconds(work, options.repeats) for work in (maps, forward, step)]
            share = 3 * flops / times[2] / rate
            print(
                f"| {name} | {len(coordinates)} | {neighbours:.1f} | {' | '.join(f'{t:.3f}' for t in times)}"
                f" | {3 * flops / 1e9:.0f} | {share:.0%} |"
            )


def _build_maps(x: SparseTensor, network: MinkUNet) -> None:
    """Every level and map of the network."""
    x.manager.map(1, network.conv0p1s1.kernel_size, 1)
    for stride in (1, 2, 4, 8):
        x.manager.map(stride, 3, 1)
        x.manager.map(stride, 2, 2)
    x.manager.map(16, 3, 1)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("engine", help="maps, forward pass and training step")
    command.add_argument("--networks", nargs="+", default=["minkunet14s", "minkunet14a", "minkunet18a"])
    command.add_argument("--voxels", nargs="+", type=int, default=[20_000, 60_000])
    command.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    engine(options)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
