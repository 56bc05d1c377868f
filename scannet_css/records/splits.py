"""What is known of validation splits: how many vertices and voxels each class has in a prepared data set.

A split is registered once, from the prepared data (tools/register_split.py), as a file of benchmarks/splits
named by the manifest's hash. The rows of every confusion matrix of a run on that data have to add up to these
counts, whoever made it.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from scannet_css.classes import IGNORE
from scannet_css.files import write_json
from scannet_css.scenes import Manifest, load_scene
from scannet_css.strict_json import named, read_file, require


@dataclass
class Split:
    """A data set's validation split. Counts by class name; unannotated points are left out, as they are in
    the evaluation."""

    dataset: str
    manifest_hash: str
    voxel_size: float  # metres
    train_scenes: int
    validation_scenes: int
    vertices: dict[str, int]
    voxels: dict[str, int]


def count_split(manifest: Manifest) -> Iterator[Split]:
    """Yields the split of prepared data, with all scenes counted so far, once for every validation scene."""
    classes, scenes = manifest.classes, manifest.split("val")
    vertices = torch.zeros(len(classes), dtype=torch.int64)
    voxels = torch.zeros_like(vertices)
    for entry in scenes:
        scene = load_scene(manifest.path(entry))
        for labels, counts in ((scene.labels, vertices), (scene.voxel_labels, voxels)):
            counts += torch.bincount(labels[labels != IGNORE], minlength=len(classes))
        yield Split(
            manifest.dataset,
            manifest.hash,
            manifest.voxel_size,
            len(manifest.split("train")),
            len(scenes),
            dict(zip(classes, vertices.tolist(), strict=True)),
            dict(zip(classes, voxels.tolist(), strict=True)),
        )


def save_split(split: Split, folder: Path) -> Path:
    """Writes folder/<first 16 digits of the manifest's hash>.json, atomically."""
    path = folder / f"{split.manifest_hash[:16]}.json"
    write_json(path, asdict(split))
    return path


def load_splits(folder: str | Path) -> dict[str, Split]:
    """All registered splits by manifest hash; none without the folder. Raises InputError (file, field)."""
    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        split = read_file(Split, path, "no such split")
        with named(path):
            name = split.manifest_hash[:16]
            require(path.stem == name, "manifest_hash", split.manifest_hash, f"expected {path.stem}...")
        found[split.manifest_hash] = split
    return found
