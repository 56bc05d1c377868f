"""A classifier that grows by branches: each step's classes have features of their own (A. Zhang and G. Gao,
Background Adaptation with Residual Modeling for Exemplar-Free Class-Incremental Semantic Segmentation, ECCV
2024)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scannet_css.sparse import BatchNorm, Conv3d, SparseTensor


class Branch(nn.Module):
    """A 3^3 convolution, batch norm and ReLU. It starts as what gives its input, where that is >= 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv3d(channels, channels, kernel_size=3)
        self.norm = BatchNorm(channels)
        with torch.no_grad():
            self.conv.kernel.zero_()
            self.conv.kernel[len(self.conv.kernel) // 2].copy_(torch.eye(channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self.conv(x, self.norm, relu=True)


class BranchedHead(nn.Module):
    """In the place of `network.final`. Head 0 is the classifier that was there, on the network's features;
    head i has the residual of background first, then the classes of its step, on features of its own, branch
    i's. Gives logits (N, C) and, beside them, what `parts` takes apart.
    """

    def __init__(self, head: Conv3d):
        super().__init__()
        self.heads, self.branches = nn.ModuleList([head]), nn.ModuleList()

    @property
    def kernel(self) -> Tensor:
        """(F, C): the rows of background, of head 0, and of all classes."""
        return torch.cat([head.kernel[:, int(i > 0) :] for i, head in enumerate(self.heads)], 1)

    def grow(self, classes: int, start: Callable[[Tensor], Tensor]) -> None:
        """A branch and a head for a step's classes, whose kernel `start` fills."""
        kernel = self.heads[0].kernel
        head = Conv3d(kernel.shape[0], 1 + classes, kernel_size=1, bias=True)
        with torch.no_grad():
            start(head.kernel)
            head.bias.zero_()
        self.branches.append(Branch(kernel.shape[0]).to(kernel))
        self.heads.append(head.to(kernel))

    def forward(self, x: SparseTensor) -> SparseTensor:
        inputs = [x, *(branch(x) for branch in self.branches)]
        raw = [head(each).features for head, each in zip(self.heads, inputs, strict=True)]
        columns = [joined(raw), *raw, *(each.features for each in inputs[1:])]
        return x.with_features(torch.cat(columns, 1))

    def parts(self, extra: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of what stands beside the logits: each head's own output (N, channels), and each branch's features
        (N, F)."""
        sizes = [head.kernel.shape[1] for head in self.heads]
        sizes += [self.heads[0].kernel.shape[0]] * len(self.branches)
        parts = extra.split(sizes, 1)
        return list(parts[: len(self.heads)]), list(parts[len(self.heads) :])


def joined(raw: list[Tensor], training: bool = False) -> Tensor:
    """(N, C) logits: background is head 0's plus every residual where that is negative; then all classes.

    In training only the last head's part of background takes a gradient, and counts whatever its sign.
    """
    first, *others = raw
    if training and others:
        background = first[:, :1].detach() + others[-1][:, :1]
        for each in others[:-1]:
            background = background + each[:, :1].detach().clamp(max=0)
    else:
        background = first[:, :1] + sum(each[:, :1].clamp(max=0) for each in others)
    return torch.cat([background, first[:, 1:], *(each[:, 1:] for each in others)], 1)


def add_branch(network: nn.Module, classes: int, start: Callable[[Tensor], Tensor]) -> None:
    """Grows the classifier by a branch; the first one puts a BranchedHead in its place."""
    if not isinstance(network.final, BranchedHead):
        network.final = BranchedHead(network.final)
    network.final.grow(classes, start)


def with_branches_of(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Gives a fresh network the branches that these weights have."""
    sizes = {}
    for name, value in weights.items():
        parts = name.split(".")
        if parts[:2] == ["final", "heads"] and parts[3] == "kernel":
            sizes[int(parts[2])] = value.shape[1]
    if not sizes:
        return
    network.final = Conv3d(network.final.kernel.shape[0], sizes[0], kernel_size=1, bias=True)
    for number in sorted(sizes)[1:]:
        add_branch(network, sizes[number] - 1, lambda kernel: kernel.zero_())
