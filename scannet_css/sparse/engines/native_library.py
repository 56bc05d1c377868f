"""Finds and loads the native engine's library: the processor's widest vectors, on torch's own threads."""

import ctypes
import os
import platform
import threading
from ctypes import CDLL, POINTER, Structure, c_char_p, c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from scannet_css.sparse.engines import native_build

AGAIN = "pip install -e . builds it anew"
FOLDER = Path(__file__).parent
# What torch says that the processor has, and the variants that run on it.
CAPABILITIES = {"AVX512": ("avx512", "avx2", "128"), "AVX2": ("avx2", "128")}
RUNTIMES = ("libgomp", "libiomp5", "libomp")  # of OpenMP: GNU's, Intel's, LLVM's

_memory = threading.local()
_is_forked = False  # OpenMP's threads do not survive a fork, and waiting for them would never end


class Pairs(Structure):
    """The pairs of a kernel map, as native.cpp has them."""

    _fields_ = [
        *((name, c_void_p) for name in ("sources", "targets", "starts")),
        *((name, c_int64) for name in ("offsets", "blocks", "outputs")),
    ]


class Layer(Structure):
    """Channels of an operation, and how its kernel is to be read."""

    _fields_ = [(name, c_int64) for name in ("input", "output", "is_transposed", "is_turned")]


class Tail(Structure):
    """What follows the sum."""

    _fields_ = [("bias", c_void_p), ("residual", c_void_p), ("relu", c_int64)]


_pairs, _layer, _tail = POINTER(Pairs), POINTER(Layer), POINTER(Tail)
FUNCTIONS = {
    "variant": (c_char_p, ()),
    "source": (c_char_p, ()),
    "count_pairs": (c_int64, (c_void_p, c_int64, _pairs, c_void_p)),
    "fill_pairs": (None, (c_void_p, _pairs, c_void_p, c_void_p)),
    "scratch_numbers": (c_int64, (_pairs, _layer, c_int)),
    "convolve": (None, (c_void_p, c_void_p, _pairs, _layer, _tail, c_void_p, c_void_p, c_int)),
    "kernel_gradient": (None, (c_void_p, c_void_p, _pairs, _layer, c_void_p, c_void_p, c_int)),
    "norm_scratch": (c_int64, (c_int64, c_int64)),
    "normalise": (None, (c_void_p, c_int64, c_int64, c_void_p, _tail, c_double, *[c_void_p] * 5, c_int)),
    "normalise_backward": (None, (c_void_p, c_void_p, c_int64, c_int64, *[c_void_p] * 9, c_int)),
    "multiply_add": (c_int64, (c_int64, c_void_p, c_int)),
}


@dataclass
class Library:
    """The loaded library and the name of its vectors; or neither, and why."""

    functions: CDLL | None
    variant: str | None
    reason: str | None  # why there is none, in one line


@cache
def library() -> Library:
    """What can be loaded here. Loaded once in a process."""
    tried = []
    for variant in _variants():
        path = FOLDER / native_build.file_name(variant)
        if not path.exists():
            continue
        reason, functions = _load(path)
        if functions is not None:
            return Library(functions, functions.variant().decode(), None)
        tried.append(reason)
    if not tried:
        tried = [f"its library was not built when the package was installed: no C++ compiler? {AGAIN}"]
    return Library(None, None, "; ".join(tried))


def threads() -> int:
    """How many threads a call may use: as many as torch does, one in a forked process."""
    return 1 if _is_forked else torch.get_num_threads()


def address(x: Tensor | None) -> int | None:
    """Where a contiguous tensor's numbers are."""
    return None if x is None else x.data_ptr()


def scratch(numbers: int) -> int:
    """The address of memory for so many float32 that this thread's next call may overwrite."""
    memory: Tensor | None = getattr(_memory, "numbers", None)
    if memory is None or memory.numel() < numbers:
        _memory.numbers = memory = torch.empty(numbers, dtype=torch.float32)
    return memory.data_ptr()


def _variants() -> tuple[str, ...]:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ("128",)
    return CAPABILITIES.get(torch.backends.cpu.get_cpu_capability(), ("128",))


def _load(path: Path) -> tuple[str | None, CDLL | None]:
    _share_openmp()
    try:
        functions = CDLL(str(path))
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(functions, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        return f"{path.name} cannot be loaded ({str(error).splitlines()[0]})", None
    built, here = functions.source().decode(), native_build.source_hash()
    if built != here:
        return f"{path.name} was built from another native.cpp ({built}, here {here}); {AGAIN}", None
    return None, functions


def _share_openmp() -> None:
    """Makes the OpenMP runtime that torch loaded visible: a second pool of threads would fight the first."""
    for path in _loaded_files():
        if path.name.startswith(RUNTIMES):
            CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            return


def _loaded_files() -> list[Path]:
    """Shared libraries, those of torch first."""
    maps, torchs = Path("/proc/self/maps"), Path(torch.__file__).parent
    shipped = [*torchs.glob("lib/lib*omp*"), *torchs.parent.glob("torch.libs/lib*omp*")]
    if not maps.exists():  # not Linux
        return shipped
    lines = (line.split(maxsplit=5) for line in maps.read_text().splitlines())
    loaded = {Path(parts[5]) for parts in lines if len(parts) == 6 and parts[5].startswith("/")}
    return [*(path for path in shipped if path in loaded), *sorted(loaded)]


def _after_fork() -> None:
    global _is_forked
    _is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
