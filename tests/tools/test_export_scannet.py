"""tools/export_scannet.py as a user calls it: the official format, kills, and what is refused."""

import io
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from scannet_css.classes import NYU40_IDS
from scannet_css.errors import InputError
from scannet_css.files import locked
from scannet_css.raw.benchmark_zip import TEST_LIST, as_lines, check, pack, read_list
from scannet_css.scenes import load_manifest
from scannet_css.training.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tool(load_tool):
    return load_tool("export_scannet")


@pytest.fixture
def export(tool, call):
    return lambda *arguments: call(tool, *arguments)


@pytest.fixture
def names(trained, tmp_path):
    """A list of the validation scenes in the place of the hidden test set's."""
    path = tmp_path / "scannetv2_test.txt"
    path.write_text("\n".join(reversed(trained.names)) + "\n\n")
    return path


def contents(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.mark.parametrize(("method", "step"), [("lwf", 1), ("cfsseg", 1), ("lwf", 0)])
def test_the_zip_holds_a_text_per_scan_with_what_the_run_predicted(
    export, trained, names, tmp_path, method, step
):
    out, run = tmp_path / "new" / "submission.zip", trained.runs[method]
    fixed = ("--checkpoint", run, "--step", step, "--list", names)
    code, said, error = export(*fixed, "--data", trained.data, "--out", out)
    assert code == 0, error
    found = contents(out)
    assert list(found) == [f"{name}.txt" for name in trained.names]  # sorted, at the root
    entries = load_manifest(trained.data).scenes
    for name in trained.names:
        ids = [int(line) for line in found[f"{name}.txt"].splitlines()]
        assert len(ids) == entries[name].vertices and found[f"{name}.txt"].endswith("\n")
        assert ids == trained.stored(run, step, name).tolist()
        assert set(ids) <= {0, *NYU40_IDS}
    assert ("have id 0, which counts as wrong" in said) == (step == 0)
    assert [path.name for path in out.parent.iterdir()] == ["submission.zip"]

    whole = out.read_bytes()
    out.unlink()
    code, _, error = export(*fixed, "--scans", trained.scans, "--out", out)
    assert code == 0, error
    assert out.read_bytes() == whole


KILLED = """
import os, runpy, signal, sys
last, done, replace = int(sys.argv[1]), 0, os.replace
def counted(*names):
    global done
    done += 1
    if done == last:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*names)
os.replace = counted
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(("renames", "done"), [(3, 2), (6, 4)])
def test_a_killed_export_goes_on_where_it_was(export, trained, names, tmp_path, renames, done):
    """Killed while the third scan, or the zip, was written but had not got its name yet."""
    out = tmp_path / "out" / "submission.zip"
    arguments = ("--checkpoint", trained.runs["lwf"], "--data", trained.data, "--list", names, "--out", out)
    script = ("-c", KILLED, renames, "tools/export_scannet.py")
    command = [sys.executable, *map(str, (*script, *arguments))]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    (work,) = (path for path in out.parent.iterdir() if path.is_dir())
    assert len(list(work.glob("*.txt"))) == done
    code, said, error = export(*arguments)
    assert code == 0, error
    assert f"{done} of 4 scans are done already" in said
    other = tmp_path / "other.zip"
    assert export(*arguments[:-1], other)[0] == 0
    assert out.read_bytes() == other.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["submission.zip"]


def test_another_network_does_not_take_over_what_is_there(export, trained, names, tmp_path):
    """A work folder belongs to one network and one set of scans."""
    out = tmp_path / "out" / "submission.zip"
    fixed = ("--data", trained.data, "--list", names, "--out", out)
    digests = set()
    for method in trained.runs:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zipfile.ZipFile", None)  # ends before the zip
            with pytest.raises(TypeError):
                export("--checkpoint", trained.runs[method], *fixed)
        digests |= {path.name for path in out.parent.iterdir()}
    assert len(digests) == 2 and all(name.startswith("submission.zip.work-") for name in digests)


def test_two_at_once_are_refused(export, trained, names, tmp_path):
    out = tmp_path / "out" / "submission.zip"
    arguments = ("--checkpoint", trained.runs["lwf"], "--data", trained.data, "--list", names, "--out", out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zipfile.ZipFile", None)
        with pytest.raises(TypeError):
            export(*arguments)
    (work,) = out.parent.iterdir()
    with locked(work, lambda holder: pytest.fail(holder)):
        code, _, error = export(*arguments)
    assert code == 2 and "is at work on the same submission" in error and not out.exists()


@pytest.fixture
def wrong(trained, names, tmp_path):
    """Checkpoints, lists and scans that are not what they should be."""
    finished = trained.runs["lwf"] / "step1" / "finished.pt"
    content = load_checkpoint(finished)
    about = content["about"]
    other = {
        key: ["rock" if name == "wall" else name for name in about[key]] for key in ("classes", "channels")
    }
    save_checkpoint(tmp_path / "rock.pt", {**content, "about": {**about, **other}})
    save_checkpoint(tmp_path / "fine.pt", {**content, "about": {**about, "voxel_size": 0.02}})
    text = names.read_text()
    (tmp_path / "missing.txt").write_text(f"scene0707_00\n{text}")
    (tmp_path / "twice.txt").write_text(f"{text}{trained.names[1]}\n")
    (tmp_path / "words.txt").write_text("walls and floors\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "folder.zip").mkdir()
    for name in trained.names:
        (tmp_path / "scans" / name).mkdir(parents=True)
        mesh = trained.scan(name)
        cut = mesh.read_bytes()[: -1 if name == trained.names[2] else None]
        (tmp_path / "scans" / name / mesh.name).write_bytes(cut)
    (tmp_path / "some" / trained.names[0]).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--checkpoint": "rock.pt"}, "rock.pt: learnt 20 classes of synthetic; expected ScanNet's 20"),
        ({"--checkpoint": "fine.pt"}, "voxels of 0.15 m, but the network learnt on 0.02 m"),
        ({"--checkpoint": "words.txt"}, "words.txt: not a checkpoint of this suite"),
        (
            {"--list": "missing.txt"},
            "of the list's 5 scans scene0707_00 is not there; the benchmark takes all",
        ),
        ({"--list": None}, "of the list's 100 scans scene0707_00 and 99 more are not there"),
        ({"--list": "missing.txt", "--scans": "scans"}, "scans: of the list's 5 scans scene0707_00 is not"),
        ({"--scans": "some"}, "some: of the list's 4 scans scene5000_00 and 3 more are not there"),
        ({"--scans": "folder.zip"}, "folder.zip: no scans here"),
        ({"--scans": "scans"}, "scene5002_00_vh_clean_2.ply: "),
        ({"--list": "twice.txt"}, "twice.txt: scene5001_00 is listed 2 times"),
        ({"--list": "words.txt"}, "words.txt: 'walls and floors'; expected a name like scene0707_00"),
        ({"--list": "empty.txt"}, "empty.txt: lists no scan"),
        ({"--list": "none.txt"}, "none.txt: no such file; expected a list of scans"),
        ({"--list": "rock.pt"}, "rock.pt: not a text file"),
        ({"--out": "folder.zip"}, "folder.zip: a folder; expected the file to write"),
        ({"--out": "out.tar"}, "out.tar: not a .zip; expected the file to write"),
        ({"--data": "some"}, "manifest.json: no prepared data set here"),
    ],
)
def test_bad_input_is_one_line(export, trained, names, wrong, changes, message):
    options = {"--checkpoint": trained.runs["lwf"], "--data": trained.data, "--list": names}
    options["--out"] = wrong / "out" / "submission.zip"
    if "--scans" in changes:
        options.pop("--data")
    options |= {key: value and wrong / value for key, value in changes.items()}
    code, _, error = export(*(word for pair in options.items() if pair[1] for word in pair))
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert not list(wrong.rglob("submission.zip")) and not list(wrong.rglob(".*.tmp"))


def test_a_damaged_scan_leaves_the_finished_ones(export, trained, names, wrong):
    out = wrong / "out" / "submission.zip"
    arguments = (
        "--checkpoint",
        trained.runs["lwf"],
        "--scans",
        wrong / "scans",
        "--list",
        names,
        "--out",
        out,
    )
    assert export(*arguments)[0] == 2
    (work,) = out.parent.iterdir()
    assert sorted(path.name for path in work.glob("*.txt")) == [f"{n}.txt" for n in trained.names[:2]]


def test_the_official_list_is_that_of_the_hundred_test_scans():
    names = read_list(TEST_LIST)
    assert len(names) == 100 and (names[0], names[-1]) == ("scene0707_00", "scene0806_00")


def test_a_zip_is_checked_before_it_gets_its_name(tmp_path):
    ids = {"scene0707_00": np.array([1, 39, 0], np.uint16), "scene0708_00": np.array([5], np.uint16)}
    texts = {name: tmp_path / f"{name}.txt" for name in ids}
    for name, path in texts.items():
        path.write_text(as_lines(ids[name]))
    content, vertices = pack(texts), {"scene0707_00": 3, "scene0708_00": 1}
    assert check(content, vertices) == {1: 1, 39: 1, 0: 1, 5: 1}
    assert pack(dict(reversed(texts.items()))) == content
    for entry in zipfile.ZipFile(io.BytesIO(content)).infolist():
        assert entry.date_time == (1980, 1, 1, 0, 0, 0) and entry.compress_type == zipfile.ZIP_DEFLATED
    with pytest.raises(InputError, match="scene0707_00: 3 lines, but the scan has 4 vertices"):
        check(content, {**vertices, "scene0707_00": 4})
    with pytest.raises(InputError, match="2 files, expected 3, one for each scan"):
        check(content, {**vertices, "scene0709_00": 1})
    for wrong in ("13\n", "1", "x\n", "01\n", "1 \n"):
        texts["scene0708_00"].write_text(wrong)
        with pytest.raises(InputError, match="scene0708_00: 0 lines|id b'(13|x|01|1 )', expected"):
            check(pack(texts), vertices)
