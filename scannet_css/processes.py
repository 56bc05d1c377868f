"""Threads and processes that work ahead of a consumer and end with it; settings of a whole process."""

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
_TRIM_THRESHOLD, _LARGEST_COUNT_OF_MAPPED_BLOCKS = -1, -4  # glibc's malloc.h
_LIBC = ctypes.CDLL(None)  # loaded here: little is allowed between fork and exec


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
    die_with(parent, signal.SIGKILL)


def die_with(parent: int, number: signal.Signals) -> None:
    """On Linux the system sends this process the signal `number` when its parent, of this id, has ended, even
    killed. Elsewhere nothing happens. To be called in the child, also between fork and exec."""
    if sys.platform == "linux":
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)  # a handler of the parent's would swallow it until exec
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)


def keep_freed_memory() -> bool:
    """Freed memory stays with this process, for the next training step; says whether the C library does that.

    glibc gives blocks above 32 MiB back to the system at once, and each new one costs a page fault every
    4 KiB: at 100k voxels that was a tenth of a training step. It holds for the whole process, so commands
    call it, not the library.
    """
    malloc_option = getattr(_LIBC, "mallopt", None)
    if malloc_option is None:  # not glibc
        return False
    return bool(malloc_option(_LARGEST_COUNT_OF_MAPPED_BLOCKS, 0) and malloc_option(_TRIM_THRESHOLD, -1))
