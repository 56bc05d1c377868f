"""Whether a prepared data set is what its manifest says: every checksum again, and what does not belong."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from scannet_css.errors import InputError, one_line, printable
from scannet_css.files import digest_file
from scannet_css.scenes.store import (
    MANIFEST,
    SPLITS,
    Manifest,
    SceneEntry,
    content_digest,
    load_manifest,
    load_scene,
    read_header,
    settings_digest,
)

REPORTS = ("report.json", "report.html")  # written beside the manifest, not part of the data


def verify(folder: str | Path, workers: int = 1) -> list[str]:
    """Everything wrong with the prepared data set in `folder`, one line each; an empty list: nothing is.

    Lists scenes that are missing, damaged (their sha256 differs) or at odds with the manifest, a manifest
    that is missing or edited, files that do not belong, and temporary files of a killed run. `workers`
    threads hash at once. Raises InputError if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a prepared data set")
    try:
        manifest = load_manifest(folder)
    except (InputError, OSError) as error:
        return [one_line(error)]
    settings = settings_digest(manifest.dataset, manifest.classes, manifest.voxel_size, manifest.settings)
    entries = [entry for split in SPLITS for entry in manifest.split(split)]
    with ThreadPoolExecutor(workers) as pool:  # hashing holds no lock
        findings = pool.map(lambda entry: _check_scene(manifest.path(entry), entry, settings), entries)
        findings = list(tqdm(findings, total=len(entries), unit="scene", disable=None))
    return [printable(line) for line in (*findings, *_foreign(manifest)) if line]


def _check_scene(path: Path, entry: SceneEntry, settings: str) -> str | None:
    """What is wrong with one scene file."""
    try:
        found = digest_file(path)
        if found != entry.sha256:
            return f"{path}: damaged, its sha256 is {found[:12]}, the manifest says {entry.sha256[:12]}"
        header = read_header(path)
        content = content_digest(load_scene(path))
    except FileNotFoundError:
        return f"{path}: missing"
    except (InputError, OSError) as error:
        return one_line(error)
    if content != entry.content:
        return f"{path}: its tensors are not those of the manifest; was {MANIFEST} edited?"
    if header.entry != replace(entry, sha256="") or header.settings != settings:
        return f"{path}: its header disagrees with the manifest; was {MANIFEST} edited?"
    return None


def _foreign(manifest: Manifest) -> Iterator[str]:
    """What lies in the folder or its splits, and is no manifest, no report and no scene of the manifest."""
    expected = {manifest.path(entry) for entry in manifest.scenes.values()}
    expected |= {manifest.folder / name for name in (MANIFEST, *REPORTS)}
    splits = [manifest.folder / split for split in SPLITS if (manifest.folder / split).is_dir()]
    for place in (manifest.folder, *splits):
        for path in sorted(place.iterdir()):
            if path.name.startswith(".") and path.suffix == ".tmp":
                yield f"{path}: temporary file of a killed run; the next preparation removes it"
            elif path not in expected and path not in splits:
                yield f"{path}: does not belong here, it is not in {MANIFEST}"
