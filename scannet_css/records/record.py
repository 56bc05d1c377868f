"""The record: the one JSON file a run leaves behind, from which every reported number is recomputed.

The dataclasses are the schema, format 4; strict_json.py reads them strictly and docs/record.schema.json says
the same as JSON Schema. Records of formats 1 to 3 are read as what they mean in format 4. A joint run holds
a single step with all classes, while `protocol.steps` still lists the original steps.
"""

import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

import scannet_css
from scannet_css import distributed
from scannet_css.errors import InputError
from scannet_css.files import digest, write_json
from scannet_css.metrics import curves, summarise
from scannet_css.records.old_formats import upgraded
from scannet_css.sparse.engines.choice import engine_facts
from scannet_css.strict_json import (
    Contact,
    Day,
    Link,
    OptionValue,
    Time,
    as_text,
    named,
    parse,
    read,
    require,
)

FORMAT = 4  # older ones: old_formats.py
LONGEST_FILE = 64 * 2**20
_HASH = re.compile(r"[0-9a-f]{8,64}")


@dataclass
class MethodRecord:
    name: str
    settings: dict[str, OptionValue]


@dataclass
class ProtocolRecord:
    name: str
    version: int
    hash: str
    steps: list[list[str]]  # class names; one after the other they are the class order
    background: list[str]
    regime: str
    unannotated: str


@dataclass
class DataRecord:
    dataset: str
    manifest_hash: str
    voxel_size: float  # metres
    train_scenes: int
    validation_scenes: int


@dataclass
class NetworkRecord:
    name: str
    parameters: int
    start: str | None  # sha256 of the weights that step 0 started from, None: random ones


@dataclass
class Confusion:
    """(C, C) counts, rows ground truth, columns prediction: at raw vertices and at voxels."""

    vertices: list[list[int]]
    voxels: list[list[int]]


@dataclass
class StepRecord:
    classes: list[str]  # channel names, "background" first
    confusion: Confusion
    scenes: int  # trained on
    epochs: int
    iterations: int
    seconds: float
    peak_memory_bytes: int | None  # None where the device does not tell
    deterministic: bool | None  # the same run gives the same bits; None: not known (format 1)


@dataclass
class EnvironmentRecord:
    package: str
    torch: str
    cuda: str | None  # what torch was built for; None: a CPU build, or not known (formats 1 and 2)
    numpy: str
    python: str
    platform: str
    device: str
    engine: str  # what ran the sparse convolutions
    vectors: str | None  # of the native engine; None: another ran, or not known (formats 1 to 3)
    not_native: str | None  # why the native engine did not run; None: it did, or not known (formats 1 to 3)
    threads: int
    commit: str | None
    dirty: bool | None
    processes: int  # that trained together


@dataclass
class EntryRecord:
    """Who stands behind a run on the leaderboard."""

    name: str
    paper: Link | None
    code: Link | None
    contact: Contact | None
    date: Day  # of the submission


@dataclass
class Record:
    format: int
    entry: EntryRecord | None  # None: not submitted yet, or the suite's own
    method: MethodRecord
    protocol: ProtocolRecord
    data: DataRecord
    network: NetworkRecord
    recipe: dict[str, OptionValue]
    seed: int
    steps: list[StepRecord]
    environment: EnvironmentRecord
    created: Time

    @classmethod
    def from_json(cls, value: Any) -> "Record":
        """The record in a parsed JSON value. Raises InputError naming field, value and rule."""
        record = read(cls, upgraded(value, FORMAT), "")
        _check(record)
        return record

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def hash(self) -> str:
        """sha256 of the run; when it was written and who submits it does not matter, nor what format 3 did
        not ask for: its records keep their hash."""
        run, told = self.to_json(), self.environment.vectors or self.environment.not_native
        if told is None:
            run["format"] = 3
            del run["environment"]["vectors"], run["environment"]["not_native"]
        return digest({name: value for name, value in run.items() if name not in ("created", "entry")})

    @property
    def is_joint(self) -> bool:
        """Trained on all classes at once although the protocol has several steps."""
        return len(self.steps) == 1 and len(self.protocol.steps) > 1

    def metrics(self, level: str = "vertices") -> dict[str, float | None]:
        """Every reported number, recomputed from the confusion matrices at "vertices" or "voxels"."""
        return summarise(self._confusions(level), base_classes=len(self.protocol.steps[0]))

    def curves(self) -> dict[str, list[float | None]]:
        """Every reported number after each step, at vertices; see scannet_css.metrics."""
        return curves(self._confusions("vertices"), base_classes=len(self.protocol.steps[0]))

    def _confusions(self, level: str) -> list[list[list[int]]]:
        return [getattr(step.confusion, level) for step in self.steps]


def save_record(record: Record, path: str | Path) -> None:
    """Checks and writes a record atomically. Raises InputError (file, field, value, rule) and OSError."""
    write_json(path, _checked(path, record.to_json()).to_json())


def load_record(path: str | Path) -> Record:
    """Reads and checks a record. Raises InputError (file, field, value, rule) and OSError."""
    size = Path(path).stat().st_size
    if size > LONGEST_FILE:
        raise InputError(f"{path}: {size} bytes, expected a record of at most {LONGEST_FILE}")
    return _checked(path, Path(path).read_bytes())


def _checked(path: str | Path, value: Any) -> Record:
    with named(path):
        return Record.from_json(parse(value) if isinstance(value, bytes) else value)


def environment(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """What a run that convolves in `dtype` on `device` runs on, the record's `environment`.

    commit and dirty are None outside a git checkout.
    """
    device = torch.device(device)
    commit, dirty = checkout_state()
    return {
        "package": scannet_css.__version__,
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "platform": as_text(platform.platform()),
        "device": as_text(torch.cuda.get_device_name(device) if device.type == "cuda" else processor()),
        **{name: told and as_text(told) for name, told in engine_facts(device, dtype).items()},
        "threads": torch.get_num_threads(),
        "processes": distributed.processes(),
        "commit": commit,
        "dirty": dirty,
    }


def checkout_state() -> tuple[str | None, bool | None]:
    """The commit of the git checkout that the package lies in, and whether files differ from it; None
    outside one."""
    checkout = Path(scannet_css.__file__).parents[1]
    commit = _git(checkout, "rev-parse", "HEAD") if (checkout / ".git").exists() else None
    return commit, bool(_git(checkout, "status", "--porcelain")) if commit else None


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        # in a session of its own: a signal that stops this run shall not stop it
        done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine() or "cpu"


def _check(record: Record) -> None:
    """The rules that go beyond types."""
    for field, value in (
        ("data.manifest_hash", record.data.manifest_hash),
        ("protocol.hash", record.protocol.hash),
        ("environment.commit", record.environment.commit),
        ("network.start", record.network.start),
    ):
        require(
            value is None or bool(_HASH.fullmatch(value)), field, value, "expected 8 to 64 hexadecimal digits"
        )
    for field, value, least in (
        ("data.train_scenes", record.data.train_scenes, 1),
        ("data.validation_scenes", record.data.validation_scenes, 1),
        ("network.parameters", record.network.parameters, 1),
        ("environment.processes", record.environment.processes, 1),
        ("environment.threads", record.environment.threads, 1),
        ("seed", record.seed, 0),
    ):
        require(value >= least, field, value, f"expected at least {least}")
    require(record.data.voxel_size > 0, "data.voxel_size", record.data.voxel_size, "expected metres above 0")
    _check_protocol(record.protocol.steps)
    _check_steps(record)


def _check_protocol(steps: list[list[str]]) -> None:
    require(bool(steps), "protocol.steps", steps, "expected at least one step")
    for index, names in enumerate(steps):
        require(bool(names), f"protocol.steps[{index}]", names, "expected at least one class")
    names = ["background", *sum(steps, [])]
    require(
        len(set(names)) == len(names), "protocol.steps", names[1:], "expected every class once, no background"
    )


def _check_steps(record: Record) -> None:
    protocol, count = record.protocol.steps, len(record.steps)
    require(count in (1, len(protocol)), "steps", f"{count} steps", f"expected {len(protocol)}, or 1 (joint)")
    for index, step in enumerate(record.steps):
        field = f"steps[{index}]"
        expected = ["background", *sum(protocol if record.is_joint else protocol[: index + 1], [])]
        require(step.classes == expected, f"{field}.classes", step.classes, f"expected {', '.join(expected)}")
        _check_confusion(step.confusion.vertices, len(expected), f"{field}.confusion.vertices")
        _check_confusion(step.confusion.voxels, len(expected), f"{field}.confusion.voxels")
        for name in ("scenes", "epochs", "iterations", "seconds", "peak_memory_bytes"):
            value = getattr(step, name)
            require(value is None or value >= 0, f"{field}.{name}", value, "expected at least 0")
    for level in ("vertices", "voxels"):
        _check_row_sums(record, level)


def _check_confusion(matrix: list[list[int]], channels: int, field: str) -> None:
    rows = [len(row) for row in matrix]
    require(rows == [channels] * channels, field, f"rows of {rows}", f"expected {channels} x {channels}")
    least, points = min(map(min, matrix)), sum(map(sum, matrix))
    require(least >= 0, field, least, "expected counts of at least 0")
    require(points < 2**53, field, points, "expected fewer points than 2**53")


def _check_row_sums(record: Record, level: str) -> None:
    """Every step is evaluated on the same points: a class keeps its number, and so do all together."""
    before: list[int] = []
    for index, step in enumerate(record.steps):
        sums = [sum(row) for row in getattr(step.confusion, level)]
        field = f"steps[{index}].confusion.{level}"
        for name, points, earlier in zip(step.classes[1:], sums[1:], before[1:], strict=False):
            rule = f"expected {earlier} as after the step before: the validation split does not change"
            require(points == earlier, f"{field}, row {name}", f"{points} points", rule)
        if before:
            rule = f"expected {sum(before)} as after the step before"
            require(sum(sums) == sum(before), field, f"{sum(sums)} points", rule)
        before = sums
