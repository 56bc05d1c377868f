"""MinkUNet (Choy et al., 4D Spatio-Temporal ConvNets, CVPR 2019), written flat: stages carry their stride.

Structure and parameter names are those of MinkowskiEngine's examples, so its checkpoints load as they are.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scannet_css.errors import InputError, did_you_mean
from scannet_css.network.head import start_classifier
from scannet_css.sparse import BatchNorm, Conv3d, ConvTranspose3d, SparseTensor

# name: (planes of stages 1 to 8, blocks per stage, planes of the stem, kernel size of the stem)
_14, _18, _34 = (1,) * 8, (2,) * 8, (2, 3, 4, 6, 2, 2, 2, 2)
NETWORKS = {
    "minkunet14a": ((32, 64, 128, 256, 128, 128, 96, 96), _14, 32, 5),
    "minkunet14b": ((32, 64, 128, 256, 128, 128, 128, 128), _14, 32, 5),
    "minkunet14c": ((32, 64, 128, 256, 192, 192, 128, 128), _14, 32, 5),
    "minkunet14d": ((32, 64, 128, 256, 384, 384, 384, 384), _14, 32, 5),
    "minkunet18a": ((32, 64, 128, 256, 128, 128, 96, 96), _18, 32, 5),
    "minkunet18b": ((32, 64, 128, 256, 128, 128, 128, 128), _18, 32, 5),
    "minkunet18d": ((32, 64, 128, 256, 384, 384, 384, 384), _18, 32, 5),
    "minkunet34a": ((32, 64, 128, 256, 256, 128, 64, 64), _34, 32, 5),
    "minkunet34b": ((32, 64, 128, 256, 256, 128, 64, 32), _34, 32, 5),
    "minkunet34c": ((32, 64, 128, 256, 256, 128, 96, 96), _34, 32, 5),
    "minkunet14s": ((16, 32, 48, 64, 64, 48, 32, 32), _14, 16, 3),  # ours: small enough to train on a CPU
}
# the batch norm after each convolution outside of the blocks
_NORMS = {
    "conv0p1s1": "bn0",
    "conv1p1s2": "bn1",
    "conv2p2s2": "bn2",
    "conv3p4s2": "bn3",
    "conv4p8s2": "bn4",
    "convtr4p16s2": "bntr4",
    "convtr5p8s2": "bntr5",
    "convtr6p4s2": "bntr6",
    "convtr7p2s2": "bntr7",
}


@dataclass
class Level:
    """One decoder level: coordinates (M, 4), features (M, F_level), stride in finest voxels."""

    coordinates: Tensor
    features: Tensor
    stride: int


@dataclass
class Output:
    """logits (N, C) and features (N, F) before the classifier, in the input's rows; levels coarse to fine.
    extra: what a classifier other than the usual one gives beside its logits."""

    logits: Tensor
    features: Tensor
    levels: list[Level]
    extra: Tensor | None = None

    def clone(self) -> "Output":
        """The same with tensors of its own; the finest level is `features` again."""
        features = self.features.clone()
        levels = [Level(y.coordinates, y.features.clone(), y.stride) for y in self.levels[:-1]]
        finest = self.levels[-1]
        extra = None if self.extra is None else self.extra.clone()
        return Output(self.logits.clone(), features, [*levels, Level(finest.coordinates, features, 1)], extra)


class BasicBlock(nn.Module):
    """Two 3^3 convolutions and the residual sum; a 1^3 convolution adapts the channels where they change."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv1 = Conv3d(in_channels, channels, kernel_size=3)
        self.norm1 = BatchNorm(channels)
        self.conv2 = Conv3d(channels, channels, kernel_size=3)
        self.norm2 = BatchNorm(channels)
        self.downsample = None
        if in_channels != channels:
            self.downsample = nn.Sequential(Conv3d(in_channels, channels, kernel_size=1), BatchNorm(channels))

    def fold_norms(self) -> None:
        """See MinkUNet.fold_norms."""
        self.norm1.fold_into(self.conv1)
        self.norm2.fold_into(self.conv2)
        if self.downsample is not None:
            conv, norm = self.downsample
            norm.fold_into(conv)

    def forward(self, x: SparseTensor) -> SparseTensor:
        out = self.conv1(x, self.norm1, relu=True)
        shortcut = x
        if self.downsample is not None:
            conv, norm = self.downsample
            shortcut = conv(x, norm)
        return self.conv2(out, self.norm2, residual=shortcut, relu=True)


class MinkUNet(nn.Module):
    """x: SparseTensor with `in_channels` features -> Output.

    planes: channels of block1 to block8; layers: residual blocks in each; stem: channels before block1.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        planes: tuple[int, ...],
        layers: tuple[int, ...] = _14,
        stem: int = 32,
        stem_kernel_size: int = 5,
    ):
        super().__init__()
        self.in_channels, self.planes, self.layers, self.stem = in_channels, planes, layers, stem
        p = planes
        self.conv0p1s1 = Conv3d(in_channels, stem, kernel_size=stem_kernel_size)
        self.bn0 = BatchNorm(stem)

        self.conv1p1s2 = Conv3d(stem, stem, kernel_size=2, stride=2)
        self.bn1 = BatchNorm(stem)
        self.block1 = stage(stem, p[0], layers[0])
        self.conv2p2s2 = Conv3d(p[0], p[0], kernel_size=2, stride=2)
        self.bn2 = BatchNorm(p[0])
        self.block2 = stage(p[0], p[1], layers[1])
        self.conv3p4s2 = Conv3d(p[1], p[1], kernel_size=2, stride=2)
        self.bn3 = BatchNorm(p[1])
        self.block3 = stage(p[1], p[2], layers[2])
        self.conv4p8s2 = Conv3d(p[2], p[2], kernel_size=2, stride=2)
        self.bn4 = BatchNorm(p[2])
        self.block4 = stage(p[2], p[3], layers[3])

        self.convtr4p16s2 = ConvTranspose3d(p[3], p[4])
        self.bntr4 = BatchNorm(p[4])
        self.block5 = stage(p[4] + p[2], p[4], layers[4])
        self.convtr5p8s2 = ConvTranspose3d(p[4], p[5])
        self.bntr5 = BatchNorm(p[5])
        self.block6 = stage(p[5] + p[1], p[5], layers[5])
        self.convtr6p4s2 = ConvTranspose3d(p[5], p[6])
        self.bntr6 = BatchNorm(p[6])
        self.block7 = stage(p[6] + p[0], p[6], layers[6])
        self.convtr7p2s2 = ConvTranspose3d(p[6], p[7])
        self.bntr7 = BatchNorm(p[7])
        self.block8 = stage(p[7] + stem, p[7], layers[7])

        self.final = Conv3d(p[7], classes, kernel_size=1, bias=True)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Kaiming-normal convolutions (fan out), as MinkowskiEngine starts them; the classifier's bias 0."""
        for module in self.modules():
            if isinstance(module, Conv3d) and module is not self.final:
                fan = module.kernel_size**3 * module.out_channels
                module.kernel.normal_(0, math.sqrt(2 / fan))
        start_classifier(self.final.kernel)
        self.final.bias.zero_()

    @property
    def classes(self) -> int:
        """Output channels now."""
        return self.final.kernel.shape[1]

    def fold_norms(self) -> None:
        """Takes every batch norm, as it is in evaluation, into its convolution for good: cheaper to run, and
        no longer to be trained."""
        for conv, norm in _NORMS.items():
            getattr(self, norm).fold_into(getattr(self, conv))
        for module in self.modules():
            if isinstance(module, BasicBlock):
                module.fold_norms()

    def forward(self, x: SparseTensor) -> Output:
        rows = x.in_canonical_order()
        p1 = self.conv0p1s1(rows, self.bn0, relu=True)
        p2 = self.block1(self.conv1p1s2(p1, self.bn1, relu=True))
        p4 = self.block2(self.conv2p2s2(p2, self.bn2, relu=True))
        p8 = self.block3(self.conv3p4s2(p4, self.bn3, relu=True))
        out = self.block4(self.conv4p8s2(p8, self.bn4, relu=True))

        out8 = self.block5(beside(self.convtr4p16s2(out, self.bntr4, relu=True), p8))
        out4 = self.block6(beside(self.convtr5p8s2(out8, self.bntr5, relu=True), p4))
        out2 = self.block7(beside(self.convtr6p4s2(out4, self.bntr6, relu=True), p2))
        out1 = self.block8(beside(self.convtr7p2s2(out2, self.bntr7, relu=True), p1))
        logits, extra = self.final(out1).in_order_of(x).features, None
        if logits.shape[1] > self.classes:
            logits, extra = logits[:, : self.classes], logits[:, self.classes :]
        out1 = out1.in_order_of(x)

        levels = [Level(y.coordinates, y.features, y.stride) for y in (out8, out4, out2, out1)]
        return Output(logits, out1.features, levels, extra)


def stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(BasicBlock(channels if i else in_channels, channels) for i in range(blocks)))


def beside(a: SparseTensor, b: SparseTensor) -> SparseTensor:
    """The channels of both, at the same voxels."""
    return a.with_features(torch.cat([a.features, b.features], dim=1))


def build_network(name: str, in_channels: int = 3, classes: int = 20) -> MinkUNet:
    """A network of NETWORKS by its name. Raises InputError, with the nearest name, where there is none."""
    if name not in NETWORKS:
        raise InputError(
            f"network {name!r} is not known{did_you_mean(name, NETWORKS)}; expected {', '.join(NETWORKS)}"
        )
    return MinkUNet(in_channels, classes, *NETWORKS[name])


def frozen_copy(network: MinkUNet) -> MinkUNet:
    """The teacher: a copy for evaluation that takes no gradient, its batch norms folded."""
    copied = copy.deepcopy(network).eval()
    copied.fold_norms()
    return copied.requires_grad_(False)
