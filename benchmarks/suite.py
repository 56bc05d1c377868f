"""The suite: all official runs, whatever is missing of them.

    python benchmarks/suite.py --dry-run                      # what is left, and what it will take
    python benchmarks/suite.py --only study-15-5 --jobs 2     # a block of suite.toml, two runs at a time
    python benchmarks/suite.py --only '*/lgkd*-seed0'         # runs by name: block/protocol/method-seedN
    python benchmarks/suite.py --suite mine.toml

Each run is benchmarks/run.py in a process of its own, so everything said there holds: it can be stopped at
any instant, the same command goes on. A base step that exists is never trained again, and two jobs never wait
for the same one while there is something else to do. Exit codes: 0 all done, 1 some run failed, 2 bad input,
75 and 130 stopped by a signal.
"""

import argparse
import ctypes
import fnmatch
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from run import ROOT, make_synthetic_set, recipe_defaults
from suite_file import Run, read_suite

from scannet_css.errors import InputError, Stop, run_command
from scannet_css.files import digest
from scannet_css.learning.recipe import Recipe
from scannet_css.learning.setting import Setting
from scannet_css.learning.stopping import SIGNALS
from scannet_css.protocols import load_protocol
from scannet_css.results.record import Record, load_record
from scannet_css.scenes import Manifest, load_manifest

LOG = "suite.jsonl"  # below the runs: how long each took
POLL = 0.2  # seconds


@dataclass
class Job:
    """A run that is left, and the base step that it starts from."""

    run: Run
    folder: Path
    base: Path
    process: subprocess.Popen | None = None
    started: float = 0.0
    trains_base: bool = False

    @property
    def base_exists(self) -> bool:
        return (self.base / "finished.pt").exists()


class Suite:
    """The runs of a file, those that are done and those that are left."""

    def __init__(self, runs: list[Run], folder: Path, is_dry: bool) -> None:
        self.folder, self.times = folder, _read_times(folder / LOG)
        self._manifests: dict[str, Manifest | None] = {}
        self.waiting = [run for run in runs if self._manifest(run, is_dry) is None]
        present = [run for run in runs if self._manifest(run, is_dry) is not None]
        self.done = [run for run in present if self._is_done(run)]
        self.left = [self._job(run) for run in present if run not in self.done]

    def seconds_left(self, jobs: Sequence[Job]) -> float | None:
        """For one job at a time; None where nothing like it was measured."""
        bases, total = set(), 0.0
        for job in jobs:
            trains_base = not job.base_exists and job.base not in bases
            bases.add(job.base)
            seconds = self._estimate(job.run, trains_base)
            if seconds is None:
                return None
            total += seconds
        return total

    def note(self, job: Job, seconds: float) -> None:
        """Remembers how long a run took."""
        run = job.run
        row = {"data": run.data.name, "protocol": run.protocol, "method": run.method}
        row |= {"run": run.name, "base": job.trains_base, "seconds": round(seconds, 1)}
        self.times.append(row)
        with open(self.folder / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _estimate(self, run: Run, trains_base: bool) -> float | None:
        """The mean of the runs that are most like it."""
        wanted = {"data": run.data.name, "base": trains_base, "protocol": run.protocol, "method": run.method}
        for names in (list(wanted), ["data", "base", "protocol"], ["data", "base"], ["data"]):
            like = [row["seconds"] for row in self.times if all(row[name] == wanted[name] for name in names)]
            if like:
                return mean(like)
        return None

    def _manifest(self, run: Run, is_dry: bool) -> Manifest | None:
        data = run.data
        if data.name not in self._manifests:
            folder = data.folder / "prepared" if data.make else data.folder
            if data.make and not is_dry and not (folder / "manifest.json").exists():
                make_synthetic_set(data.folder, **data.make)
            exists = (folder / "manifest.json").exists()
            self._manifests[data.name] = load_manifest(folder) if exists else None
        return self._manifests[data.name]

    def _is_done(self, run: Run) -> bool:
        """Whether its record is there. Raises InputError if it is of something else."""
        path = run.folder(self.folder) / "record.json"
        if not path.exists():
            return False
        record, manifest = load_record(path), self._manifests[run.data.name]
        wanted = (run.make_method().settings(), manifest.hash, load_protocol(run.protocol).hash, run.seed)
        found = (record.method.settings, record.data.manifest_hash, record.protocol.hash, record.seed)
        if found != wanted:
            raise InputError(f"{path}: not the run {run.name} of the suite; expected {wanted}, found {found}")
        return True

    def _job(self, run: Run) -> Job:
        manifest, method = self._manifests[run.data.name], run.make_method()
        recipe = Recipe(**{**recipe_defaults(manifest.dataset), **dict(run.recipe)})
        protocol = load_protocol(run.protocol)
        setting = Setting(manifest, protocol.offline() if method.offline else protocol, recipe, run.seed)
        base = self.folder / "base" / digest(setting.base_identity(method.base))[:16]
        return Job(run, run.folder(self.folder), base)


class Runner:
    """Runs the jobs, some at a time, until all are done or a signal comes."""

    def __init__(self, suite: Suite, jobs: int, threads: int) -> None:
        self.suite, self.jobs, self.threads = suite, jobs, threads
        self.left, self.running, self.failed = list(suite.left), [], []
        self.finished, self.number = 0, len(suite.left)
        self._stop: signal.Signals | None = None

    def run(self) -> int:
        """How many runs failed. Raises Stop, after all processes have ended, if a signal says so."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        while self.left or self.running:
            while self._stop is None and len(self.running) < self.jobs and (job := self._next()):
                self._start(job)
            for job in [job for job in self.running if job.process.poll() is not None]:
                self.running.remove(job)
                self._end(job)
            if self._stop and not self.running:
                message = f"stopped by {self._stop.name}; the same command goes on from here"
                raise Stop(message, SIGNALS[self._stop])
            time.sleep(POLL)
        return len(self.failed)

    def _next(self) -> Job | None:
        """The first job whose base step nobody is training."""
        in_training = {job.base for job in self.running if not job.base_exists}
        for job in self.left:
            if job.base not in in_training:
                self.left.remove(job)
                return job
        return None

    def _start(self, job: Job) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        job.trains_base, job.started = not job.base_exists, time.monotonic()
        command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *job.run.arguments()]
        command += [
            "--runs",
            str(self.suite.folder),
            "--run",
            str(job.folder),
            "--threads",
            str(self.threads),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        with open(job.folder / "suite.log", "ab") as log:
            job.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches it once, through us
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self.running.append(job)

    def _end(self, job: Job) -> None:
        seconds, code = time.monotonic() - job.started, job.process.returncode
        if self._stop and code:
            return
        self.finished += 1
        where = f"{self.finished}/{self.number} {job.run.name}"
        if code:
            self.failed.append(job)
            print(
                f"{where}: failed with exit code {code}: {_last_error(job.folder / 'suite.log')}", flush=True
            )
            return
        self.suite.note(job, seconds)
        rest = self.suite.seconds_left([*self.running, *self.left])
        result = _numbers(load_record(job.folder / "record.json"))
        print(f"{where}: {result}; {seconds:.0f} s, {_left(rest, self.jobs)} left", flush=True)

    def _on_signal(self, number: int, frame: object) -> None:
        self._stop = signal.Signals(number)
        for job in self.running:
            job.process.send_signal(number)


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: expected at least 1")
    runs = _chosen(read_suite(options.suite, ROOT), options.only)
    suite = Suite(runs, options.runs, options.dry_run)
    threads = options.threads or max(1, (os.cpu_count() or 1) // options.jobs)
    seconds = suite.seconds_left(suite.left)
    print(f"{len(runs)} runs: {len(suite.done)} done, {len(suite.left)} left, {_left(seconds, options.jobs)}")
    for folder in sorted({str(run.data.folder) for run in suite.waiting}):
        number = sum(str(run.data.folder) == folder for run in suite.waiting)
        print(f"{number} wait for {folder}, which is not prepared (docs/data.md)")
    if suite.waiting and options.only and not options.dry_run and not suite.left and not suite.done:
        raise InputError(f"--only {', '.join(options.only)}: none of these runs has its data")
    if options.dry_run:
        for job in suite.left:
            print(f"  {job.run.name}{'' if job.base_exists else '  (with its base step)'}")
        return 0
    return 1 if Runner(suite, options.jobs, threads).run() else 0


def _parser() -> argparse.ArgumentParser:
    usage, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=usage, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    suite = ROOT / "benchmarks" / "suite.toml"
    parser.add_argument("--suite", type=Path, default=suite, help="the suite file (benchmarks/suite.toml)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a block, or a pattern of runs; repeatable",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what is left and run nothing")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads of each run (cores / jobs)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of all runs (runs)")
    return parser


def _chosen(runs: list[Run], only: list[str]) -> list[Run]:
    for pattern in only:
        if not any(_matches(run, pattern) for run in runs):
            blocks = ", ".join(dict.fromkeys(run.block for run in runs))
            raise InputError(f"--only {pattern!r}: no run has this name; the blocks are {blocks}")
    return [run for run in runs if not only or any(_matches(run, pattern) for pattern in only)]


def _matches(run: Run, pattern: str) -> bool:
    return fnmatch.fnmatchcase(run.block, pattern) or fnmatch.fnmatchcase(run.name, pattern)


def _read_times(path: Path) -> list[dict]:
    """Whole lines only: a kill may have left half of one."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _left(seconds: float | None, jobs: int) -> str:
    if seconds is None:
        return "unknown time"
    minutes = seconds / jobs / 60
    return f"about {minutes:.0f} min" if minutes < 120 else f"about {minutes / 60:.1f} h"


def _numbers(record: Record) -> str:
    metrics = record.metrics()
    return "  ".join(
        f"{name} {metrics[name]:.1f}" for name in ("old", "new", "all") if metrics[name] is not None
    )


def _last_error(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else f"see {path}"


def _die_with_parent() -> None:
    """On Linux: a killed suite takes its runs along, with checkpoints."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(run_command(main))
