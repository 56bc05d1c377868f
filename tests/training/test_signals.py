"""Signals: a checkpoint, an exit code that says what to do, nothing left behind, and the run goes on.

Counts in the normal run are small; `make test-deep` sends 90.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHARED_MEMORY = Path("/dev/shm")
CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}
WAITING = """
import time
from scannet_css.commands import run_command
from scannet_css.training.signals import StopSignals

def main(arguments):
    with StopSignals() as stop:
        print("ready", flush=True)
        while not {condition}:
            time.sleep(0.01)
        stop.leave()

raise SystemExit(run_command(main, []))
"""


def counts(few, many):
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.deep)])


def in_shared_memory():
    return set(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else set()


def wait_until_at_work(process, one):
    """Until the command has taken its folder: before that, a signal just ends it."""
    lock = one.run / ".lock"
    while process.poll() is None and not (lock.exists() and f"process {process.pid} " in lock.read_text()):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)


def assert_nobody_is_left(process):
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process of the group outlives the command")


@counts(1, 30)
@pytest.mark.parametrize("number", CODES)
def test_a_signal_is_a_pause(number, count, command, whole):
    """The whole group gets it, as from a terminal or a scheduler; workers load the data."""
    expected, seconds = whole("plop3d")
    dice, before = random.Random(int(number)), in_shared_memory()
    sent = 0
    one = command("plop3d")
    while sent < count:
        process = one.start(options=("--workers", 2))
        wait_until_at_work(process, one)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0, 0.7) * seconds)
        started = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - started < 30
        assert_nobody_is_left(process)
        assert "Traceback" not in errors
        if process.returncode:
            sent += 1
            assert process.returncode == CODES[number], errors
            assert errors.splitlines()[-1] == f"stopped by {number.name}; the same command goes on from here"
        else:
            assert one.state() == expected
            one = command("plop3d")
    code, errors = one.finish()
    assert code == 0, errors
    assert one.state() == expected
    assert in_shared_memory() <= before


@counts(1, 10)
def test_two_signals_leave_at_once_and_whole(count, command, whole):
    expected, seconds = whole("plop3d")
    dice, one = random.Random(count), command("plop3d")
    for _ in range(count):
        process = one.start(options=("--workers", 2))
        wait_until_at_work(process, one)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0, 0.3) * seconds)
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        process.communicate(timeout=60)
        # of two that come within one step of the interpreter, one is all that it sees
        assert process.returncode in (0, 75, 130, -signal.SIGTERM, -signal.SIGINT)
        assert_nobody_is_left(process)
    code, errors = one.finish()
    assert code == 0, errors
    assert one.state() == expected


@pytest.mark.parametrize("number", CODES)
def test_the_second_signal_does_not_wait_for_the_first(number):
    """The loop here never comes to a safe place."""
    script = WAITING.format(condition="False")
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(10) == -number
    process.stdout.close()


def test_who_never_comes_to_a_safe_place_is_made_to_leave():
    script = WAITING.format(condition="False").replace(
        "def main", "import scannet_css.training.signals as s\ns.PATIENCE = 0.3\n\ndef main"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert errors == "stopped by SIGTERM; the same command goes on from here\n"


def test_a_second_run_in_the_same_folder_is_refused(command):
    one = command("finetune")
    process = one.start()
    run = one.run / ".lock"
    while process.poll() is None and not (run.exists() and run.read_text()):
        time.sleep(0.01)
    code, errors = one.finish()
    process.communicate()
    assert code == 2
    assert f"error: {one.run}: process {process.pid} on " in errors and "is at work on this run" in errors
    assert process.returncode == 0
