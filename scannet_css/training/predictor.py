"""A trained network applied to scenes that no training has seen: channels, ids and colours per vertex."""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from scannet_css.classes import class_list
from scannet_css.commands import add_device_option
from scannet_css.errors import InputError
from scannet_css.processes import one_thread
from scannet_css.raw.scan import RawScan
from scannet_css.scenes import Scene
from scannet_css.scenes.convert import prepare_scene
from scannet_css.scenes.loader import point_features
from scannet_css.scenes.voxelize import voxel_mean
from scannet_css.training.evaluate import answers
from scannet_css.training.machine import Machine, find_device
from scannet_css.training.trained import Trained, load_trained


class Predictor:
    """Predicts a scene at a time, as a run's evaluation does: on the CPU with the very same answers."""

    def __init__(self, trained: Trained, device: torch.device) -> None:
        self.trained, self.about, self.machine = trained, trained.about, Machine(device)
        self.network = trained.network.to(device)
        classes, channels = class_list(self.about.classes), self.about.channels
        self.ids, self.colours = classes.channel_ids(channels), classes.channel_colours(channels)

    def __str__(self) -> str:
        about = self.about
        made_by = f"{about.method} after step {about.step}" if about.method else f"step {about.step}"
        return f"{self.trained.path}: {made_by}, {about.network}, {len(about.channels) - 1} classes"

    def predict_scan(self, scan: RawScan) -> Tensor:
        """The channel of each vertex (P,) uint8 of a raw scan, voxelised as the network's training data.

        Raises InputError for a scan without the colours that the network takes.
        """
        if scan.colours is None and "colour" in self.about.inputs.split("+"):
            raise InputError(
                "vertices lack the colours red, green, blue, which the network takes"
                f" (inputs {self.about.inputs})"
            )
        return self.predict(prepare_scene(scan, self.about.voxel_size))

    def predict(self, scene: Scene) -> Tensor:
        """The channel of each vertex (P,) uint8 of a prepared scene, on the CPU; voxels of the network's
        size. Raises InputError for numbers that are not finite, and where the memory does not suffice."""
        voxels = len(scene.voxel_coordinates)
        if not voxels:
            return torch.zeros(len(scene.points), dtype=torch.uint8)
        if not torch.isfinite(scene.points.sum() + scene.normals.sum()):
            raise InputError("points or normals are not finite; prepare it again from whole data")
        with one_thread():
            features = point_features(self.about.inputs, scene.points, scene.normals, scene.colours.float())
            features = voxel_mean(features, scene.inverse.long(), voxels)
        device = self.machine.device
        try:
            of_voxels = answers(
                self.network,
                self.trained.predict,
                features.to(device),
                F.pad(scene.voxel_coordinates, (1, 0)).to(device),
                self.about.predicts_background,
                lambda: self.machine.autocast(self.about.precision),
            )
        except torch.OutOfMemoryError:
            raise InputError(
                f"{voxels} voxels do not fit into the memory of {device}; --device cpu"
            ) from None
        return of_voxels.to("cpu", torch.uint8)[scene.inverse.long()]


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which network predicts, and where: what `predictor_of` takes."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="C",
        help="a run's folder, a step's (RUN/step1, RUN/step1/finished.pt, runs/base/<digest>), or exported"
        " weights (RUN/weights/step1.safetensors)",
    )
    parser.add_argument("--step", type=int, help="of the run's folder (default: its last finished one)")
    parser.add_argument(
        "--method", metavar="FILE.py:Class", help="where a method lies that does not come with the suite"
    )
    add_device_option(parser)


def predictor_of(options: argparse.Namespace) -> Predictor:
    """The network that the options name. Raises InputError."""
    device = find_device(options.device)
    return Predictor(load_trained(options.checkpoint, options.step, options.method), device)
