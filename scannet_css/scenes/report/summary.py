"""What a preparation did and what is in its data: report.json and report.html in the output folder.

Nearly everything comes from the manifest's entries, so that scenes that were kept are not read again; only
label conflicts need scene files, and take a sample of them.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scannet_css.classes import IGNORE, SCANNET20
from scannet_css.errors import printable
from scannet_css.files import write_atomic, write_json
from scannet_css.raw.scan import FINDINGS
from scannet_css.raw.scannet import OFFICIAL_LISTS
from scannet_css.scenes.prepare import STAGES, Report
from scannet_css.scenes.report.report_page import render_page
from scannet_css.scenes.store import SPLITS, Manifest, SceneEntry, load_scene
from scannet_css.scenes.voxelize import majority_labels, voxelize

CONFLICT_SIZES = (0.02, 0.05, 0.1)  # metres, besides the prepared one
SAMPLE = (3, 48)  # scenes that label conflicts are counted in: at least, at most (if there are so many) ...
SAMPLED_SHARE = 0.04  # ... and else: four sizes cost about as much as preparing the scene
BINS = 24  # of the histograms, at most
# The expected figures come by another route (objects by name) than labels.ply, so classes agree only nearly
SHARE_TOLERANCE = (0.0002, 0.03)  # of the share of a class: absolute, relative; the larger one counts
SCANS_TOLERANCE = (2, 0.02)  # of the scans that a class occurs in: the same
_HERE = Path(__file__).parent


def write_report(report: Report, out: str | Path) -> None:
    """Writes report.json and report.html into the folder `out`, atomically. Raises OSError if it cannot.

    The same data give the same bytes, but for the times and what was made or kept in this run.
    """
    content = describe(report)
    write_json(Path(out) / "report.json", content)
    write_atomic(Path(out) / "report.html", render_page(content))


def describe(report: Report) -> dict[str, Any]:
    """The content of report.json. What needs a prepared scene is missing if there is none."""
    content: dict[str, Any] = {
        "scans": {
            "made": report.made,
            "kept": report.kept,
            "failed": {printable(name): printable(reason) for name, reason in report.failures.items()},
            "unlisted": [printable(name) for name in report.unlisted],
            "absent": {split: count for split, count in report.absent.items() if count},
            "leftover": [printable(path) for path in report.leftover],
        },
        "seconds": _seconds(report),
    }
    manifest = report.manifest
    if manifest is None:
        return content
    entries = {split: manifest.split(split) for split in SPLITS if manifest.split(split)}
    return {
        "dataset": manifest.dataset,
        "hash": manifest.hash,
        "voxel_size": manifest.voxel_size,
        "settings": manifest.settings,
        **content,
        "splits": {split: _sizes(chosen) for split, chosen in entries.items()},
        "histograms": {what: _histogram(entries, what) for what in ("vertices", "voxels")},
        "classes": _classes(manifest),
        "co_occurrence": _co_occurrence(manifest),
        "label_conflicts": _label_conflicts(manifest),
        "findings": _findings(manifest, report.findings),
        "unknown_ids": _unknown_ids(manifest),
        "scenes": {
            e.name: {"split": e.split, "vertices": e.vertices, "voxels": e.voxels} for e in _sorted(manifest)
        },
        "expected": compare_with_scannet(manifest),
    }


def _seconds(report: Report) -> dict[str, dict[str, float]]:
    """Seconds per scan of each stage, over the scans made now."""
    made = [outcome.seconds for outcome in report.outcomes.values() if outcome.made]
    result = {}
    for stage in (*STAGES, "all"):
        times = [sum(taken.values()) if stage == "all" else taken[stage] for taken in made]
        if times:
            result[stage] = {
                name: round(float(f(times)), 4)
                for name, f in {"mean": np.mean, "median": np.median, "longest": max, "total": sum}.items()
            }
    return result


def _sizes(entries: Sequence[SceneEntry]) -> dict[str, Any]:
    """How many scenes, and how large they are."""
    result: dict[str, Any] = {"scenes": len(entries), "labelled": sum(entry.labelled for entry in entries)}
    for what in ("vertices", "voxels"):
        numbers = [getattr(entry, what) for entry in entries]
        marks = np.percentile(numbers, (0, 5, 50, 95, 100)).round().astype(int).tolist()
        named = dict(zip(("smallest", "p5", "median", "p95", "largest"), marks, strict=True))
        result[what] = {"total": sum(numbers), "mean": round(sum(numbers) / len(numbers)), **named}
    return result


def _histogram(entries: dict[str, list[SceneEntry]], what: str) -> dict[str, Any]:
    """Scenes per bin and split; all bins are as wide, a round number."""
    largest = max(getattr(entry, what) for chosen in entries.values() for entry in chosen)
    widths = (step * 10**power for power in range(10) for step in (1, 2, 5))
    width = next(width for width in widths if largest < width * BINS)
    bins = largest // width + 1
    counts = {
        split: np.bincount([getattr(e, what) // width for e in chosen], minlength=bins).tolist()
        for split, chosen in entries.items()
    }
    return {"bin_width": width, "scenes": counts}


def _classes(manifest: Manifest) -> dict[str, dict[str, dict[str, float]]]:
    """For each split with labels and each class: vertices, their share of all scored ones, scenes."""
    result = {}
    for split in SPLITS:
        counts = _counts(manifest, (split,))
        if len(counts) == 0:
            continue
        total = max(1, int(counts.sum()))
        result[split] = {
            name: {
                "vertices": int(counts[:, c].sum()),
                "share": round(int(counts[:, c].sum()) / total, 6),
                "scenes": int((counts[:, c] > 0).sum()),
            }
            for c, name in enumerate(manifest.classes)
        }
    return result


def _co_occurrence(manifest: Manifest) -> list[list[int]]:
    """Scenes of all splits that hold both the class of the row and that of the column."""
    present = (_counts(manifest, SPLITS) > 0).astype(np.int64)
    return (present.T @ present).tolist()


def _counts(manifest: Manifest, splits: Sequence[str]) -> np.ndarray:
    """Vertices of the labelled scenes: (scenes, classes) int64."""
    counts = [entry.class_counts for split in splits for entry in manifest.split(split) if entry.labelled]
    return np.array(counts, np.int64).reshape(len(counts), len(manifest.classes))


def _label_conflicts(manifest: Manifest) -> dict[str, Any]:
    """How much voxels of several sizes mix labels, counted over a sample of evenly spread labelled scenes."""
    labelled = sorted((e for e in manifest.scenes.values() if e.labelled), key=lambda entry: entry.name)
    least, most = SAMPLE
    size = min(len(labelled), max(least, min(most, round(len(labelled) * SAMPLED_SHARE))))
    sample = [labelled[k * len(labelled) // size] for k in range(size)]
    sizes = sorted({manifest.voxel_size, *CONFLICT_SIZES})
    sums = {voxel_size: Counter() for voxel_size in sizes}
    for entry in sample:
        scene = load_scene(manifest.path(entry))
        for voxel_size in sizes:
            inverse = scene.inverse.long()
            if voxel_size != manifest.voxel_size:
                inverse = voxelize(scene.points, voxel_size)[1]
            sums[voxel_size].update(count_conflicts(scene.labels, inverse))
    rows = [{"voxel_size": voxel_size, **sums[voxel_size]} for voxel_size in sizes if sample]
    return {"scenes": [entry.name for entry in sample], "sizes": rows}


def count_conflicts(labels: torch.Tensor, inverse: torch.Tensor) -> dict[str, int]:
    """Where labelled vertices of one voxel disagree: labels (P,) uint8, 255 ignored, inverse (P,) int64.

    voxels: with a label; mixed_voxels: with two; vertices: with a label; mixed_vertices: those in mixed
    voxels; outvoted_vertices: those whose label is not their voxel's, which no network on these voxels can
    get right.
    """
    scored = labels != IGNORE
    labels, inverse = labels[scored], inverse[scored]
    voxels = int(inverse.max()) + 1 if len(inverse) else 0
    outvoted = majority_labels(labels, inverse, voxels)[inverse] != labels
    mixed = torch.zeros(voxels, dtype=torch.bool)
    mixed[inverse[outvoted]] = True
    vertices = torch.bincount(inverse, minlength=voxels)
    return {
        "voxels": int((vertices > 0).sum()),
        "mixed_voxels": int(mixed.sum()),
        "vertices": len(labels),
        "mixed_vertices": int(vertices[mixed].sum()),
        "outvoted_vertices": int(outvoted.sum()),
    }


def _findings(manifest: Manifest, beside: Mapping[str, int]) -> dict[str, Any]:
    """Each finding: what it means, how often, in which scans, and how many vertices those have.

    `beside` counts what was odd in files that belong to no scan.
    """
    entries = _sorted(manifest)
    names = {name for entry in entries for name in entry.findings} | set(beside)
    result = {}
    for name in sorted(names):
        scans = {entry.name: entry.findings[name] for entry in entries if name in entry.findings}
        result[printable(name)] = {
            "meaning": FINDINGS.get(name, ""),
            "count": sum(scans.values()) + beside.get(name, 0),
            "vertices_of_scans": sum(manifest.scenes[scan].vertices for scan in scans),
            "scans": scans,
        }
    return result


def _sorted(manifest: Manifest) -> list[SceneEntry]:
    return [manifest.scenes[name] for name in sorted(manifest.scenes)]


def _unknown_ids(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Label id -> scan -> vertices."""
    ids = sorted({number for entry in manifest.scenes.values() for number in entry.unknown_ids})
    return {str(n): {e.name: e.unknown_ids[n] for e in _sorted(manifest) if n in e.unknown_ids} for n in ids}


def compare_with_scannet(manifest: Manifest) -> dict[str, Any] | None:
    """The data set against what is known of ScanNet v2; None if it is not ScanNet in its 20 classes.

    Scans and their vertices are compared one by one. Shares and presence of classes are, split by split,
    only if all scans of the split are there. `differences` counts all that is marked.
    """
    if (manifest.dataset, manifest.classes) != ("scannet", SCANNET20.names):
        return None
    facts = json.loads((_HERE / "expected_scannet.json").read_text(encoding="utf-8"))
    splits, official = {}, set()
    for split in SPLITS:
        names = (OFFICIAL_LISTS / f"scannetv2_{split}.txt").read_text(encoding="utf-8").split()
        official.update(names)
        expected = dict(zip(names, facts["vertices"][split], strict=True))
        found = {entry.name: entry.vertices for entry in manifest.split(split)}
        splits[split] = {
            "expected": len(expected),
            "found": len(found.keys() & expected.keys()),
            "missing": sorted(expected.keys() - found.keys()),
            "elsewhere": sorted(found.keys() - expected.keys()),
            "other_vertices": {
                name: {"found": found[name], "expected": expected[name]}
                for name in sorted(found.keys() & expected.keys())
                if found[name] != expected[name]
            },
        }
    classes = _compare_classes(manifest, facts, [s for s in splits if not splits[s]["missing"]])
    marked = sum(row["differs"] for rows in classes.values() for row in rows.values())
    marked += sum(len(s["missing"]) + len(s["elsewhere"]) + len(s["other_vertices"]) for s in splits.values())
    return {"differences": marked, "splits": splits, "classes": classes}


def _compare_classes(manifest: Manifest, facts: dict, whole: list[str]) -> dict[str, dict[str, Any]]:
    """For the splits that are whole: shares of vertices (known for train) and scans with each class."""
    result = {}
    for split, found in _classes(manifest).items():
        if split not in whole or split == "test":
            continue
        result[split] = {}
        for name, values in found.items():
            row = {"scans": values["scenes"], "expected_scans": facts["scans_with_class"][name][split]}
            differs = _differ(row["scans"], row["expected_scans"], SCANS_TOLERANCE)
            if split == "train":
                row |= {"share": values["share"], "expected_share": facts["vertex_share"][name]}
                differs |= _differ(row["share"], row["expected_share"], SHARE_TOLERANCE)
            result[split][name] = {**row, "differs": differs}
    return result


def _differ(found: float, expected: float, tolerance: tuple[float, float]) -> bool:
    return abs(found - expected) > max(tolerance[0], tolerance[1] * expected)
