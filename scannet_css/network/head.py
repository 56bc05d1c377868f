"""The classifier grows by the classes of a step."""

import math

import torch
from torch import nn

from scannet_css.errors import InputError
from scannet_css.network.branched_head import add_branch

STARTS = ("background", "copy", "plain", "reserved", "branch")


@torch.no_grad()
def grow(network: nn.Module, new_classes: int, start: str = "background") -> None:
    """Appends `new_classes` channels to `network.final`; the old channels keep their place.

    start "background": the new classes copy the background's weight and share its probability in equal parts,
    so that every old class keeps the probability it had: bias b - log(new_classes + 1) for the background and
    each new class (Cermelli et al., Modeling the Background for Incremental Learning in Semantic
    Segmentation, CVPR 2020). "copy": the new classes are copies of the background, for classifiers with a
    sigmoid per channel, which have no probability to share. "plain": the new channels start as those of a
    fresh classifier, with bias 0. "reserved": they are the first of those that `reserve_outputs` has set
    aside. "branch": the classifier becomes a BranchedHead, with features of their own for the new classes.
    None of these touches the old channels. `network.final.kernel` and `.bias` become new Parameters:
    build the optimiser afterwards. Raises InputError.
    """
    if new_classes < 1:
        raise InputError(f"new_classes {new_classes}: a classifier grows by at least 1 class")
    if start not in STARTS:
        raise InputError(f"start '{start}' of new classes is unknown; expected one of {', '.join(STARTS)}")
    if start == "branch":
        add_branch(network, new_classes, start_classifier)
        return
    classifier = network.final
    kernel, bias = classifier.kernel, classifier.bias
    if start == "background":
        new_kernel = kernel[:, :1].expand(-1, new_classes)
        old_bias = bias.clone()
        old_bias[:, 0] -= math.log(new_classes + 1)
        new_bias = old_bias[:, :1].expand(-1, new_classes)
    elif start == "copy":
        new_kernel, old_bias = kernel[:, :1].expand(-1, new_classes), bias
        new_bias = bias[:, :1].expand(-1, new_classes)
    elif start == "reserved":
        new_kernel, new_bias, old_bias = *_taken_from_reserve(network, new_classes), bias
    else:
        new_kernel = start_classifier(kernel.new_empty(kernel.shape[0], new_classes))
        old_bias, new_bias = bias, bias.new_zeros(1, new_classes)
    classifier.kernel = _like(kernel, torch.cat([kernel, new_kernel], dim=1))
    classifier.bias = _like(bias, torch.cat([old_bias, new_bias], dim=1))
    classifier.out_channels += new_classes


@torch.no_grad()
def shrink(network: nn.Module, channels: int) -> None:
    """Keeps the first `channels` of `network.final`; kernel and bias become new Parameters, as in grow."""
    classifier = network.final
    classifier.kernel = _like(classifier.kernel, classifier.kernel[:, :channels].clone())
    classifier.bias = _like(classifier.bias, classifier.bias[:, :channels].clone())
    classifier.out_channels = channels


RESERVE = "reserve"  # the name of the outputs set aside, in a network and its weights


def reserve_outputs(network: nn.Module, classes: int) -> None:
    """Sets aside a fresh classifier's outputs for `classes` classes to come; `grow` takes them over."""
    reserve = nn.Module()
    kernel = network.final.kernel
    reserve.kernel = nn.Parameter(start_classifier(kernel.new_empty(kernel.shape[0], classes)))
    reserve.bias = nn.Parameter(kernel.new_zeros(1, classes))
    network.add_module(RESERVE, reserve)


def _taken_from_reserve(network: nn.Module, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    reserve = network.reserve
    kernel, bias = reserve.kernel, reserve.bias
    reserve.kernel, reserve.bias = _like(kernel, kernel[:, classes:]), _like(bias, bias[:, classes:])
    return kernel[:, :classes], bias[:, :classes]


def _like(old: nn.Parameter, values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.clone(), requires_grad=old.requires_grad)


def start_classifier(kernel: torch.Tensor) -> torch.Tensor:
    """Fills kernel (F, C) with a fresh classifier's weights, N(0, 2 / F), whatever C is."""
    return kernel.normal_(0, math.sqrt(2 / kernel.shape[0]))


def freeze_body(network: nn.Module) -> None:
    """Only the classifier takes gradients from here on."""
    network.requires_grad_(False)
    network.final.requires_grad_(True)


@torch.no_grad()
def put_back_outputs(network: nn.Module, source: nn.Module, channels: range) -> None:
    """Gives these channels of the classifier the values that they have in `source`."""
    rows = slice(channels.start, channels.stop)
    network.final.kernel[:, rows] = source.final.kernel[:, rows]
    network.final.bias[:, rows] = source.final.bias[:, rows]
