"""Which validation rooms the site shows, and what which runs predicted in them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from scannet_css.errors import InputError
from scannet_css.records.record import Record, load_record
from scannet_css.scenes import Manifest, Scene, load_scene
from scannet_css.viewer.predictions import RoomRun, find_runs


def find_rooms(
    paths: Iterable[str | Path], manifest: Manifest, count: int
) -> Iterator[tuple[Scene, list[RoomRun]]]:
    """Yields the `count` rooms with most classes of all that runs below `paths` kept predictions of.

    Runs on other data than `manifest` are passed over. Raises InputError if no run kept any, or if a
    prediction is damaged.
    """
    folders = sorted({record.parent for path in paths for record in Path(path).rglob("record.json")})
    folders = [folder for folder in folders if (folder / "predictions").is_dir()]
    records = {folder: load_record(folder / "record.json") for folder in folders}
    folders = [folder for folder in folders if records[folder].data.manifest_hash == manifest.hash]
    kept = Counter(
        file.stem for folder in folders for file in {*folder.glob("predictions/step0/*.safetensors")}
    )
    entries = [entry for entry in manifest.split("val") if kept[entry.name]]
    if not entries:
        raise InputError(
            f"{manifest.folder}: no run on this data kept predictions, expected benchmarks/run.py "
            "--keep-predictions"
        )
    # rooms that every run predicted come first
    entries.sort(key=lambda one: (-kept[one.name], -sum(map(bool, one.class_counts)), one.name))
    titles = _titles([records[folder] for folder in folders])
    for entry in entries[:count]:
        scene = load_scene(manifest.path(entry))
        yield scene, find_runs(folders, scene, manifest.classes, titles)


def _titles(records: Sequence[Record]) -> list[str]:
    """The method of each run, with its protocol and seed where several would be called the same."""
    protocols = {record.protocol.name for record in records}
    seeds = {record.seed for record in records}
    titles = []
    for record in records:
        more = [record.protocol.name] * (len(protocols) > 1) + [f"seed {record.seed}"] * (len(seeds) > 1)
        titles.append(f"{record.method.name} ({', '.join(more)})" if more else record.method.name)
    return [title if titles.count(title) == 1 else f"{title} #{n}" for n, title in enumerate(titles, start=1)]
