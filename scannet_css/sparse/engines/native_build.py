"""Builds the native engine's libraries from native.cpp: one for each width of a processor's vectors.

For setup.py and tests: it needs a C++ compiler, and neither torch nor the package.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("native.cpp")
VECTORS = {"avx512": ("-march=x86-64-v4",), "avx2": ("-march=x86-64-v3",), "128": ()}  # widest first
COMPILE = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-math-errno",
    "-Wall",
    "-Wextra",
)
# Compiled with OpenMP and linked without: the runtime that serves it is the one that torch brought.
OPENMP = {"darwin": ("-Xpreprocessor", "-fopenmp")}.get(sys.platform, ("-fopenmp",))
LINK = {"darwin": ("-undefined", "dynamic_lookup")}.get(sys.platform, ("-nodefaultlibs", "-lc"))


def names() -> tuple[str, ...]:
    """The variants that make sense on this kind of processor, the widest first."""
    return tuple(VECTORS) if platform.machine().lower() in ("x86_64", "amd64") else ("128",)


def file_name(variant: str) -> str:
    return f"native_{variant}.so"


def source_hash() -> str:
    """What a library and the source beside it must agree on."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]


def find_compiler() -> list[str] | None:
    """The command of a C++ compiler: the variable CXX, else the first of three usual ones, or None."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    found = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
    return found and [found]


def build(variant: str, path: Path, sanitizers: Sequence[str] = ()) -> None:
    """Writes the library of a variant. Raises OSError without a compiler, CalledProcessError (with its
    stderr) if that fails."""
    compiler = find_compiler()
    if compiler is None:
        raise OSError("no C++ compiler is found; CXX may name one")
    sanitize = [f"-fsanitize={','.join(sanitizers)}", "-g", "-fno-sanitize-recover=all"] if sanitizers else []
    with tempfile.TemporaryDirectory() as folder:
        made, linked = Path(folder, "native.o"), Path(folder, path.name)
        define = f'-DSOURCE="{source_hash()}"'
        options = [*COMPILE, *VECTORS[variant], *OPENMP, *sanitize, define]
        _run([*compiler, *options, "-c", SOURCE, "-o", made])
        _run([*compiler, "-shared", made, "-o", linked, *(sanitize or LINK)])
        path.parent.mkdir(parents=True, exist_ok=True)
        arriving = path.with_suffix(f".{os.getpid()}")  # never half a library beside a running process
        shutil.copyfile(linked, arriving)
        os.replace(arriving, path)


def _run(command: list) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
