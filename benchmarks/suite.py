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
import fnmatch
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from suite_lib.suite_file import read_suite
from suite_lib.suite_plan import Job, Suite
from suite_lib.suite_run import Run
from suite_lib.synthetic_set import ROOT

from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError, Stop, did_you_mean
from scannet_css.processes import die_with
from scannet_css.records.record import Record, load_record
from scannet_css.training.signals import SIGNALS

POLL = 0.2  # seconds


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
        try:
            while self.left or self.running:
                self._turn()
                time.sleep(POLL)
        finally:  # none is running, unless this raises an error of its own
            for job in self.running:
                job.process.terminate()
        return len(self.failed)

    def _turn(self) -> None:
        while self._stop is None and len(self.running) < self.jobs and (job := self._next()):
            self._start(job)
        for job in [job for job in self.running if job.process.poll() is not None]:
            self.running.remove(job)
            self._end(job)
        if self._stop and not self.running:
            _leave(self._stop)

    def _next(self) -> Job | None:
        """The first job whose base step nobody is training."""
        in_training = {job.base for job in self.running if not job.base_exists}
        for job in self.left:
            if job.base not in in_training:
                self.left.remove(job)
                return job
        return None

    def _start(self, job: Job) -> None:
        job.goes_on = job.is_begun
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
        with open(job.folder / "suite.log", "ab") as log:
            job.log_start = log.tell()
            job.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
                start_new_session=True,  # Ctrl-C reaches it once, through us
                preexec_fn=partial(die_with, os.getpid(), signal.SIGTERM),  # with checkpoints
            )
        self.running.append(job)
        if self._stop:  # the signal came while it was started
            job.process.send_signal(self._stop)

    def _end(self, job: Job) -> None:
        code = job.process.returncode
        if self._stop and code:
            return
        self.finished += 1
        where = f"{self.finished}/{self.number} {job.run.name}"
        if code:
            self.failed.append(job)
            print(f"{where}: failed with exit code {code}: {_last_error(job)}", flush=True)
            return
        seconds = self.suite.note(job)
        rest = self.suite.seconds_left([*self.running, *self.left])
        result = _numbers(load_record(job.folder / "record.json"))
        print(f"{where}: {result}; {seconds:.0f} s, {_left(rest, self.jobs)} left", flush=True)

    def _on_signal(self, number: int, frame: object) -> None:
        self._stop = signal.Signals(number)
        for job in self.running:
            job.process.send_signal(number)


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    for name, value in (("jobs", options.jobs), ("threads", options.threads)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected at least 1")
    runs = _chosen(read_suite(options.suite, ROOT), options.only)
    if not options.dry_run:
        _check_named_blocks(runs, options.only)
        for number in SIGNALS:  # synthetic rooms may be made now
            signal.signal(number, lambda received, frame: _leave(signal.Signals(received)))
    suite = Suite(runs, options.runs, makes_data=not options.dry_run)
    threads = options.threads or max(1, (os.cpu_count() or 1) // options.jobs)
    _print_plan(suite, options.jobs, names=options.dry_run)
    if options.dry_run:
        return 0
    return 1 if Runner(suite, options.jobs, threads).run() else 0


def _check_named_blocks(runs: list[Run], only: list[str]) -> None:
    """Raises InputError for a block that is asked for by its name and has no data."""
    patterns = _patterns(only, runs)
    for run in runs:
        if run.block in patterns and not run.data.make and not run.data.is_there:
            raise InputError(f"--only {run.block}: {_shown(run.data.folder)} is not prepared (docs/data.md)")


def _print_plan(suite: Suite, jobs: int, names: bool) -> None:
    """What is left and what it will take; with `names` run by run."""
    to_make = [run for run in suite.without_data if run.data.make]
    waiting = [run for run in suite.without_data if not run.data.make]
    done, left = len(suite.done), len(suite.left) + len(to_make)
    seconds = None if to_make else suite.seconds_left(suite.left)
    print(f"{done + left + len(waiting)} runs: {done} done, {left} left, {_left(seconds, jobs)}")
    for folder, number in Counter(run.data.folder for run in waiting).items():
        print(f"{number} wait for {_shown(folder)}, which is not prepared (docs/data.md)")
    for folder, number in Counter(run.data.folder for run in to_make).items():
        print(f"{number} need {_shown(folder)}, which is made first")
    if names:
        for job in suite.left:
            print(f"  {job.run.name}{'' if job.base_exists else '  (with its base step)'}")
        for run in to_make:
            print(f"  {run.name}  (with its data)")
    sys.stdout.flush()


def _shown(folder: Path) -> Path:
    return folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder


def _parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    suite = ROOT / "benchmarks" / "suite.toml"
    parser.add_argument("--suite", type=Path, default=suite, help="the suite file (benchmarks/suite.toml)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a block, or a pattern of runs; several with commas or repeated",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what is left and run nothing")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads of each run (cores / jobs)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of all runs (runs)")
    return parser


def _chosen(runs: list[Run], only: list[str]) -> list[Run]:
    """The runs that match, each once: the same run may stand in several blocks."""
    patterns = _patterns(only, runs)
    for pattern in patterns:
        if not any(_matches(run, pattern) for run in runs):
            blocks = dict.fromkeys(run.block for run in runs)
            hint = did_you_mean(pattern, blocks)
            raise InputError(
                f"--only {pattern!r}: no run has this name{hint}; the blocks are {', '.join(blocks)}"
            )
    chosen: dict[tuple, Run] = {}
    for run in runs:
        if not only or any(_matches(run, pattern) for pattern in patterns):
            chosen.setdefault(run.identity, run)
    return list(chosen.values())


def _patterns(only: list[str], runs: list[Run]) -> list[str]:
    """What stands behind --only; a comma separates, unless it belongs to the name of a run."""
    patterns = []
    for text in only:
        is_one = any(_matches(run, text) for run in runs)
        patterns += [text] if is_one else [part.strip() for part in text.split(",")]
    return patterns


def _matches(run: Run, pattern: str) -> bool:
    return fnmatch.fnmatchcase(run.block, pattern) or fnmatch.fnmatchcase(run.name, pattern)


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


def _last_error(job: Job) -> str:
    path = job.folder / "suite.log"
    lines = path.read_bytes()[job.log_start :].decode("utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else f"see {path}"


def _leave(received: signal.Signals) -> NoReturn:
    raise Stop(f"stopped by {received.name}; the same command goes on from here", SIGNALS[received])


if __name__ == "__main__":
    sys.exit(run_command(main))
