"""What a network is given at a time: some scenes as voxels."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """B scenes as N voxels, scene by scene. In evaluation batches every scene also carries its vertices."""

    names: list[str]
    features: Tensor  # (N, channels) float32: mean of the features of the voxel's points
    coordinates: Tensor  # (N, 4) int32: scene in the batch, x, y, z
    labels: Tensor  # (N,) int64: channel, 255 ignored
    inverse: list[Tensor]  # evaluation only, per scene (P,) int64: each vertex's voxel row within the scene
    vertex_labels: list[Tensor]  # evaluation only, per scene (P,) int64: channel, 255 ignored

    @property
    def voxels(self) -> int:
        """N."""
        return len(self.coordinates)

    @property
    def tensors(self) -> list[Tensor]:
        """All that lies on the batch's device."""
        return [self.features, self.coordinates, self.labels, *self.inverse, *self.vertex_labels]

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

    def split(self, parts: int) -> list["Batch"]:
        """At most `parts` batches of whole consecutive scenes, none empty, none above N / parts plus its
        largest scene. Their rows, one part after another, are this batch's; scenes count from 0 in each.
        Raises ValueError for parts below 1."""
        if parts < 1:
            raise ValueError(f"parts {parts}: expected at least 1")
        sizes = torch.bincount(self.coordinates[:, 0], minlength=len(self.names)).tolist()
        members: dict[int, list[int]] = {}  # part: its scenes
        before = 0
        for scene, size in enumerate(sizes):
            # A scene belongs to the part, of `parts` equal ones, in which its middle lies.
            part = min(int((before + size / 2) * parts / max(self.voxels, 1)), parts - 1)
            members.setdefault(part, []).append(scene)
            before += size
        return [self._scenes(scenes[0], scenes[-1] + 1, sizes) for scenes in members.values()]

    def _scenes(self, first: int, end: int, sizes: list[int]) -> "Batch":
        start = sum(sizes[:first])
        rows = slice(start, start + sum(sizes[first:end]))
        coordinates = self.coordinates[rows].clone()
        coordinates[:, 0] -= first
        return Batch(
            self.names[first:end],
            self.features[rows],
            coordinates,
            self.labels[rows],
            self.inverse[first:end],
            self.vertex_labels[first:end],
        )
