"""Raw scans to a prepared data set: many at once, safe to kill at any time, the same bytes each time."""

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from scannet_css.errors import InputError, one_line
from scannet_css.files import digest_file
from scannet_css.scenes.classes import CLASSES, IGNORE
from scannet_css.scenes.convert import prepare_scene
from scannet_css.scenes.scannet import LABELS, SUFFIXES, read_scan
from scannet_css.scenes.store import (
    MANIFEST,
    SPLITS,
    Manifest,
    SceneEntry,
    SceneHeader,
    load_manifest,
    read_header,
    save_manifest,
    save_scene,
    scene_file,
    settings_digest,
)

VOXEL_SIZE = 0.02  # metres
_SCAN_NAME = re.compile(r"scene\d{4}_\d{2}")
_OFFICIAL_LISTS = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Report:
    """What one call of `prepare` did. The manifest is None if no scene could be prepared."""

    manifest: Manifest | None
    made: int
    kept: int  # whole already and left alone
    failures: dict[str, str]  # scan -> one line
    unlisted: list[str]  # scans in no split list
    absent: dict[str, int]  # split -> scans in its list that have no folder
    leftover: list[str]  # prepared scenes whose scan is not there any more; not in the manifest


@dataclass(frozen=True)
class _Job:
    name: str
    split: str
    scan: Path
    out: Path
    dataset: str
    voxel_size: float
    expected_sha256: str | None  # what the last manifest said


def prepare(scans: str | Path, out: str | Path, voxel_size: float = VOXEL_SIZE, workers: int = 1) -> Report:
    """Prepares every listed scan below `scans` into `out` and writes the manifest last.

    `scans` is ScanNet's root (with scans/ and scans_test/) or a folder of scans; split lists there win over
    the official ones. What lies whole in `out` is checked and kept. A bad scan becomes a failure in the
    report. Raises InputError if there is nothing to prepare or `out` holds something else, OSError if it
    cannot be written.
    """
    scans, out = Path(scans), Path(out)
    if not 0.001 <= voxel_size <= 1:
        raise InputError(f"voxel size {voxel_size}: expected 0.001 to 1 metre")
    folders = _find_scans(scans)
    dataset = (
        "synthetic" if any((place / "synthetic.json").is_file() for place in _places(scans)) else "scannet"
    )
    split_of = _read_lists(scans)
    listed = sorted(name for name in folders if name in split_of)
    if not listed:
        raise InputError(f"{scans}: none of its {len(folders)} scans is in a split list")
    checksums = _check_output(out, dataset, voxel_size)
    jobs = [
        _Job(name, split_of[name], folders[name], out, dataset, voxel_size, checksums.get(name))
        for name in listed
    ]
    entries, failures, made = _prepare_all(jobs, workers)
    manifest = Manifest(out, dataset, CLASSES, voxel_size, entries) if entries else None
    if manifest:
        save_manifest(manifest)
    files = {job.out / scene_file(job.split, job.name) for job in jobs}
    return Report(
        manifest=manifest,
        made=made,
        kept=len(entries) - made,
        failures=failures,
        unlisted=sorted(set(folders) - set(split_of)),
        absent={s: sum(split_of[n] == s and n not in folders for n in split_of) for s in SPLITS},
        leftover=[str(path.relative_to(out)) for path in _scene_files(out) if path not in files],
    )


def _places(scans: Path) -> list[Path]:
    """Where scans and their lists may lie."""
    return [scans, *(folder for folder in (scans / "scans", scans / "scans_test") if folder.is_dir())]


def _find_scans(scans: Path) -> dict[str, Path]:
    if not scans.is_dir():
        raise InputError(f"{scans}: no such folder; expected a folder with scans")
    folders: dict[str, Path] = {}
    for place in _places(scans):
        for folder in sorted(place.iterdir()):
            if _SCAN_NAME.fullmatch(folder.name) and folder.is_dir():
                if folder.name in folders:
                    raise InputError(
                        f"{folder}: the scan is also at {folders[folder.name]}; expected it once"
                    )
                folders[folder.name] = folder
    if not folders:
        raise InputError(f"{scans}: no scans here; expected folders named like scene0000_00")
    return folders


def _read_lists(scans: Path) -> dict[str, str]:
    """The split of every listed scan."""
    lists = [place / f"scannetv2_{split}.txt" for place in _places(scans) for split in SPLITS]
    lists = [path for path in lists if path.is_file()] or [
        _OFFICIAL_LISTS / f"scannetv2_{split}.txt" for split in SPLITS
    ]
    split_of: dict[str, str] = {}
    for path in lists:
        split = path.stem.removeprefix("scannetv2_")
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        ):
            name = line.strip()
            if not name:
                continue
            if not _SCAN_NAME.fullmatch(name):
                raise InputError(f"{path}:{number}: {name!r}; expected a name like scene0000_00")
            if name in split_of:
                raise InputError(f"{path}:{number}: {name} is listed twice, before in {split_of[name]}")
            split_of[name] = split
    return split_of


def _check_output(out: Path, dataset: str, voxel_size: float) -> dict[str, str]:
    """Makes the folders, clears what killed runs left, refuses other settings; gives known checksums."""
    checksums = {}
    if (out / MANIFEST).exists():
        old = load_manifest(out)
        for what, before, now in (
            ("data set", old.dataset, dataset),
            ("voxel size", old.voxel_size, voxel_size),
            ("classes", old.classes, CLASSES),
        ):
            if before != now:
                raise InputError(
                    f"{out}: prepared with {what} {before}, now asked for {now}; choose another --out"
                )
        checksums = {name: entry.sha256 for name, entry in old.scenes.items()}
    settings = settings_digest(dataset, CLASSES, voxel_size)
    for path in _scene_files(out):
        if read_header(path).settings != settings:
            raise InputError(f"{path}: prepared with other settings; choose another --out")
    for folder in (out, *(out / split for split in SPLITS)):
        for path in folder.glob(".*.tmp"):
            path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    return checksums


def _scene_files(out: Path) -> list[Path]:
    return [path for split in SPLITS for path in sorted((out / split).glob("*.safetensors"))]


def _prepare_all(jobs: list[_Job], workers: int) -> tuple[dict[str, SceneEntry], dict[str, str], int]:
    """Entries and failures by name, sorted, and how many scenes were made now."""
    results: dict[str, SceneEntry | str] = {}
    made = 0
    for job, result, fresh in tqdm(_run(jobs, workers), total=len(jobs), unit="scan", disable=None):
        results[job.name] = result
        made += fresh
        if isinstance(result, str):
            tqdm.write(f"{job.name}: {result}")
    ordered = sorted(results.items())
    entries = {name: result for name, result in ordered if isinstance(result, SceneEntry)}
    failures = {name: result for name, result in ordered if isinstance(result, str)}
    return entries, failures, made


def _run(jobs: list[_Job], workers: int) -> Iterator[tuple[_Job, SceneEntry | str, bool]]:
    """Results in the order in which they are done."""
    pool = ProcessPoolExecutor(min(workers, len(jobs)), initializer=_start_worker)
    try:
        futures = {pool.submit(_prepare_one, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], *future.result()
    except BrokenProcessPool:
        raise InputError("a worker was killed, perhaps for memory; run again with fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """One thread per worker; Ctrl-C is the parent's; a worker whose parent was killed ends too."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _prepare_one(job: _Job) -> tuple[SceneEntry | str, bool]:
    """The entry of a scene or why it failed, and whether it was made now."""
    target = job.out / scene_file(job.split, job.name)
    try:
        raw, changed = _raw_files(job)
        kept = _kept(job, target, raw, changed)
        if kept:
            return kept, False
        scan = read_scan(job.scan)
        if scan.nyu40 is None and job.split != "test":
            raise InputError(f"{job.scan}: no *{LABELS}, but the scan is in the {job.split} list")
        scene, unknown_ids = prepare_scene(scan, job.voxel_size)
    except (InputError, OSError) as error:
        return one_line(error), False
    counts = torch.bincount(scene.labels[scene.labels != IGNORE].long(), minlength=len(CLASSES)).tolist()
    entry = SceneEntry(
        name=job.name,
        split=job.split,
        file=scene_file(job.split, job.name),
        sha256="",
        vertices=len(scene.points),
        voxels=len(scene.voxel_coordinates),
        class_counts=tuple(counts),
        ignored=len(scene.points) - sum(counts),
        unknown_ids=unknown_ids,
        labelled=scan.nyu40 is not None,
        faces=len(scan.faces),
        shared_segments=scan.shared_segments,
    )
    settings = settings_digest(job.dataset, CLASSES, job.voxel_size)
    save_scene(target, scene, SceneHeader(settings, raw, entry))
    return replace(entry, sha256=digest_file(target)), True


def _raw_files(job: _Job) -> tuple[dict[str, int], float]:
    """The size of each raw file that is there, and when the last of them changed."""
    states = {suffix: job.scan / f"{job.name}{suffix}" for suffix in SUFFIXES}
    states = {suffix: path.stat() for suffix, path in states.items() if path.exists()}
    sizes = {suffix: state.st_size for suffix, state in states.items()}
    return sizes, max((state.st_mtime for state in states.values()), default=0.0)


def _kept(job: _Job, target: Path, raw: dict[str, int], changed: float) -> SceneEntry | None:
    """The entry of a scene that is whole and whose raw files are neither resized nor newer, else None."""
    if not target.exists() or changed > target.stat().st_mtime:
        return None
    header = read_header(target)
    if header.raw != raw:
        return None
    checksum = digest_file(target)
    if job.expected_sha256 not in (None, checksum):
        return None
    return replace(header.entry, sha256=checksum)
