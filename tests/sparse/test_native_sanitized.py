"""The native engine's kernels under the address and undefined-behaviour sanitizers, on every width."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scannet_css.sparse.engines import native_build, native_library

ROOT = Path(__file__).parents[2]
SANITIZERS = "address", "undefined"


@pytest.mark.deep
@pytest.mark.parametrize("variant", native_library._variants())
def test_no_kernel_leaves_its_memory_or_the_language(variant, tmp_path):
    compiler = native_build.find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    native_build.build(variant, tmp_path / native_build.file_name(variant), SANITIZERS)
    runtime = subprocess.run(
        [*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(runtime).is_absolute():
        pytest.skip("the compiler brings no libasan.so")
    program = f"""
import sys
from pathlib import Path
from scannet_css.sparse.engines import native_library
native_library.FOLDER = Path({str(tmp_path)!r})
import pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "tests/sparse/test_native.py"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
