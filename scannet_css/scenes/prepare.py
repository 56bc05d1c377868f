"""Raw scans to a prepared data set: many at once, safe to kill at any time, the same bytes each time."""

import os
import reprlib
import stat
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from scannet_css.classes import IGNORE
from scannet_css.errors import InputError, one_line
from scannet_css.files import digest_file
from scannet_css.processes import start_worker
from scannet_css.raw.scan import RawScan, Reader, Source
from scannet_css.scenes.convert import add_normals, duplicate_vertices, prepare_scene
from scannet_css.scenes.store import (
    MANIFEST,
    SCENE_NAME,
    SPLITS,
    Manifest,
    Scene,
    SceneEntry,
    SceneHeader,
    content_digest,
    load_manifest,
    read_header,
    save_manifest,
    save_scene,
    scene_file,
    settings_digest,
)

STAGES = ("read", "normals", "voxels", "write")


@dataclass(frozen=True)
class Outcome:
    """What became of one scan: its entry or, in one line, why there is none."""

    name: str
    split: str
    entry: SceneEntry | None
    failure: str | None
    made: bool  # now; False if it was whole already, or failed
    seconds: dict[str, float]  # stage of STAGES -> wall time, empty if nothing was made


@dataclass(frozen=True)
class Report:
    """What one call of `prepare` did. The manifest is None if no scene could be prepared."""

    manifest: Manifest | None
    outcomes: dict[str, Outcome]  # by name, sorted
    unlisted: list[str]  # scans in no split list
    absent: dict[str, int]  # split -> scans in its list that have no folder
    findings: dict[str, int]  # what was odd beside the scans, by the names of FINDINGS
    leftover: list[str]  # prepared scenes whose scan is not there any more; not in the manifest

    @property
    def made(self) -> int:
        """How many scenes were made now."""
        return sum(outcome.made for outcome in self.outcomes.values())

    @property
    def kept(self) -> int:
        """How many scenes were whole already and left alone."""
        return sum(outcome.entry is not None and not outcome.made for outcome in self.outcomes.values())

    @property
    def failures(self) -> dict[str, str]:
        """Scan -> why it could not be prepared, one line."""
        return {o.name: o.failure for o in self.outcomes.values() if o.failure is not None}


@dataclass(frozen=True)
class _Job:
    reader: Reader
    source: Source
    out: Path
    voxel_size: float
    expected_sha256: str | None  # what the last manifest said

    @property
    def target(self) -> Path:
        return self.out / scene_file(self.source.split, self.source.name)

    @property
    def settings(self) -> str:
        return settings_digest(
            self.reader.dataset, self.reader.classes, self.voxel_size, self.reader.settings
        )


def prepare(reader: Reader, out: str | Path, voxel_size: float | None = None, workers: int = 1) -> Report:
    """Prepares every scan the reader finds into `out` and writes the manifest last.

    What lies whole in `out` is checked and kept. A bad scan becomes a failure in the report. The voxel size
    in metres is the reader's unless given. Raises InputError if there is nothing to prepare or `out` holds
    something else, OSError if it cannot be written.
    """
    out = Path(out)
    voxel_size = reader.voxel_size if voxel_size is None else voxel_size
    if not 0.001 <= voxel_size <= 1:
        raise InputError(f"voxel size {voxel_size}: expected 0.001 to 1 metre")
    found = reader.find()
    _check_names(found.sources)
    empty = Manifest(out, reader.dataset, reader.classes, voxel_size, {}, reader.settings)
    checksums = _check_output(empty)
    jobs = [_Job(reader, source, out, voxel_size, checksums.get(source.name)) for source in found.sources]
    outcomes = _prepare_all(jobs, workers)
    entries = {name: outcome.entry for name, outcome in outcomes.items() if outcome.entry}
    manifest = replace(empty, scenes=entries) if entries else None
    if manifest:
        save_manifest(manifest)
    targets = {job.target for job in jobs}
    return Report(
        manifest=manifest,
        outcomes=outcomes,
        unlisted=found.unlisted,
        absent=found.absent,
        findings={name: number for name, number in sorted(found.findings.items()) if number},
        leftover=[str(path.relative_to(out)) for path in _scene_files(out) if path not in targets],
    )


def _check_names(sources: list[Source]) -> None:
    """A name becomes a file's: it must not leave the folder, nor meet another on any file system."""
    names: dict[str, str] = {}
    for source in sources:
        if not SCENE_NAME.fullmatch(source.name) or source.split not in SPLITS:
            raise InputError(
                f"{source.files[0].parent}: scan {source.name!r} in {source.split!r}; expected a name of "
                "letters, digits, dot, dash and underscore, at most 64, and a split of train, val, test"
            )
        twin = names.setdefault(source.name.lower(), source.name)
        if twin is not source.name:
            raise InputError(f"{source.files[0].parent}: scan {source.name} is also there as {twin}")


def _check_output(wanted: Manifest) -> dict[str, str]:
    """Makes the folder, clears what killed runs left, refuses other settings; gives known checksums."""
    out, checksums = wanted.folder, {}
    for folder in (out / split for split in SPLITS):
        if folder.is_symlink():  # what is written and cleared must lie in `out`
            raise InputError(f"{folder}: a link; expected a folder, --out itself may be a link")
    if (out / MANIFEST).exists():
        old = load_manifest(out)
        options = [
            (key, old.settings.get(key), wanted.settings.get(key)) for key in old.settings | wanted.settings
        ]
        for what, before, now in (
            ("data set", old.dataset, wanted.dataset),
            ("voxel size", old.voxel_size, wanted.voxel_size),
            ("classes", old.classes, wanted.classes),
            *options,
        ):
            if before != now:
                before, now = reprlib.repr(before), reprlib.repr(now)  # 200 classes, long digests
                raise InputError(
                    f"{out}: prepared with {what} {before}, now asked for {now}; choose another --out"
                )
        checksums = {name: entry.sha256 for name, entry in old.scenes.items()}
    settings = settings_digest(wanted.dataset, wanted.classes, wanted.voxel_size, wanted.settings)
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


def _prepare_all(jobs: list[_Job], workers: int) -> dict[str, Outcome]:
    """Outcomes by name, sorted."""
    outcomes = {}
    for outcome in tqdm(_run(jobs, workers), total=len(jobs), unit="scan", disable=None):
        outcomes[outcome.name] = outcome
        if outcome.failure is not None:
            tqdm.write(f"{outcome.name}: {outcome.failure}")
    return dict(sorted(outcomes.items()))


def _run(jobs: list[_Job], workers: int) -> Iterator[Outcome]:
    """Outcomes in the order in which they are done."""
    # Workers are children of this very process: with a fork server they would not be.
    context = get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (os.getpid(),))
    try:
        for future in as_completed([pool.submit(_prepare_one, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool:
        raise InputError("a worker was killed, perhaps for memory; run again with fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int) -> None:
    """One thread per worker, and start_worker."""
    torch.set_num_threads(1)
    start_worker(parent)


def _prepare_one(job: _Job) -> Outcome:
    """Keeps the scene or makes it, or says why not. A disk that cannot be written ends the whole run."""
    source, seconds = job.source, {}
    nothing = Outcome(source.name, source.split, None, None, False, seconds)
    try:
        sizes, changed = _raw_files(source)
        kept = _kept(job, sizes, changed)
        if kept:
            return replace(nothing, entry=kept)
        with _timed(seconds, "read"):
            scan = job.reader.read(source)
        if scan.labels is None and source.split != "test":
            raise InputError(
                f"{source.files[0].parent}: no labels, but the scan is in the {source.split} list"
            )
        with _timed(seconds, "normals"):
            add_normals(scan)
        with _timed(seconds, "voxels"):
            scene = prepare_scene(scan, job.voxel_size)
    except (InputError, OSError) as error:
        return replace(nothing, failure=one_line(error), seconds={})
    with _timed(seconds, "write"):
        entry = _entry(job, scan, scene)
        checksum = save_scene(job.target, scene, SceneHeader(job.settings, sizes, entry))
    return replace(nothing, entry=replace(entry, sha256=checksum), made=True)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def _entry(job: _Job, scan: RawScan, scene: Scene) -> SceneEntry:
    """The manifest's entry, but for the checksum."""
    scored = scene.labels[scene.labels != IGNORE].long()
    counts = torch.bincount(scored, minlength=len(job.reader.classes)).tolist()
    findings = {
        "unknown_ids": sum(scan.unknown_ids.values()),
        "duplicate_vertices": duplicate_vertices(scan.points),
        **scan.findings,
    }
    return SceneEntry(
        name=job.source.name,
        split=job.source.split,
        file=scene_file(job.source.split, job.source.name),
        sha256="",
        vertices=len(scene.points),
        voxels=len(scene.voxel_coordinates),
        class_counts=tuple(counts),
        ignored=len(scene.points) - sum(counts),
        unknown_ids=scan.unknown_ids,
        labelled=scan.labels is not None,
        content=content_digest(scene),
        findings={name: number for name, number in sorted(findings.items()) if number},
    )


def _raw_files(source: Source) -> tuple[dict[str, int], float]:
    """The size of each raw file that is there, and when the last of them changed."""
    states = {path: path.stat() for path in source.files if path.exists()}
    for path, state in states.items():
        if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):  # reading would never end
            raise InputError(f"{path}: a pipe or a device; expected a file")
    sizes = {path.name: state.st_size for path, state in states.items()}
    return sizes, max((state.st_mtime for state in states.values()), default=0.0)


def _kept(job: _Job, sizes: dict[str, int], changed: float) -> SceneEntry | None:
    """The entry of a scene that is whole and whose raw files are neither resized nor newer, else None."""
    if not job.target.exists() or changed > job.target.stat().st_mtime:
        return None
    header = read_header(job.target)
    if header.raw != sizes:
        return None
    checksum = digest_file(job.target)
    if job.expected_sha256 not in (None, checksum):
        return None
    return replace(header.entry, sha256=checksum)
