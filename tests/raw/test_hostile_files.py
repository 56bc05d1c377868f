"""Names chosen to hurt: nothing is written outside the output folder, nothing steers the terminal."""

import dataclasses
import os
import shutil

import pytest

from scannet_css.errors import InputError
from scannet_css.raw.readers import reader_for
from scannet_css.scenes.prepare import prepare

GOOD = "scene0000_00"
NAMES = [
    "..",
    "../scene0001_00",
    "../../../../tmp/scene0001_00",
    "scene0001_00/../../scene0001_00",
    "scene0001_00/",
    "/tmp/scene0001_00",
    "/",
    "~",
    "~/scene0001_00",
    "./scene0001_00",
    "C:\\scene0001_00",
    "..\\scene0001_00",
    "\\\\host\\share",
    "scene0001_00\0",
    "scene0001_00\0.ply",
    "scene0001_00\x1b[2J",
    "\x1b]0;title\x07scene0001_00",
    "scene0001_00\x08\x08\x08\x08",
    "scene0001_00\x9b31m",
    "scene0001_00\u202efdp.exe",
    "\u2066scene0001_00\u2069",
    "scene0001_00\u200b",
    "scene\u0660\u0660\u0660\u0661_00",
    "\uff53cene0001_00",
    "sc\u0435ne0001_00",
    "Scene0001_00",
    "scene0001_00 scene0002_00",
    "-rf",
    "$(touch pwned)",
    "`touch pwned`",
    "CON",
    "NUL.txt",
    ".hidden",
    "*",
    "scene0001_00" * 30,
    "=1+1",
    "<script>alert(1)</script>",
    "%s%n",
    "scene0001_000",
]


def listing(folder):
    """Every path below a folder with its content."""
    return {p: p.read_bytes() if p.is_file() and not p.is_symlink() else None for p in folder.rglob("*")}


@pytest.fixture
def scans(tmp_path, write_scan):
    """A folder with one good scan of four vertices."""
    folder = tmp_path / "scans"
    write_scan(folder / GOOD, [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 2]], nyu40=[1, 2, 3, 4])
    (folder / "scannetv2_train.txt").write_text(GOOD + "\n")
    return folder


@pytest.fixture
def run_tool(prepare_scannet):
    """Runs the command; gives exit code and output, which must hold no control characters."""

    def run(scans, out):
        code, text, errors = prepare_scannet("--scans", scans, "--out", out, "--workers", 1)
        # split at line feeds only: splitlines would hide other line ends
        assert all(line.isprintable() for line in (text + errors).split("\n")), text + errors
        assert "Traceback" not in errors
        return code, text, errors

    return run


@pytest.mark.parametrize("name", NAMES)
def test_in_a_split_list(tmp_path, scans, run_tool, name):
    (scans / "scannetv2_train.txt").write_bytes(f"{GOOD}\n{name}\n".encode())
    before = listing(tmp_path)
    code, text, errors = run_tool(scans, tmp_path / "out")
    assert code == 2 and text == "" and errors.startswith("error: ") and errors.count("\n") == 1
    assert "scannetv2_train.txt:2: " in errors and len(errors) < 1000
    assert listing(tmp_path) == before


@pytest.mark.parametrize("line", ["\x85", "\u2028", "\x0b", "\x1c", "\r", "\ufeff", "\xa0", " " * 10000])
def test_odd_spaces_in_a_split_list(tmp_path, scans, run_tool, line):
    """Read as blank, or refused in one line; never part of a name."""
    (scans / "scannetv2_train.txt").write_bytes(f"{GOOD}\n{line}\n".encode())
    code, _, errors = run_tool(scans, tmp_path / "out")
    assert code in (0, 2) and errors.count("\n") == (code == 2)


@pytest.mark.parametrize("content", [b"\xff\xfe" + GOOD.encode("utf-16-le"), b"\x80" * 50, b"\0" * 1000])
def test_lists_that_are_no_text(tmp_path, scans, run_tool, content):
    (scans / "scannetv2_train.txt").write_bytes(content)
    code, _, errors = run_tool(scans, tmp_path / "out")
    assert code == 2 and "scannetv2_train.txt:1: " in errors and not (tmp_path / "out").exists()


def test_a_very_long_line(tmp_path, scans, run_tool):
    (scans / "scannetv2_train.txt").write_text("\u202e" * 1_000_000)
    code, _, errors = run_tool(scans, tmp_path / "out")
    assert code == 2 and "scannetv2_train.txt:1: " in errors and len(errors) < 1100


def test_as_folders(tmp_path, scans, run_tool):
    """Folders that are not named like scans are no scans."""
    places = [scans / name for name in NAMES if "/" not in name and "\0" not in name and len(name) < 255]
    for place in places[1:]:  # but for ".."
        shutil.copytree(scans / GOOD, place)
    shutil.copytree(scans / GOOD, scans / "scene0001_00\n")
    before = listing(tmp_path)
    code, text, errors = run_tool(scans, tmp_path / "out")
    assert code == 0 and "1 scans (1 made, 0 kept)" in text, errors
    made = {path for path in listing(tmp_path) if path not in before}
    assert all(path.is_relative_to(tmp_path / "out") for path in made)
    assert [path.name for path in made if path.suffix == ".safetensors"] == [f"{GOOD}.safetensors"]


@dataclasses.dataclass
class Renaming:
    """Another reader's scans, the first under another name."""

    reader: object
    name: str

    def __getattr__(self, key):
        if key.startswith("__"):
            raise AttributeError(key)
        return getattr(self.reader, key)

    def find(self):
        found = self.reader.find()
        return dataclasses.replace(found, sources=[dataclasses.replace(found.sources[0], name=self.name)])


@pytest.mark.parametrize("name", NAMES)
def test_from_another_reader(tmp_path, scans, name):
    """A reader may find any name; what cannot be a file's name in the output folder is refused."""
    reader = Renaming(reader_for(scans), name)
    before = listing(tmp_path)
    plain = name.isascii() and name.replace("_", "").isalnum() and len(name) <= 64
    if plain or name == "NUL.txt":
        assert list(prepare(reader, tmp_path / "out").manifest.scenes) == [name]
        assert all(p.is_relative_to(tmp_path / "out") for p in listing(tmp_path) if p not in before)
    else:
        with pytest.raises(InputError):
            prepare(reader, tmp_path / "out")
        assert listing(tmp_path) == before


@pytest.mark.parametrize("where", ["train", "train/scene0000_00.safetensors", "manifest.json"])
def test_links_in_the_output(tmp_path, scans, run_tool, where):
    """A link in the output folder that points elsewhere is refused or replaced, never written through."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".mine.tmp").write_text("keep")
    (outside / "file").write_text("keep")
    link = tmp_path / "out" / where
    link.parent.mkdir(parents=True)
    link.symlink_to(outside if where == "train" else outside / "file")
    code, _, errors = run_tool(scans, tmp_path / "out")
    assert code == 0 or (code == 2 and errors.startswith(f"error: {link}: "))
    assert listing(outside) == {outside / ".mine.tmp": b"keep", outside / "file": b"keep"}


def test_a_link_to_nowhere(tmp_path, scans, run_tool):
    """Among the raw files and among the scans."""
    mesh = scans / GOOD / f"{GOOD}_vh_clean_2.ply"
    mesh.unlink()
    mesh.symlink_to(tmp_path / "nothing")
    (scans / "scene0001_00").symlink_to(scans)
    code, text, errors = run_tool(scans, tmp_path / "out")
    assert code == 1 and f"{GOOD}: {mesh}: no such file\n" in text + errors


@pytest.mark.parametrize("suffix", ["_vh_clean_2.ply", "_vh_clean_2.labels.ply", ".aggregation.json"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_files_without_an_end(tmp_path, scans, run_tool, suffix, kind):
    path = scans / GOOD / f"{GOOD}{suffix}"
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    code, text, errors = run_tool(scans, tmp_path / "out")
    assert code == 1 and f"{GOOD}: {path}: a pipe or a device; expected a file\n" in text + errors


def test_scenes_whose_scan_went(tmp_path, scans, run_tool):
    """What lies in the output folder is named in the report, whatever it is called."""
    assert run_tool(scans, tmp_path / "out")[0] == 0
    scene = tmp_path / "out" / "train" / f"{GOOD}.safetensors"
    shutil.copy(scene, scene.with_name("\x1b[2J\u202e\n.safetensors"))
    code, text, _ = run_tool(scans, tmp_path / "out")
    assert code == 0 and "\\x1b[2J\\u202e\\n.safetensors" in text
