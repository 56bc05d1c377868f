"""Prepared scenes on disk: one safetensors file per scene, and the manifest that lists them.

    OUT/manifest.json
    OUT/<split>/<name>.safetensors

Every scene file carries its manifest entry, the digest of the settings it was made with and the sizes of its
raw files in its own header, so a folder without a manifest can still be understood.
"""

import hashlib
import json
import platform
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy
import safetensors
import torch
from safetensors.torch import save

import scannet_css
from scannet_css.classes import IGNORE
from scannet_css.errors import InputError
from scannet_css.files import digest, write_atomic, write_json
from scannet_css.strict_json import Name, Prose, named, parse, read, read_file, require

FORMAT = 2  # raised whenever the meaning of what is stored changes; 2: findings and settings
SPLITS = ("train", "val", "test")
SCENE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MANIFEST = "manifest.json"
_HEADER = "scannet_css"
_TENSORS = {  # name: (dtype, rows, columns)
    "points": (torch.float32, "P", 3),
    "colours": (torch.uint8, "P", 3),
    "normals": (torch.float32, "P", 3),
    "labels": (torch.uint8, "P", None),
    "instances": (torch.int32, "P", None),
    "voxel_coordinates": (torch.int32, "N", 3),
    "voxel_labels": (torch.uint8, "N", None),
    "inverse": (torch.int32, "P", None),
}


@dataclass
class Scene:
    """One prepared room: P vertices in the order of the raw mesh, N voxels in lexicographic order."""

    name: str
    points: torch.Tensor  # (P, 3) float32, metres
    colours: torch.Tensor  # (P, 3) uint8
    normals: torch.Tensor  # (P, 3) float32, unit length, zero where no face
    labels: torch.Tensor  # (P,) uint8: position in the data set's classes, 255 ignored
    instances: torch.Tensor  # (P,) int32: object of the vertex, -1 none
    voxel_coordinates: torch.Tensor  # (N, 3) int32
    voxel_labels: torch.Tensor  # (N,) uint8: majority of the labelled vertices, 255 without one
    inverse: torch.Tensor  # (P,) int32: voxel of each vertex


@dataclass(frozen=True)
class SceneEntry:
    """What the manifest knows of a scene. Counts are vertices."""

    name: str
    split: str
    file: str  # relative to the manifest's folder
    sha256: Prose  # of the file; empty in the file's own header
    vertices: int
    voxels: int
    class_counts: tuple[int, ...]  # per class of the data set
    ignored: int
    unknown_ids: dict[int, int]  # label id that the data set does not have -> vertices
    labelled: bool
    content: Prose = ""  # sha256 of the tensors alone, see content_digest
    findings: dict[str, int] = field(default_factory=dict)  # see FINDINGS in scannet_css.raw.scan


@dataclass(frozen=True)
class SceneHeader:
    """What a scene file says of itself."""

    settings: str  # see settings_digest
    raw: dict[Name, int]  # name of each raw file -> bytes
    entry: SceneEntry


@dataclass(frozen=True)
class Manifest:
    """The prepared data set in `folder`. `hash` names its content: data set, classes, voxel size, settings
    and every scene's split and tensors, whatever tool versions, paths, times and raw file sizes it was made
    with."""

    folder: Path
    dataset: str
    classes: tuple[str, ...]
    voxel_size: float  # metres
    scenes: dict[str, SceneEntry]
    settings: dict[str, str] = field(default_factory=dict)  # what its reader was told: {"labels": "ply"}

    @property
    def hash(self) -> str:
        scenes = {name: [entry.split, entry.content] for name, entry in self.scenes.items()}
        settings = settings_digest(self.dataset, self.classes, self.voxel_size, self.settings)
        return digest([settings, scenes])

    def split(self, name: str) -> list[SceneEntry]:
        """The scenes of a split ("train", "val", "test"), sorted by name."""
        return sorted(
            (entry for entry in self.scenes.values() if entry.split == name), key=lambda entry: entry.name
        )

    def path(self, entry: SceneEntry) -> Path:
        """Where the file of `entry` lies."""
        return self.folder / entry.file


def settings_digest(
    dataset: str, classes: tuple[str, ...], voxel_size: float, settings: dict[str, str]
) -> str:
    """Names all that a scene is prepared with."""
    return digest([FORMAT, dataset, list(classes), voxel_size, settings])


def scene_file(split: str, name: str) -> str:
    """Where a scene lies below the manifest's folder."""
    return f"{split}/{name}.safetensors"


def content_digest(scene: Scene) -> str:
    """sha256 of a scene's tensors: names, shapes and values."""
    state = hashlib.sha256()
    for name in _TENSORS:
        tensor = getattr(scene, name)
        state.update(f"{name} {list(tensor.shape)} ".encode())
        state.update(tensor.contiguous().numpy())
    return state.hexdigest()


def save_scene(path: Path, scene: Scene, header: SceneHeader) -> str:
    """Writes a scene atomically and gives the sha256 of the file; the same input gives the same bytes."""
    tensors = {name: getattr(scene, name).contiguous() for name in _TENSORS}
    # one key only: safetensors does not keep the order of several
    text = json.dumps(asdict(header), sort_keys=True, separators=(",", ":"))
    content = save(tensors, metadata={_HEADER: text})
    write_atomic(path, content)
    return hashlib.sha256(content).hexdigest()


def load_scene(path: str | Path) -> Scene:
    """Loads a prepared scene. Raises InputError if the file is missing, damaged or something else."""
    path = Path(path)
    with _open(path) as file:
        header = _header(path, file)
        try:
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
        except safetensors.SafetensorError as error:
            raise InputError(f"{path}: {error}; prepare it again") from None
    rows = {"P": len(tensors["points"]), "N": len(tensors["voxel_coordinates"])}
    for name, (dtype, row, columns) in _TENSORS.items():
        shape = (rows[row],) if columns is None else (rows[row], columns)
        found = tensors[name]
        if found.dtype != dtype or tuple(found.shape) != shape:
            raise InputError(
                f"{path}: {name} is {found.dtype} {tuple(found.shape)}; expected {dtype} {shape}; "
                "prepare it again"
            )
    # In numpy: torch's threads take longer to wake than these checks last.
    labels, inverse = tensors["labels"].numpy(), tensors["inverse"].numpy()
    known = (labels < len(header.entry.class_counts)) | (labels == IGNORE)
    if not known.all() or (len(inverse) and not 0 <= int(inverse.min()) <= int(inverse.max()) < rows["N"]):
        raise InputError(f"{path}: labels or inverse map out of range; prepare it again")
    return Scene(header.entry.name, **tensors)


def read_header(path: Path) -> SceneHeader:
    """What a scene file says of itself. Raises InputError if it is no scene file."""
    with _open(path) as file:
        return _header(path, file)


def _open(path: Path):
    try:
        return safetensors.safe_open(path, framework="pt")
    except FileNotFoundError:
        raise InputError(f"{path}: no such scene; run tools/prepare_scannet.py") from None
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path}: not a prepared scene ({error}); if it was, remove it and prepare again"
        ) from None


def _header(path: Path, file) -> SceneHeader:
    try:
        header = read(SceneHeader, parse((file.metadata() or {}).get(_HEADER, "").encode()), "")
        _check_entry(header.entry)
    except InputError as error:
        raise InputError(f"{path}: not a scene of this suite ({error})") from None
    return header


def save_manifest(manifest: Manifest) -> None:
    """Writes manifest.json, atomically."""
    versions = {
        "scannet-css": scannet_css.__version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": torch.__version__,
        "safetensors": safetensors.__version__,
    }
    scenes = {}
    for name in sorted(manifest.scenes):
        scenes[name] = {key: value for key, value in asdict(manifest.scenes[name]).items() if key != "name"}
    content = {
        "format": FORMAT,
        "dataset": manifest.dataset,
        "classes": list(manifest.classes),
        "voxel_size": manifest.voxel_size,
        "settings": manifest.settings,
        "hash": manifest.hash,
        "versions": versions,
        "scenes": scenes,
    }
    write_json(manifest.folder / MANIFEST, content)


def load_manifest(folder: str | Path) -> Manifest:
    """The manifest of a prepared data set. Raises InputError if it is missing, foreign, damaged or edited."""
    path = Path(folder) / MANIFEST
    absent = "no prepared data set here; run tools/prepare_scannet.py"
    content = read_file(dict[Name, Any], path, absent)
    version = content.get("format")
    if version != FORMAT:
        raise InputError(
            f"{path}: format {version!r}; expected the manifest of a prepared data set, format {FORMAT}"
        )
    with named(f"{path}: damaged manifest, prepare again"):
        file = read(_File, content, "")
        scenes = {name: _entry(name, value) for name, value in file.scenes.items()}
    manifest = Manifest(Path(folder), file.dataset, file.classes, file.voxel_size, scenes, file.settings)
    if file.hash != manifest.hash:
        raise InputError(f"{path}: its scenes do not match its hash; was it edited? prepare again")
    return manifest


@dataclass
class _File:
    """What manifest.json holds."""

    format: int
    dataset: Name
    classes: tuple[Name, ...]
    voxel_size: float
    settings: dict[Name, Name]
    hash: Name
    versions: dict[Name, Name]
    scenes: dict[Name, dict[Name, Any]]  # entries without their name


def _entry(name: str, value: dict[str, Any]) -> SceneEntry:
    where = f"scenes.{name}"
    for key in ("content", "findings"):  # have a default only where an entry is made
        require(key in value, f"{where}.{key}", None, "missing")
    with named(where):
        entry = read(SceneEntry, {**value, "name": name}, "")
        _check_entry(entry)
    return entry


def _check_entry(entry: SceneEntry) -> None:
    """The rules that go beyond types."""
    counts = {
        **{key: getattr(entry, key) for key in ("vertices", "voxels", "ignored")},
        **{"class_counts": min(entry.class_counts, default=0)},
        **{f"unknown_ids.{key}": count for key, count in entry.unknown_ids.items()},
        **{f"findings.{key}": count for key, count in entry.findings.items()},
    }
    for key, count in counts.items():
        require(count >= 0, key, count, "expected whole numbers from 0")
    rule = f"expected {entry.vertices}: class counts and ignored do not add up to its vertices"
    found = sum(entry.class_counts) + entry.ignored
    require(found == entry.vertices, "vertices", found, rule)
    file = scene_file(entry.split, entry.name)
    fits = entry.split in SPLITS and entry.file == file and SCENE_NAME.fullmatch(entry.name)
    require(bool(fits), "file", entry.file, f"unexpected split or file, expected {file}")
    for key, text in (("sha256", entry.sha256), ("content", entry.content)):
        fits = re.fullmatch("([0-9a-f]{64})?", text)
        require(bool(fits), key, text, f"unexpected {key}, expected 64 hexadecimal digits")
