"""What is left of a suite: which runs are done, which base step each of the others starts from, and how long
they will take."""

import json
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from scannet_css.errors import InputError
from scannet_css.files import digest
from scannet_css.protocols import load_protocol
from scannet_css.records.record import load_record
from scannet_css.scenes import Manifest, load_manifest
from scannet_css.training.recipe import Recipe
from scannet_css.training.setting import Setting
from suite_lib.recipe_defaults import recipe_defaults
from suite_lib.suite_run import Run
from suite_lib.synthetic_set import make_synthetic_set

LOG = "suite.jsonl"  # below the runs: how long each took


@dataclass
class Job:
    """A run that is left, and the base step that it starts from."""

    run: Run
    folder: Path
    base: Path
    process: subprocess.Popen | None = None
    started: float = 0.0
    trains_base: bool = False
    goes_on: bool = False  # part of it was done before
    log_start: int = 0  # bytes that suite.log held before

    @property
    def base_exists(self) -> bool:
        return (self.base / "finished.pt").exists()

    @property
    def is_begun(self) -> bool:
        """Whether some of it, or of its base step, is done."""
        half_base = self.base.exists() and not self.base_exists
        return half_base or (self.folder / "settings.json").exists()

    @property
    def elapsed(self) -> float:
        """Seconds since it was started; 0 before."""
        return time.monotonic() - self.started if self.process else 0.0


class Suite:
    """The runs of a file: those that are done, those that are left, and those that have no data yet."""

    def __init__(self, runs: Iterable[Run], folder: Path, makes_data: bool) -> None:
        self.folder, self.times = folder, _read_times(folder / LOG)
        self._manifests: dict[str, Manifest | None] = {}
        self.done: list[Run] = []
        self.left: list[Job] = []
        self.without_data: list[Run] = []
        for run in runs:
            manifest = self._manifest(run, makes_data)
            if manifest is None:
                self.without_data.append(run)
                continue
            recipe = Recipe(
                **{**recipe_defaults(manifest.dataset), **dict(run.recipe), **dict(run.own_recipe)}
            )
            job = self._job(run, Setting(manifest, load_protocol(run.protocol), recipe, run.seed))
            if job is None:
                self.done.append(run)
            else:
                self.left.append(job)

    def seconds_left(self, jobs: Sequence[Job]) -> float | None:
        """For one job at a time; None where nothing like it was measured."""
        bases, total = set(), 0.0
        for job in jobs:
            trains_base = job.trains_base if job.process else not job.base_exists and job.base not in bases
            bases.add(job.base)
            seconds = self._estimate(job.run, trains_base)
            if seconds is None:
                return None
            total += max(0.0, seconds - job.elapsed)
        return total

    def note(self, job: Job) -> float:
        """Remembers how long a run took, and gives it in seconds."""
        run, seconds = job.run, job.elapsed
        row = {"data": run.data.name, "protocol": run.protocol, "method": run.method, "run": run.name}
        row |= {"base": job.trains_base, "goes_on": job.goes_on, "seconds": round(seconds, 1)}
        self.times.append(row)
        with open(self.folder / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return seconds

    def _estimate(self, run: Run, trains_base: bool) -> float | None:
        """The mean of the runs that are most like it. Those that went on say too little."""
        wanted = {"data": run.data.name, "base": trains_base, "protocol": run.protocol, "method": run.method}
        whole = [row for row in self.times if not row.get("goes_on")]
        for names in (list(wanted), ["data", "base", "protocol"], ["data", "base"], ["data"]):
            like = [row["seconds"] for row in whole if all(row[name] == wanted[name] for name in names)]
            if like:
                return mean(like)
        return None

    def _manifest(self, run: Run, makes_data: bool) -> Manifest | None:
        data = run.data
        if data.name not in self._manifests:
            if data.make and makes_data and not data.is_there:
                make_synthetic_set(data.folder, **asdict(data.make))
            self._manifests[data.name] = load_manifest(data.prepared) if data.is_there else None
        return self._manifests[data.name]

    def _job(self, run: Run, setting: Setting) -> Job | None:
        """What is left of a run; None if its record is there. Raises InputError if that is of another one."""
        method, folder = run.make_method(), run.folder(self.folder, setting.recipe.network)
        if (folder / "record.json").exists():
            _check_record(folder / "record.json", run, setting)
            return None
        identity = (setting.offline() if method.offline else setting).base_identity(method.base)
        return Job(run, folder, self.folder / "base" / digest(identity)[:16])


def _check_record(path: Path, run: Run, setting: Setting) -> None:
    """Raises InputError, with what differs, unless the record is of this run."""
    record = load_record(path)
    wanted = {
        "method": run.method_name,
        "seed": run.seed,
        "data": setting.manifest.hash,
        "protocol": setting.protocol.hash,
        **{name: getattr(setting.recipe, name, None) for name in record.recipe},
        **run.make_method().settings(),
    }
    found: dict[str, Any] = {
        "method": record.method.name,
        "seed": record.seed,
        "data": record.data.manifest_hash,
        "protocol": record.protocol.hash,
        **record.recipe,
        **record.method.settings,
    }
    names = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if names:
        differences = "; ".join(f"{name} {found.get(name)}, expected {wanted.get(name)}" for name in names)
        raise InputError(f"{path}: not of the suite's run {run.name} ({differences}); move its folder away")


def _read_times(path: Path) -> list[dict]:
    """Whole lines only: a kill may have left half of one."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
