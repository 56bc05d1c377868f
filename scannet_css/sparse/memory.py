"""The C library's memory, tuned for a process that trains."""

import ctypes

_TRIM_THRESHOLD, _LARGEST_COUNT_OF_MAPPED_BLOCKS = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Freed memory stays with this process, for the next training step; says whether the C library does that.

    glibc gives blocks above 32 MiB back to the system at once, and each new one costs a page fault every
    4 KiB: at 100k voxels that was a tenth of a training step. It holds for the whole process, so commands
    call it, not the library.
    """
    malloc_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if malloc_option is None:  # not glibc
        return False
    return bool(malloc_option(_LARGEST_COUNT_OF_MAPPED_BLOCKS, 0) and malloc_option(_TRIM_THRESHOLD, -1))
