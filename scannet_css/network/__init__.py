"""Networks on sparse tensors, and the classifier that grows with the classes."""

from scannet_css.network.head import grow
from scannet_css.network.minkunet import NETWORKS, Level, MinkUNet, Output, build_network, frozen_copy

__all__ = ["NETWORKS", "Level", "MinkUNet", "Output", "build_network", "frozen_copy", "grow"]
