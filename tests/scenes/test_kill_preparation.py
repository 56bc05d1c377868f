"""The real command, killed or out of space at random moments: what is there is whole, a rerun completes it.

Counts in the normal run are small; `make test-deep` runs them in full.
"""

import contextlib
import hashlib
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from scannet_css.files import write_atomic
from scannet_css.scenes.verify_prepared import REPORTS, verify

ROOT = Path(__file__).parents[2]
SCANS = 6


def counts(few, many):
    """The number of faults: few in the normal run, many in the deep one."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.deep)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, write_scan):
    """Folder of scans, the digests of what they are prepared to, and how long the work took in seconds."""
    folder = tmp_path_factory.mktemp("whole")
    dice = np.random.default_rng(0)
    names = [f"scene{number:04d}_00" for number in range(SCANS)]
    for name in names:
        points = 30_000
        write_scan(
            folder / "scans" / name,
            points=dice.random((points, 3)) * [5, 4, 2.5],
            faces=dice.integers(0, points, (2 * points, 3)),
            nyu40=dice.integers(0, 41, points),
            segments=dice.integers(0, 300, points),
            objects={number: [number] for number in range(40)},
        )
    (folder / "scans" / "scannetv2_train.txt").write_text("\n".join(names))
    out = folder / "whole"
    process = start(folder / "scans", out)
    begin = wait_for(process, out)
    seconds = wait_for(process, out / "manifest.json") - begin
    text = process.communicate()[0]
    assert process.returncode == 0 and f"({SCANS} made, 0 kept)" in text, text
    return folder / "scans", digests(out), seconds


def start(scans, out, errors=subprocess.STDOUT):
    """The command as the leader of its own process group, at work."""
    command = [sys.executable, "tools/prepare_scannet.py", "--scans", scans, "--out", out, "--workers", "2"]
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=errors, text=True
    )


def wait_for(process, path):
    """The moment at which the command has made `path`, or has ended."""
    while process.poll() is None and not path.exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.002)
    return time.monotonic()


def digests(folder):
    """sha256 of every file below a folder, but for the reports, which hold times."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in REPORTS)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def finished(out, expected):
    """The scenes under their final names with their times, after a check that they are whole."""
    found = {path: digest for path, digest in digests(out).items() if not path.endswith(".tmp")}
    assert found.items() <= expected.items()
    return {path: (out / path).stat().st_mtime_ns for path in found if path.endswith(".safetensors")}


def check_rerun(scans, out, expected):
    """One more run gives the same bytes as one that nothing happened to, and makes nothing twice."""
    done = finished(out, expected)
    process = start(scans, out)
    text = process.communicate()[0]
    assert process.returncode == 0 and f"({SCANS - len(done)} made, {len(done)} kept)" in text, text
    assert digests(out) == expected and verify(out) == []
    assert {path: (out / path).stat().st_mtime_ns for path in done} == done


def workers_of(pid):
    """The processes that the command has started; none where the system does not say."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill(process, victim, dice):
    """kill -9 for the whole group, the parent alone or one worker; what is left must end by itself."""
    workers = workers_of(process.pid)
    with contextlib.suppress(ProcessLookupError):  # a worker may just have ended
        if victim == "group":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(dice.choice(workers) if victim == "worker" and workers else process.pid, signal.SIGKILL)
    try:
        text = process.communicate(timeout=10)[0]  # ends with the last process that could still write
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"{victim} killed, and a process of the command lives on")
    assert "Traceback" not in text, text
    if process.returncode > 0:
        assert process.returncode == 2 and "error: a worker was killed" in text, text
    return process.returncode != 0


@counts(4, 50)
def test_kills_at_random_moments(tmp_path, whole, count):
    scans, expected, seconds = whole
    dice, hits = random.Random(1), 0
    for number in range(count):
        out = tmp_path / f"killed{number // 2}"
        missing = 1 - len(finished(out, expected)) / SCANS
        process = start(scans, out)
        wait_for(process, out)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=dice.random() * seconds * missing)
        hits += kill(process, ("parent", "worker", "group")[number % 3], dice)
        finished(out, expected)
        if number % 2:  # killed twice, then left alone
            (out / ".manifest.json.x1y2.tmp").write_bytes(b"half")
            check_rerun(scans, out, expected)
    print(f"{hits} of {count} kills hit a running command")


def test_content_reaches_the_disk_before_its_name(tmp_path, monkeypatch):
    """No power can be cut here; the order of calls that survives it: file, name, folder."""
    calls = []

    def record(name):
        original = getattr(os, name)

        def call(*arguments):
            calls.append((name, os.stat(arguments[0]).st_ino))
            return original(*arguments)

        monkeypatch.setattr(os, name, call)

    record("fsync")
    record("replace")
    write_atomic(tmp_path / "file", b"content")
    file, folder = (tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino
    assert calls == [("fsync", file), ("replace", file), ("fsync", folder)]


@pytest.fixture
def disk(tmp_path):
    """A folder with a file system of its own in memory, and a function that sets its size in bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size, *options):
        command = ["mount", "-t", "tmpfs", *options, "-o", f"{'remount,' if options else ''}size={size}"]
        return subprocess.run([*command, "tmpfs", folder], capture_output=True, text=True, check=False)

    made = mount(4096) if sys.platform == "linux" else None
    if made is None or made.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {made.stderr.strip() if made else sys.platform}")
    yield folder, lambda size: mount(size, "-o", "remount")
    subprocess.run(["umount", "-l", folder], check=True)


@counts(3, 40)
def test_full_disks(disk, whole, count):
    """The disk is too small, grows twice and is too small again, and then has room."""
    (scans, expected, _), (folder, resize) = whole, disk
    dice = random.Random(0)
    needed = sum((scans.parent / "whole" / path).stat().st_size for path in expected)
    for chain in range(0, count, 3):
        out = folder / "out"
        for size in sorted(dice.randrange(4096, needed) for _ in range(min(3, count - chain))):
            assert resize(size // 4096 * 4096).returncode == 0
            process = start(scans, out, errors=subprocess.PIPE)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 2, errors
            assert re.fullmatch(rf"error: {re.escape(str(out))}\S*: No space left on device\n", errors)
            if out.exists():
                finished(out, expected)
                assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]
        assert resize(4 * needed).returncode == 0
        check_rerun(scans, out, expected)
        for path in sorted(out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_limits_on_the_size_of_files(tmp_path, prepare_scannet, write_scan, share):
    """Stands in for a full disk where none can be mounted: scenes fit, or not even the first."""
    points = np.random.default_rng(0).random((400, 3))
    scans = tmp_path / "scans"
    write_scan(scans / "scene0000_00", points, nyu40=np.ones(400))
    write_scan(scans / "scene0001_00", points[:200], nyu40=np.ones(200))
    (scans / "scannetv2_train.txt").write_text("scene0000_00\nscene0001_00\n")
    assert prepare_scannet("--scans", scans, "--out", tmp_path / "whole", "--workers", 1)[0] == 0
    expected = digests(tmp_path / "whole")
    largest = max((tmp_path / "whole" / path).stat().st_size for path in expected)
    out, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest * share), limits[1]))
    try:
        code, _, errors = prepare_scannet("--scans", scans, "--out", out, "--workers", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2 and not list(out.rglob("*.tmp"))
    assert re.search(
        rf"error: {re.escape(str(out))}/train/scene000\d_00.safetensors: File too large\n", errors
    )
    finished(out, expected)
    assert prepare_scannet("--scans", scans, "--out", out, "--workers", 1)[0] == 0
    assert digests(out) == expected
