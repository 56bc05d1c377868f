"""A training run of ten steps on one synthetic room: does learning work on the machine at hand, how fast."""

import statistics
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.classes import IGNORE, NYU40_IDS
from scannet_css.methods.losses import cross_entropy
from scannet_css.network import MinkUNet
from scannet_css.scenes.voxelize import majority_labels, voxel_mean, voxelize
from scannet_css.sparse import SparseTensor
from scannet_css.synthetic.scans import make_scan
from scannet_css.training.machine import Machine

VERTICES, VOXEL_SIZE = 20_000, 0.05  # metres
STEPS, LEARNING_RATE = 10, 0.1


@dataclass
class Trial:
    """What ten steps gave and cost."""

    voxels: int
    losses: list[float]  # of each step
    seconds_per_step: float  # the median without the first, which loads and compiles
    peak_memory_bytes: int  # what torch took on a GPU, else this process at its largest

    @property
    def voxels_per_second(self) -> float:
        return self.voxels / self.seconds_per_step


def train_on_a_room(network: MinkUNet, device: torch.device, dtype: torch.dtype) -> Trial:
    """Trains a network for colours and the 20 classes with SGD, in mixed precision if `dtype` is
    bfloat16."""
    features, coordinates, labels = (part.to(device) for part in synthetic_room())
    network.to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True)
    losses, seconds = [], []
    for _ in range(STEPS):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = cross_entropy(network(SparseTensor(features, coordinates)).logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())  # waits for the device
        seconds.append(time.perf_counter() - started)
    return Trial(len(labels), losses, statistics.median(seconds[1:]), Machine(device).peak_memory_bytes())


def synthetic_room() -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, 3) float32, coordinates (N, 4) int32, labels (N,) int64 of the generator's first room."""
    scan = make_scan(0, "train", 0, VERTICES)
    coordinates, inverse = voxelize(torch.from_numpy(scan.points), VOXEL_SIZE)
    table = torch.full((41,), IGNORE, dtype=torch.uint8)  # NYU40 id -> label
    table[list(NYU40_IDS)] = torch.arange(len(NYU40_IDS), dtype=torch.uint8)
    vertex_labels = table[torch.from_numpy(scan.nyu40()).long()]
    labels = majority_labels(vertex_labels, inverse, len(coordinates)).long()
    features = voxel_mean(torch.from_numpy(scan.colours) / 127.5 - 1, inverse, len(coordinates))
    return features, F.pad(coordinates, (1, 0)), labels
