"""Prepared scenes -> batches of voxels, the same whatever the number of workers.

Which scenes form a batch, their order and how each is augmented depend only on (seed, step, epoch, scene).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from scannet_css.errors import InputError
from scannet_css.scenes.augment import augment
from scannet_css.scenes.store import Manifest, SceneEntry, load_scene
from scannet_css.scenes.voxelize import majority_labels, voxel_mean, voxelize


def derived_generator(*identity: int | str) -> Generator:
    """A random generator that depends on nothing but the identity, e.g. (seed, step, epoch, scene name)."""
    return Generator().manual_seed(derived_seed(*identity))


def derived_seed(*identity: int | str) -> int:
    """A 63-bit seed that depends on nothing but the identity."""
    text = "/".join(str(part) for part in identity)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


# What a point can bring to the network, and how many channels that is.
INPUTS = {"colour": 3, "normal": 3, "height": 1}


def input_channels(inputs: str) -> int:
    """Channels of inputs such as "colour" or "colour+normal+height". Raises InputError for another word."""
    names = inputs.split("+")
    for name in names:
        if name not in INPUTS or names.count(name) > 1:
            raise InputError(
                f"inputs {inputs!r}: expected some of {', '.join(INPUTS)}, each once, joined by +"
            )
    return sum(INPUTS[name] for name in names)


def point_features(inputs: str, points: Tensor, normals: Tensor, colours: Tensor) -> Tensor:
    """(P, channels) float32: colour in -1..1, unit normal, height above the scene's floor in metres.

    The floor is the height below which one point in a hundred lies, since meshes have strays.
    """
    features = []
    for name in inputs.split("+"):
        if name == "colour":
            features.append(colours / 127.5 - 1)
        elif name == "normal":
            features.append(normals)
        else:
            floor = points[:, 2].kthvalue(1 + (len(points) - 1) // 100).values
            features.append(points[:, 2:] - floor)
    return torch.cat(features, 1)


@dataclass
class Batch:
    """B scenes as N voxels. In evaluation batches every scene also carries its vertices."""

    names: list[str]
    features: Tensor  # (N, channels) float32: mean of the features of the voxel's points
    coordinates: Tensor  # (N, 4) int32: scene in the batch, x, y, z
    labels: Tensor  # (N,) int64: channel, 255 ignored
    inverse: list[Tensor]  # evaluation only, per scene (P,) int64: each vertex's voxel row within the scene
    vertex_labels: list[Tensor]  # evaluation only, per scene (P,) int64: channel, 255 ignored

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        return replace(
            self,
            features=move(self.features),
            coordinates=move(self.coordinates),
            labels=move(self.labels),
            inverse=[move(tensor) for tensor in self.inverse],
            vertex_labels=[move(tensor) for tensor in self.vertex_labels],
        )


def plan_batches(scenes: Sequence[SceneEntry], voxel_budget: int) -> list[list[SceneEntry]]:
    """Cuts the sequence into batches of at most `voxel_budget` voxels (as prepared); a larger scene stands
    alone."""
    batches: list[list[SceneEntry]] = []
    filled = 0
    for scene in scenes:
        if not batches or filled + scene.voxels > voxel_budget:
            batches.append([])
            filled = 0
        batches[-1].append(scene)
        filled += scene.voxels
    return batches


def shuffled(scenes: Sequence[SceneEntry], *identity: int | str) -> list[SceneEntry]:
    """The scenes in a random order that depends only on the identity."""
    order = torch.randperm(len(scenes), generator=derived_generator(*identity))
    return [scenes[index] for index in order.tolist()]


class BatchSet(Dataset):
    """Batches by number, for torch's DataLoader. `identity` = (seed, step, epoch) switches augmentation
    on."""

    def __init__(
        self,
        manifest: Manifest,
        batches: list[list[SceneEntry]],
        label_table: Tensor,
        inputs: str = "colour",
        identity: tuple[int, ...] | None = None,
        with_elastic: bool = False,
    ) -> None:
        self.manifest, self.batches, self.label_table, self.inputs = manifest, batches, label_table, inputs
        self.identity, self.with_elastic = identity, with_elastic

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        load = self._as_prepared if self.identity is None else self._augmented
        parts = [load(entry) for entry in self.batches[index]]
        features, coordinates, labels, inverse, vertex_labels = zip(*parts, strict=True)
        training = self.identity is not None
        return Batch(
            [entry.name for entry in self.batches[index]],
            torch.cat(features),
            torch.cat([_with_scene(number, part) for number, part in enumerate(coordinates)]),
            torch.cat(labels),
            [] if training else list(inverse),
            [] if training else list(vertex_labels),
        )

    def _as_prepared(self, entry: SceneEntry) -> tuple[Tensor, ...]:
        scene = load_scene(self.manifest.path(entry))
        inverse = scene.inverse.long()
        features = point_features(self.inputs, scene.points, scene.normals, scene.colours.float())
        return (
            voxel_mean(features, inverse, len(scene.voxel_coordinates)),
            scene.voxel_coordinates,
            self.label_table[scene.voxel_labels.long()],
            inverse,
            self.label_table[scene.labels.long()],
        )

    def _augmented(self, entry: SceneEntry) -> tuple[Tensor, ...]:
        scene = load_scene(self.manifest.path(entry))
        generator = derived_generator(*self.identity, entry.name)
        points, normals, colours = augment(
            scene.points, scene.normals, scene.colours.float(), generator, self.with_elastic
        )
        coordinates, inverse = voxelize(points, self.manifest.voxel_size)
        labels = majority_labels(scene.labels, inverse, len(coordinates))
        features = point_features(self.inputs, points, normals, colours)
        features = voxel_mean(features, inverse, len(coordinates))
        return features, coordinates, self.label_table[labels.long()], inverse, labels


def _with_scene(number: int, coordinates: Tensor) -> Tensor:
    return torch.nn.functional.pad(coordinates, (1, 0), value=number)


def batches_of(batch_set: BatchSet, workers: int) -> Iterator[Batch]:
    """Iterates over the batches in order, loaded by `workers` processes (0: this one)."""
    return iter(DataLoader(batch_set, batch_size=None, num_workers=workers))
