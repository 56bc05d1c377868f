"""How a network is trained: optimiser, schedule and everything else that is the same for every method."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from scannet_css.network import NETWORKS
from scannet_css.options import check_options, option
from scannet_css.scenes.loader import input_channels
from scannet_css.sparse import BatchNorm


@dataclass(frozen=True)
class Recipe:
    """Defaults: MinkUNets on ScanNet, one GPU. Raises InputError for impossible values."""

    network: str = option(
        "minkunet34c", "network, one of those in scannet_css.network", choices=tuple(NETWORKS)
    )
    inputs: str = option("colour", "what a voxel brings: some of colour, normal, height, joined by +")
    base_epochs: int = option(
        100, "epochs of step 0; joint training has as many updates as the sequence", above=0
    )
    epochs: int = option(100, "epochs of every later step", above=0)
    base_learning_rate: float = option(0.1, "learning rate of step 0", above=0)
    learning_rate: float = option(0.01, "learning rate of every later step", above=0)
    optimizer: str = option("sgd", "sgd (momentum 0.9, Nesterov) or adamw", choices=("sgd", "adamw"))
    weight_decay: float = option(1e-4, "weight decay", least=0)
    schedule: str = option(
        "poly", "poly (power 0.9) or cosine, per iteration down to 0", choices=("poly", "cosine")
    )
    batch_voxels: int = option(
        1_200_000, "most voxels in a batch, over all processes; a larger scene is alone", above=0
    )
    max_gradient_norm: float = option(10.0, "gradients are scaled down to this norm", above=0)
    batch_norm: str = option(
        "batch",
        "statistics of each process' batch, sync: of all processes', or frozen",
        choices=("batch", "sync", "frozen"),
    )
    elastic: bool = option(True, "elastic distortion in the augmentation")
    precision: str = option(
        "auto",
        "auto (bfloat16 on CUDA where it exists), float32, bfloat16 or float16",
        choices=("auto", "float32", "bfloat16", "float16"),
    )

    def __post_init__(self) -> None:
        check_options(self)
        input_channels(self.inputs)


def make_optimizer(network: nn.Module, recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW over all parameters of the network that are not frozen."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)


def schedule(name: str, fraction: float) -> float:
    """Factor of the learning rate after `fraction` (0..1) of a step: "poly" (power 0.9) or "cosine"."""
    return (1 - fraction) ** 0.9 if name == "poly" else 0.5 * (1 + math.cos(math.pi * fraction))


def train_mode(network: nn.Module, batch_norm: str) -> None:
    """Training mode; the batch norms stay in evaluation mode where their statistics are "frozen"."""
    network.train()
    if batch_norm == "frozen":
        for module in network.modules():
            if isinstance(module, BatchNorm):
                module.eval()
