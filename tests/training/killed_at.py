"""benchmarks/run.py with a kill -9 at a chosen point of its own work.

    python tests/training/killed_at.py POINT NUMBER -- the options of run.py

The process dies at the NUMBER-th time that it comes to the point. POINTS names them.
"""

import os
import pkgutil
import runpy
import signal
import sys
from pathlib import Path

from scannet_css import files
from scannet_css.commands import run_command
from scannet_css.training import run
from scannet_css.training.log import MetricsLog

ROOT = Path(__file__).parents[2]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Counter:
    def __init__(self, number):
        self.left = number

    def is_now(self):
        self.left -= 1
        return self.left == 0


def at(name, dies_before=True, applies=lambda *arguments: True):
    """A point: the call of "module:function" or "module:Class.method", if it applies to the arguments."""

    def install(number):
        path, _, attribute = name.rpartition("." if "." in name.partition(":")[2] else ":")
        owner = pkgutil.resolve_name(path)
        original, counter = getattr(owner, attribute), Counter(number)

        def call(*arguments, **options):
            now = applies(*arguments) and counter.is_now()
            if now and dies_before:
                die()
            result = original(*arguments, **options)
            if now:
                die()
            return result

        setattr(owner, attribute, call)

    return install


def starts_with(start, position=0):
    """Whether the path among the arguments is that of such a file."""
    return lambda *arguments: Path(arguments[position]).name.startswith(start)


def in_half_of_a_write(number):
    """Half of a checkpoint's bytes are in the temporary file."""
    original, counter = os.fdopen, Counter(number)

    class Half:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            if len(data) > 1_000_000 and counter.is_now():
                self.file.write(data[: len(data) // 2])
                self.file.flush()
                die()
            self.file.write(data)

    files.os.fdopen = lambda *arguments: Half(original(*arguments))


def in_half_of_a_log_line(number):
    original, counter = MetricsLog.write, Counter(number)

    def write(self, row):
        if counter.is_now():
            self._file.write(b'{"step": 1, "epo')
            self._file.flush()
            die()
        original(self, row)

    MetricsLog.write = write


def in_a_pass(is_evaluation):
    """The batches that Step.add_up, or evaluation, goes through."""

    def install(number):
        original, counter = run.add_up, Counter(number)

        def add_up(name, batches, load, compute, *rest):
            def counted(batch):
                if (name == "evaluation") == is_evaluation and counter.is_now():
                    die()
                return compute(batch)

            return original(name, batches, load, counted, *rest)

        run.add_up = add_up

    return install


TRAINING = "scannet_css.training"
SAVED, RENAMED = f"{TRAINING}.run:save_checkpoint", "os:replace"
POINTS = {
    "half of a checkpoint is written": in_half_of_a_write,
    "a checkpoint is written, not renamed": at(RENAMED, applies=starts_with("checkpoint-", 1)),
    "a checkpoint is renamed": at(RENAMED, False, starts_with("checkpoint-", 1)),
    "half of a log line is written": in_half_of_a_log_line,
    "weights are about to move": at(f"{TRAINING}.step.update:Updater._checked"),
    "weights have moved, nothing is logged": at(f"{TRAINING}.epochs:StepTrainer._note"),
    "a step is begun": at(f"{TRAINING}.epochs:StepTrainer._probe_memory"),
    "a method finds something out": in_a_pass(is_evaluation=False),
    "partial sums are written, not renamed": at(RENAMED, applies=starts_with("sums-", 1)),
    "evaluation": in_a_pass(is_evaluation=True),
    "a step is evaluated, not finished": at(SAVED, applies=starts_with("finished")),
    "a step is finished, its sums are there": at(SAVED, False, starts_with("finished")),
    "the network is about to grow": at(f"{TRAINING}.run:grow"),
    "the record is about to be written": at("scannet_css.records.record:save_record"),
}


def main():
    point, number, _, *options = sys.argv[1:]
    POINTS[point](int(number))
    # loaded now, so that what was replaced above is what it imports
    sys.path.insert(0, str(ROOT / "benchmarks"))
    return run_command(runpy.run_path(str(ROOT / "benchmarks" / "run.py"))["main"], options)


if __name__ == "__main__":
    sys.exit(main())
