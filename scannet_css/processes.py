"""Threads and processes that work ahead of a consumer, and end with it."""

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # by workers: the parent decides
_PR_SET_PDEATHSIG = 1  # Linux's prctl.h


def ahead(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """The same items in the same order, taken by a thread that stays up to `depth` of them ahead.

    What `items` raises is raised here, in its turn. Closing this iterator stops the thread and waits for it,
    for one item at most.
    """
    free = threading.Semaphore(depth)
    ready: queue.SimpleQueue[tuple[list[Item], BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        error = None
        try:
            while free.acquire() and not stopped.is_set():
                ready.put(([next(items)], None))
        except StopIteration:
            pass
        except BaseException as raised:
            error = raised
        ready.put(([], error))

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if not item:
                return
            free.release()
            yield item.pop()
    finally:
        stopped.set()
        free.release()
        thread.join()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes in this thread alone, then with as many as before.

    Work on one scene is too small to gain from more; where other programs keep the cores busy, waiting for
    them makes it ten times as slow.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def signals_held() -> Iterator[None]:
    """Signals that workers ignore wait until the end of this block, in this thread and in the processes that
    are started in here: these have not come to ignoring them yet, and would end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(parent: int) -> None:
    """Leaves signals to the parent, the process of this id, and on Linux ends when it does, even killed.

    Call it first in a process that `parent` has started. Linux watches the thread that started it, so this
    must outlive the worker.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)
