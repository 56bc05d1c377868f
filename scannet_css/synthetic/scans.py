"""Synthetic scans in ScanNet's raw format: make one, write it, make a whole set.

A scan depends on nothing but (seed, split, index, vertices): not on the number of workers, not on how many
scans the set holds. So a set can be extended, and the first scans of a larger one are the same bytes.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scannet_css.classes import SCANNET20, SCANNET200
from scannet_css.errors import InputError
from scannet_css.files import write_atomic, write_json
from scannet_css.raw.ply_files import ply_bytes
from scannet_css.synthetic.paint import DATA
from scannet_css.synthetic.rooms import make_room
from scannet_css.synthetic.scanning import MadeScan, categories, scan_room

GENERATOR_VERSION = 1
STREAMS = {"train": 0, "val": 1}
VAL_OFFSET = 5000  # scene numbers of validation scans: scene5000_00, scene5001_00, ...
LARGEST_SET = 5000
SETTINGS_FILE = "synthetic.json"
_OWN_IDS = 10_000  # above all ids of ScanNet's label table

TSV_COLUMNS = (
    "id",
    "raw_category",
    "category",
    "count",
    "nyu40id",
    "eigen13id",
    "nyuClass",
    "nyu40class",
    "eigen13class",
    "ModelNet40",
    "ModelNet10",
    "ShapeNetCore55",
    "synsetoffset",
    "wnsynsetid",
    "wnsynsetkey",
    "mpcat40",
    "mpcat40index",
)


def scan_name(split: str, index: int) -> str:
    """`scene0007_00` for train scan 7, `scene5007_00` for validation scan 7."""
    return f"scene{index + VAL_OFFSET * STREAMS[split]:04d}_00"


def make_scan(seed: int, split: str, index: int, vertices: int = 130_000) -> MadeScan:
    """Scan `index` of a split; `vertices` is the median over scans, larger rooms have more."""
    rng = np.random.default_rng([seed, STREAMS[split], 0, index])
    return scan_room(make_room(seed, STREAMS[split], index, rng), vertices, rng)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the name `folder` when all is written; after an error nothing is left."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_scan(scan: MadeScan, folder: Path) -> None:
    """Writes the five raw files of a scan into `folder`, named as the scan; it is whole or absent."""
    name, labels = folder.name, scan.nyu40()
    with whole_folder(folder) as temporary:
        _write_ply(temporary / f"{name}_vh_clean_2.ply", scan.points, scan.colours, scan.faces)
        _write_ply(
            temporary / f"{name}_vh_clean_2.labels.ply",
            scan.points,
            label_palette()[labels],
            scan.faces,
            labels,
        )
        _write_segments(temporary / f"{name}_vh_clean_2.0.010000.segs.json", name, scan)
        _write_aggregation(temporary / f"{name}.aggregation.json", name, scan)
        _write_info(temporary / f"{name}.txt", scan)


def _write_ply(path: Path, points, colours, faces, labels=None) -> None:
    fields = [(axis, "<f4") for axis in "xyz"]
    fields += [(name, "u1") for name in ("red", "green", "blue", "alpha")]
    vertex = np.empty(len(points), fields + ([("label", "<u2")] if labels is not None else []))
    for axis, values in zip("xyz", points.T, strict=True):
        vertex[axis] = values
    for name, values in zip(("red", "green", "blue"), colours.T, strict=True):
        vertex[name] = values
    vertex["alpha"] = 255
    if labels is not None:
        vertex["label"] = labels
    path.write_bytes(ply_bytes(vertex, faces))


def label_palette() -> np.ndarray:
    """Colours (41, 3) uint8 by NYU40 id: the benchmark's for its classes, else greys; 0 is black."""
    table = np.repeat((60 + 3 * np.arange(41, dtype=np.uint8))[:, None], 3, axis=1)
    table[0] = 0
    table[list(SCANNET20.ids)] = SCANNET20.colours
    return table


def _write_segments(path: Path, name: str, scan: MadeScan) -> None:
    value = {
        "params": {
            "kThresh": "0.01",
            "segMinVerts": "20",
            "minPoints": "750",
            "maxPoints": "30000",
            "thinThresh": "0.05",
        },
        "sceneId": name,
        "segIndices": scan.segments.tolist(),
    }
    path.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


def _write_aggregation(path: Path, name: str, scan: MadeScan) -> None:
    pairs = np.unique(np.stack([scan.objects, scan.segments], axis=1), axis=0)
    groups = [
        {"id": k, "objectId": k, "segments": pairs[pairs[:, 0] == k, 1].tolist(), "label": category}
        for k, category in enumerate(scan.categories)
    ]
    segments_file = f"scannet.{name}_vh_clean_2.0.010000.segs.json"
    value = {
        "sceneId": f"scannet.{name}",
        "appId": "synthetic",
        "segGroups": groups,
        "segmentsFile": segments_file,
    }
    path.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


def _write_info(path: Path, scan: MadeScan) -> None:
    lines = {
        "axisAlignment": " ".join(f"{value:.6f}" for value in scan.alignment.ravel()),
        "numDepthFrames": 0,
        "numColorFrames": 0,
        "sceneType": scan.archetype.replace("_", " "),
    }
    path.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()), encoding="utf-8")


def label_map() -> str:
    """The text of scannetv2-labels.combined.tsv with one row per raw category that the generator makes.

    Ids are ScanNet's where ScanNet200 has the category, else numbers that it does not use.
    """
    names = json.loads((DATA / "categories.json").read_text(encoding="utf-8"))["nyu40_names"]
    ids = dict(zip(SCANNET200.names, SCANNET200.ids, strict=True))
    rows = ["\t".join(TSV_COLUMNS)]
    for number, (category, entry) in enumerate(categories().items(), start=1):
        row = dict.fromkeys(TSV_COLUMNS, "")
        scannet_id = ids.get(entry.get("scannet200", category), _OWN_IDS + number)
        row |= {"id": str(scannet_id), "raw_category": category, "category": category, "count": "0"}
        name = names[entry["nyu40"] - 1]
        row |= {"nyu40id": str(entry["nyu40"]), "nyuClass": name, "nyu40class": name}
        rows.append("\t".join(row.values()))
    return "\n".join(rows) + "\n"


def make_set(
    out: str | Path, train: int, val: int, seed: int, vertices: int = 130_000, workers: int = 1
) -> int:
    """Makes what is missing of a set of scans under `out` and returns how many scans that was.

    Raises InputError for impossible numbers and for a folder that was made with another seed, number of
    vertices or generator; OSError if it cannot be written.
    """
    out = Path(out)
    for option, value, low, high in (
        ("train", train, 0, LARGEST_SET),
        ("val", val, 0, LARGEST_SET),
        ("seed", seed, 0, 2**32 - 1),
        ("vertices", vertices, 2000, 1_000_000),
        ("workers", workers, 1, 512),
    ):
        if not low <= value <= high:
            raise InputError(f"--{option} {value}: expected a number from {low} to {high}")
    names = {
        split: [scan_name(split, k) for k in range(count)]
        for split, count in (("train", train), ("val", val))
    }
    check_settings(out, _settings(seed, vertices))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SETTINGS_FILE, _settings(seed, vertices) | {"train": train, "val": val})
    write_atomic(out / "scannetv2-labels.combined.tsv", label_map())
    for split, scans in names.items():
        write_atomic(out / f"scannetv2_{split}.txt", "".join(f"{name}\n" for name in scans))
    missing = [
        (seed, split, k, vertices, out / name)
        for split, scans in names.items()
        for k, name in enumerate(scans)
        if not (out / name).is_dir()
    ]
    make_missing(_make_one, missing, workers, "scan")
    return len(missing)


def _settings(seed: int, vertices: int) -> dict:
    return {
        "dataset": "synthetic",
        "seed": seed,
        "vertices": vertices,
        "generator_version": GENERATOR_VERSION,
    }


def check_settings(out: Path, settings: dict) -> None:
    """Raises InputError if `out` holds scans that were made otherwise than with `settings`."""
    path = out / SETTINGS_FILE
    if not path.exists():
        if out.is_dir() and any(out.glob("scene*")):
            raise InputError(
                f"{out}: holds scans that are not synthetic (no {SETTINGS_FILE}); expected an empty folder"
            )
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path}: not JSON; expected the settings of a synthetic set") from None
    for key, value in settings.items():
        if found.get(key) != value:
            raise InputError(
                f"{path}: made with {key} {found.get(key)!r}, asked for {value!r}; choose another folder"
            )


def _make_one(seed: int, split: str, index: int, vertices: int, folder: Path) -> None:
    write_scan(make_scan(seed, split, index, vertices), folder)


def make_missing(make_one: Callable, jobs: list[tuple], workers: int, unit: str) -> None:
    """Calls `make_one` with each of `jobs`, in `workers` processes; a bar counts them."""
    bar = tqdm(total=len(jobs), desc=f"{unit}s", unit=unit, disable=None)
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            make_one(*job)
            bar.update()
    else:
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
            try:
                for future in as_completed([pool.submit(make_one, *job) for job in jobs]):
                    future.result()
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    bar.close()
