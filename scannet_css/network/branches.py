"""Convolutions with a frozen branch beside the trained one, which become one convolution again:
representation compensation (C.-B. Zhang et al., Representation Compensation Networks for Continual Semantic
Segmentation, CVPR 2022, section 3.2)."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from scannet_css.network.minkunet import BasicBlock
from scannet_css.sparse import BatchNorm, Conv3d, SparseTensor

PAIRS = (("conv1", "norm1"), ("conv2", "norm2"))  # of a residual block


class TwoBranches(nn.Module):
    """In the place of a block's convolution: the mean of both branches behind their batch norms; in training
    each channel is at random, with a third each, the frozen branch's, the trained one's, or their mean."""

    def __init__(self, convolution: Conv3d, norm: BatchNorm):
        super().__init__()
        self.new, self.old = convolution, copy.deepcopy(convolution)
        norm.fold_into(self.old)
        norm.is_folded = False  # it goes on behind the trained branch
        self.old.requires_grad_(False)
        bn = norm.bn
        # What the frozen branch gives on average, before the norm's shift, and how widely.
        self.register_buffer(
            "old_mean", (bn.running_mean * bn.weight * torch.rsqrt(bn.running_var + bn.eps)).detach()
        )
        self.register_buffer("old_deviation", bn.weight.detach().abs())
        self.train(convolution.training)

    def forward(
        self, x: SparseTensor, norm: BatchNorm, residual: SparseTensor | None = None, relu: bool = False
    ) -> SparseTensor:
        new, old = self.new(x, norm), self.old(x)
        share = self._share_of_new(new.features)
        out = old.features + share * (new.features - old.features)
        if residual is not None:
            out = out + residual.canonical_features()
        return new.with_features(out.relu() if relu else out)

    def _share_of_new(self, features: Tensor) -> Tensor:
        channels = features.shape[1]
        if not self.training:
            return features.new_full((channels,), 0.5)
        return (torch.randint(0, 3, (channels,)) / 2).to(features)


def add_branches(network: nn.Module) -> None:
    """Every 3^3 convolution of the residual blocks gets a frozen branch that holds what it computes now."""
    for block in list(_blocks(network)):
        for convolution, norm in PAIRS:
            setattr(block, convolution, TwoBranches(getattr(block, convolution), getattr(block, norm)))


@torch.no_grad()
def merge_branches(network: nn.Module) -> None:
    """Takes the branches of every block into one convolution and batch norm that compute the same in
    evaluation.

    The batch norm keeps statistics that fit the merged convolution (its mean exactly, its variance as if the
    branches were fully correlated), so that training can go on from it.
    """
    for block in list(_blocks(network)):
        for convolution, norm in PAIRS:
            branches, layer = getattr(block, convolution), getattr(block, norm)
            setattr(block, convolution, _merged(branches, layer))


def _merged(branches: TwoBranches, norm: BatchNorm) -> Conv3d:
    bn, merged = norm.bn, branches.new
    new_kernel, new_shift = norm.folded(merged.kernel, None)
    kernel = (branches.old.kernel + new_kernel) / 2
    shift = (branches.old.bias + new_shift)[0] / 2
    merged.kernel.copy_(kernel)
    # What the folded kernels give on average, each by its own statistics.
    new_mean = bn.running_mean * bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    mean = (branches.old_mean + new_mean) / 2
    deviation = (branches.old_deviation + bn.weight.abs()) / 2
    bn.running_mean.copy_(mean)
    bn.running_var.copy_(deviation.square())
    bn.weight.copy_((deviation.square() + bn.eps).sqrt())
    bn.bias.copy_(shift + mean)
    return merged


def _blocks(network: nn.Module) -> Iterator[BasicBlock]:
    return (module for module in network.modules() if isinstance(module, BasicBlock))
