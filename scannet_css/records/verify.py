"""What a record has to fulfil beyond its schema before it stands on the leaderboard.

`verify` raises InputError (field, value, rule) for what cannot be true, and returns what it could not check.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

import scannet_css
from scannet_css.methods.method import find_method, method_names, options_of
from scannet_css.protocols import Protocol, load_protocol, protocol_names
from scannet_css.records.record import ProtocolRecord, Record
from scannet_css.records.splits import Split
from scannet_css.strict_json import require

# Splits whose size is public, although their counts per class are not.
OFFICIAL = json.loads((Path(__file__).parent / "official_splits.json").read_text(encoding="utf-8"))


def verify(record: Record, splits: Mapping[str, Split]) -> list[str]:
    """Why the record's numbers are not verified, in short sentences; none if they are.

    `splits` are the registered ones by manifest hash. A record is verified if its protocol and its validation
    split are known and every identity holds. Raises InputError for a record that contradicts itself, its
    protocol or its split. Methods count as known if `baselines` has been imported.
    """
    protocol = check_protocol(record.protocol)
    _check_method(record)
    _check_steps(record, protocol)
    _check_environment(record)
    check_day("created", record.created[:10])
    if record.entry is not None:
        check_day("entry.date", record.entry.date)
    _check_official(record)
    split = splits.get(record.data.manifest_hash)
    if split is None:
        return ["its validation split is not registered"]
    _check_split(record, split)
    return []


def check_protocol(stated: ProtocolRecord) -> Protocol:
    """The protocol a record states. Raises InputError unless its hash is that of its content, and for a name
    of the package's own also the hash that is known."""
    steps, background = tuple(map(tuple, stated.steps)), tuple(stated.background)
    protocol = Protocol(stated.name, stated.version, "", steps, background, stated.regime, stated.unannotated)
    if stated.name in protocol_names():
        known = load_protocol(stated.name)
        rule = f"expected {known.version}, which this version of scannet-css has"
        require(stated.version == known.version, "protocol.version", stated.version, rule)
        rule = f"expected those of {stated.name}: {known.steps}"
        require(protocol.steps == known.steps, "protocol.steps", stated.steps, rule)
        require(stated.hash == known.hash, "protocol.hash", stated.hash, f"expected {known.hash[:16]}...")
    rule = f"expected {protocol.hash[:16]}..., computed from its content"
    require(stated.hash == protocol.hash, "protocol.hash", stated.hash, rule)
    return protocol


def check_day(field: str, day: str) -> None:
    """Raises InputError if an ISO day has not come yet anywhere on Earth."""
    latest = (datetime.now(timezone.utc) + timedelta(days=1)).date().isoformat()
    require(day <= latest, field, day, "expected a day that is not in the future")


def check_settings(name: str, settings: Mapping, version: str) -> None:
    """Raises InputError unless a method of the suite knows these settings; others may have any. What
    `version` of the package made may lack options that came later."""
    if name not in method_names():
        return
    method = find_method(name)
    known = {option.name: option.metadata["since"] for option in options_of(method)}
    for key in settings:
        require(
            key in known, f"method.settings.{key}", settings[key], f"expected {', '.join(known) or 'none'}"
        )
    for key, since in known.items():
        came_later = _numbers(version) < _numbers(since)
        require(
            came_later or key in settings, f"method.settings.{key}", None, f"missing, a setting of {name}"
        )
    method(**settings)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _check_method(record: Record) -> None:
    check_settings(record.method.name, record.method.settings, record.environment.package)
    if record.method.name in method_names() and len(record.protocol.steps) > 1:
        offline = find_method(record.method.name).offline
        rule = f"expected {'1' if offline else len(record.protocol.steps)} for {record.method.name}"
        require(record.is_joint == offline, "steps", f"{len(record.steps)} steps", rule)


def _check_steps(record: Record, protocol: Protocol) -> None:
    for index, step in enumerate(record.steps):
        last = len(protocol.steps) - 1 if record.is_joint else index
        for level in ("vertices", "voxels"):
            matrix, field = getattr(step.confusion, level), f"steps[{index}].confusion.{level}"
            points = sum(map(sum, matrix))
            require(points > 0, field, "0 points", "expected those of the validation split")
            if not protocol.predicts_background(last):
                outside = sum(row[0] for row in matrix)
                rule = "expected 0: in this protocol background is no answer after this step"
                require(outside == 0, f"{field}, column background", outside, rule)
        rule = f"expected at least {step.epochs}, the number of its epochs"
        require(step.iterations >= step.epochs, f"steps[{index}].iterations", step.iterations, rule)
        rule = "expected more than 0, it has iterations"
        require(step.seconds > 0 or not step.iterations, f"steps[{index}].seconds", step.seconds, rule)


def _check_environment(record: Record) -> None:
    version, own = record.environment.package, scannet_css.__version__
    known = re.fullmatch(r"\d{1,4}\.\d{1,4}\.\d{1,4}", version) and _numbers(version) <= _numbers(own)
    require(bool(known), "environment.package", version, f"expected a version of scannet-css up to {own}")


def _check_official(record: Record) -> None:
    official = OFFICIAL.get(record.data.dataset)
    if official is None:
        return
    for name in ("train_scenes", "validation_scenes"):
        found = getattr(record.data, name)
        rule = f"expected {official[name]}, the official split of {record.data.dataset}"
        require(found == official[name], f"data.{name}", found, rule)
    points = sum(map(sum, record.steps[-1].confusion.vertices))
    rule = f"expected at most {official['validation_vertices']}, which the official split has"
    field = f"steps[{len(record.steps) - 1}].confusion.vertices"
    require(points <= official["validation_vertices"], field, f"{points} points", rule)


def _check_split(record: Record, split: Split) -> None:
    for name in ("dataset", "voxel_size", "train_scenes", "validation_scenes"):
        found, known = getattr(record.data, name), getattr(split, name)
        require(found == known, f"data.{name}", found, f"expected {known}, registered for this manifest")
    names = [*sum(record.protocol.steps, []), *record.protocol.background]
    rule = f"expected the classes of {split.dataset}: {', '.join(split.vertices)}"
    require(sorted(names) == sorted(split.vertices), "protocol.steps", ", ".join(names), rule)
    for index, step in enumerate(record.steps):
        for level in ("vertices", "voxels"):
            counts, matrix = getattr(split, level), getattr(step.confusion, level)
            expected = [counts[name] for name in step.classes[1:]]
            expected = [sum(counts.values()) - sum(expected), *expected]
            for name, row, points in zip(step.classes, matrix, expected, strict=True):
                field = f"steps[{index}].confusion.{level}, row {name}"
                rule = f"expected {points}, the {level} of the registered split"
                require(sum(row) == points, field, f"{sum(row)} points", rule)
