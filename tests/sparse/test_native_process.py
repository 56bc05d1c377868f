"""The native engine in a process: its library and its threads; what is missing or wrong is one line."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from scannet_css.sparse.engines import native_build, native_engine, native_library
from scannet_css.sparse.engines.choice import engine_name

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
OF_ANOTHER_PROCESSOR = b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\x00" + bytes(200)
has_library = pytest.mark.skipif(
    native_library.library().reason is not None, reason=str(native_library.library().reason)
)
STEP = """
import os, sys
import scannet_css, torch
from scannet_css.network import build_network
from scannet_css.sparse import SparseTensor
from scannet_css.sparse.engines.choice import choose_engine
choose_engine("native")

def step():
    torch.manual_seed(0)
    coordinates = torch.nn.functional.pad(torch.randint(0, 40, (4000, 3)).unique(dim=0), (1, 0))
    network = build_network("minkunet14s").train()
    network(SparseTensor(torch.randn(len(coordinates), 3), coordinates)).logits.square().sum().backward()
    return network.final.kernel.grad, network.conv0p1s1.kernel.grad
"""


def python(program, **options):
    return subprocess.run(
        [sys.executable, "-c", STEP + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        **options,
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in the place of that with the libraries."""
    monkeypatch.setattr(native_library, "FOLDER", tmp_path)
    monkeypatch.setattr(native_library, "library", native_library.library.__wrapped__)
    monkeypatch.setattr(native_engine, "library", native_library.library)
    yield tmp_path


def reason():
    found = native_engine.unavailable(CPU, torch.float32)
    assert found is None or "\n" not in found
    return found


def own_library():
    name = native_library._variants()[0]
    return native_library.__file__ and Path(native_library.__file__).parent / native_build.file_name(name)


def test_without_a_library_torch_runs(folder, monkeypatch):
    expected = (
        "its library was not built when the package was installed: no C++ compiler? pip install -e . builds"
    )
    assert reason().startswith(expected)
    monkeypatch.setattr("scannet_css.sparse.engines.choice._chosen", None)
    monkeypatch.delenv("SCANNET_CSS_ENGINE", raising=False)
    monkeypatch.setattr(
        "scannet_css.sparse.engines.choice._engine",
        sys.modules["scannet_css.sparse.engines.choice"]._engine.__wrapped__,
    )
    assert engine_name(CPU, torch.float32) == "torch"


@has_library
def test_a_library_of_another_source_is_named(folder, monkeypatch):
    shutil.copy(own_library(), folder)
    assert reason() is None
    monkeypatch.setattr(native_build, "source_hash", lambda: "0" * 16)
    name = own_library().name
    assert reason().startswith(f"{name} was built from another native.cpp (")
    assert reason().endswith(f", here {'0' * 16}); pip install -e . builds it anew")


@has_library
@pytest.mark.parametrize(
    "content", [b"", b"no library", b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\x00" + bytes(200)]
)
def test_a_file_that_is_no_library_of_this_processor_is_named(folder, content):
    path = folder / native_build.file_name(native_library._variants()[0])
    path.write_bytes(content)
    assert reason().startswith(f"{path.name} cannot be loaded (")


@has_library
def test_a_narrower_library_runs_where_the_widest_is_damaged(folder):
    names = native_library._variants()
    if len(names) == 1:
        pytest.skip("this processor has one width only")
    shutil.copy(own_library().with_name(native_build.file_name("128")), folder)
    (folder / native_build.file_name(names[0])).write_bytes(b"no library")
    assert reason() is None
    assert native_library.library().variant in ("128 bits", "NEON")


def test_a_compiler_that_is_missing_or_fails_is_an_error_of_python(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    with pytest.raises(OSError, match="nonexistent"):
        native_build.build("128", tmp_path / "native_128.so")
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(subprocess.CalledProcessError):
        native_build.build("128", tmp_path / "native_128.so")
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OSError, match="^no C\\+\\+ compiler is found; CXX may name one$"):
        native_build.build("128", tmp_path / "native_128.so")
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_runs_without_the_package():
    """setup.py takes it so: where neither torch nor the package is installed yet."""
    assert runpy.run_path(native_build.__file__)["source_hash"]() == native_build.source_hash()


@has_library
@pytest.mark.skipif(native_build.find_compiler() is None, reason="no C++ compiler")
def test_every_variant_that_can_run_here_gives_the_same_bits(tmp_path, monkeypatch):
    """AVX2 and AVX-512 fuse alike; 128-bit vectors of x86 cannot fuse and are within rounding."""
    torch.manual_seed(0)
    from tests.sparse.test_native import operands, random_map, results

    found = {}
    for variant in native_library._variants():
        _, functions = native_library._load(own_library().with_name(native_build.file_name(variant)))
        loaded = native_library.Library(functions, variant, None)
        monkeypatch.setattr(native_engine, "library", lambda loaded=loaded: loaded)
        kernel_map = random_map(3000, 3000, 27, 0.4)
        found[variant] = [
            each
            for channels in ((3, 32), (48, 48), (33, 21), (96, 96))
            for each in results(native_engine, kernel_map, *operands(kernel_map, channels))
        ]
    first, *others = found
    for name in others:
        for one, other in zip(found[first], found[name], strict=True):
            assert torch.equal(one, other) or name == "128"
            assert (one - other).abs().max() <= 2e-6 * one.abs().max()


@has_library
def test_openmp_has_one_runtime():
    done = python("""
        step()
        maps = [line.split()[-1] for line in open("/proc/self/maps") if ".so" in line]
        print(len({path for path in maps if any(name in path for name in ("libgomp", "libiomp", "libomp"))}))
    """)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@has_library
def test_another_number_of_threads_in_the_middle_changes_no_bit():
    done = python("""
        results = []
        for number in (2, 1, 3, 5, 2):
            torch.set_num_threads(number)
            results.append(step())
        print(all(torch.equal(one, other) for result in results for one, other in zip(results[0], result)))
    """)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@has_library
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_engine_runs_in_a_fork_after_threads_ran():
    """The engine itself: other operations of torch still wait for threads that are not there."""
    done = python("""
        from scannet_css.sparse.engines import native_engine
        torch.set_num_threads(2)
        coordinates = torch.nn.functional.pad(torch.randint(0, 30, (4000, 3)).unique(dim=0), (1, 0))
        x = SparseTensor(torch.randn(len(coordinates), 16), coordinates)
        arguments = x.features, torch.randn(27, 16, 16), x.manager.map(1, 3, 1)
        expected = native_engine.convolve(*arguments)
        child = os.fork()
        if child == 0:
            same = (native_engine.convolve(*arguments).numpy() == expected.numpy()).all()
            os._exit(0 if same else 1)
        print(os.waitpid(child, 0)[1])
    """)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@has_library
def test_several_processes_at_once_give_the_same_bits():
    program = STEP + "torch.set_num_threads(2)\nprint(*(x.double().sum().item() for x in step()))"
    running = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(3)
    ]
    printed = {process.communicate(timeout=300)[0] for process in running}
    assert len(printed) == 1
    assert [process.returncode for process in running] == [0, 0, 0]


@has_library
def test_an_interrupted_step_ends():
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            # a test run in the background ignores Ctrl-C, and so would its children
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            + STEP
            + "torch.set_num_threads(2)\nstep()\nprint('runs', flush=True)\nwhile True: step()",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "runs\n"
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_a_thread_that_waits_sleeps_soon_unless_told_otherwise():
    program = "import scannet_css, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    bare = {
        key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    for given, expected in (
        ({}, "1000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**bare, **given, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{expected}\n"


@pytest.mark.parametrize(
    "script", ["benchmarks/run.py", "benchmarks/speed.py", "tools/doctor.py", "tools/predict.py"]
)
def test_a_command_that_computes_says_so_before_torch_is_loaded(script):
    imports = [
        line for line in (ROOT / script).read_text().splitlines() if line.startswith(("import", "from"))
    ]
    assert imports[0].startswith("import scannet_css")
