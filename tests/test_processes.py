"""What works ahead of a consumer: order, errors and, above all, that it ends."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scannet_css.errors import InputError
from scannet_css.processes import ahead, one_thread, signals_held, start_worker
from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest
from scannet_css.scenes.loader import BatchSet, batches_of

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc are Linux's")


def wait_until(happens, seconds=20):
    """Waits for it to happen; says whether it did."""
    end = time.monotonic() + seconds
    while not happens() and time.monotonic() < end:
        time.sleep(0.01)
    return happens()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_everything_comes_in_order(depth):
    assert list(ahead(iter(range(300)), depth)) == list(range(300))
    assert list(ahead(iter([]), depth)) == []
    assert not threads()


def test_the_thread_stays_as_far_ahead_as_told():
    taken = []
    with contextlib.closing(ahead((taken.append(n) or n for n in range(100)), 2)) as items:
        for number in range(3):
            assert next(items) == number
            assert wait_until(lambda number=number: len(taken) == number + 3)
        time.sleep(0.05)
        assert len(taken) == 5
    assert not threads()


def test_an_error_comes_after_the_items_before_it():
    error = InputError("the third is bad")

    def items():
        yield from (1, 2)
        raise error

    got = []
    with pytest.raises(InputError) as raised:
        for item in ahead(items(), 5):
            got.append(item)
    assert got == [1, 2] and raised.value is error
    assert not threads()


@pytest.mark.parametrize("taken", [0, 1, 10])
def test_closing_ends_the_thread_and_leaves_the_source_alone(taken):
    source = iter(range(10**9))
    items = ahead(source, 3)
    for _ in range(taken):
        next(items)
    items.close()
    assert not threads()
    assert next(source) <= taken + 3


def test_an_error_of_the_consumer_ends_the_thread():
    def consume():
        for item in ahead(iter(range(10**9)), 2):
            if item == 4:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert not threads()


@pytest.fixture
def batch_set(small_set):
    """Many batches of one scene."""
    manifest = load_manifest(small_set)
    table = load_protocol("offline").training_table(0, manifest.classes)
    return BatchSet(manifest, [[entry] for entry in manifest.split("train")] * 5, table, identity=(1, 2, 3))


def running(batch_set):
    """An iterator of two workers that have both delivered, and their processes."""
    before = multiprocessing.active_children()
    batches = batches_of(batch_set, 2)
    next(batches), next(batches)
    workers = [child for child in multiprocessing.active_children() if child not in before]
    assert len(workers) == 2
    return batches, workers


def test_closing_ends_the_workers(batch_set):
    batches, workers = running(batch_set)
    batches.close()
    assert not any(worker.is_alive() for worker in workers)


def test_the_last_batch_and_an_error_end_the_workers(batch_set):
    batches, workers = running(batch_set)
    assert len(list(batches)) == len(batch_set) - 2
    assert not any(worker.is_alive() for worker in workers)
    batches, workers = running(batch_set)
    with pytest.raises(ZeroDivisionError):
        batches.throw(ZeroDivisionError)
    assert not any(worker.is_alive() for worker in workers)


def test_a_bad_scene_ends_the_workers_while_its_error_is_held(batch_set):
    batch_set.batches[4] = [replace(batch_set.batches[4][0], file="train/none.safetensors")]
    batches, workers = running(batch_set)
    with pytest.raises(InputError, match="none.safetensors: no such scene") as raised:
        list(batches)
    assert raised.value.__traceback__ is not None
    assert not any(worker.is_alive() for worker in workers)


def test_signals_are_the_parents(batch_set):
    batches, workers = running(batch_set)
    for worker in workers:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(worker.pid, number)
    assert [batch.names for batch in batches] == [[b[0].name] for b in batch_set.batches[2:]]


def test_loading_draws_nothing_from_the_callers_random_numbers(batch_set):
    torch.manual_seed(3)
    expected = torch.rand(2)
    for workers in (0, 2):
        torch.manual_seed(3)
        batches = batches_of(batch_set, workers)
        next(batches)
        batches.close()
        assert torch.equal(torch.rand(2), expected)


def test_one_thread_and_then_as_many_as_before(batch_set):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        batch_set.make = lambda scenes, device: torch.get_num_threads()
        assert batch_set[0] == 1 and torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError), one_thread():
            raise ZeroDivisionError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@on_linux
def test_a_worker_whose_parent_is_gone_ends_at_once():
    for parent, code in ((os.getpid(), 0), (os.getpid() + 1, 1)):
        process = multiprocessing.get_context("fork").Process(target=start_worker, args=(parent,))
        process.start()
        process.join()
        assert process.exitcode == code


def is_running(pid):
    """False for a process that nobody has buried yet, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@on_linux
def test_a_killed_parent_leaves_nothing(small_set):
    program = """
import multiprocessing, sys, time
from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest
from scannet_css.scenes.loader import BatchSet, batches_of
manifest = load_manifest(sys.argv[1])
table = load_protocol("offline").training_table(0, manifest.classes)
batches = [[entry] for entry in manifest.split("train")] * 1000
for number, batch in enumerate(batches_of(BatchSet(manifest, batches, table, identity=(1, 2, 3)), 2)):
    if number == 1:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""
    before = set(SHARED_MEMORY.iterdir())
    command = [sys.executable, "-c", program, small_set]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2 and all(is_running(pid) for pid in workers)
        time.sleep(0.2)  # in the midst of work
        parent.kill()
    assert wait_until(lambda: not any(is_running(pid) for pid in workers), seconds=3)
    # other processes of the machine come and go there too
    assert wait_until(lambda: not set(SHARED_MEMORY.iterdir()) - before)


def test_signals_wait_while_workers_are_started():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        with signals_held():
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            time.sleep(0.01)
            assert seen == []
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)
