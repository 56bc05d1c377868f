"""verify: every kind of harm to a prepared data set is found, and a good one is left in peace."""

import json
import random
import shutil

import pytest

from scannet_css.errors import InputError
from scannet_css.files import write_json
from scannet_css.scenes.store import load_manifest, load_scene, read_header, save_scene
from scannet_css.scenes.verify_prepared import verify


@pytest.fixture
def prepared(small_set, tmp_path):
    """A copy of the small set, and its scene files."""
    shutil.copytree(small_set, tmp_path / "prepared")
    manifest = load_manifest(tmp_path / "prepared")
    return tmp_path / "prepared", [manifest.path(entry) for entry in manifest.scenes.values()]


def test_a_good_set(prepared):
    folder, paths = prepared
    assert len(paths) == 14 and verify(folder) == [] and verify(folder, workers=3) == []


def test_one_flipped_byte_in_each_of_a_hundred_scenes(prepared):
    folder, paths = prepared
    dice = random.Random(0)
    for number in range(100):
        path = paths[number % len(paths)]
        good = path.read_bytes()
        at = dice.randrange(len(good))
        path.write_bytes(good[:at] + bytes([good[at] ^ dice.randrange(1, 256)]) + good[at + 1 :])
        (line,) = verify(folder)
        assert line.startswith(f"{path}: damaged, its sha256 is ")
        path.write_bytes(good)
    assert verify(folder) == []


def test_all_at_once(prepared):
    folder, paths = prepared
    paths[0].unlink()
    paths[1].write_bytes(b"")
    paths[2].unlink()
    paths[2].mkdir()
    (folder / "notes\n\x1b[31m.txt").write_text("mine")
    (folder / "train" / "scene9999_00.safetensors").write_bytes(b"")
    (folder / "old").mkdir()
    (folder / "val" / f".{paths[3].name}.x1y2.tmp").write_bytes(b"half")
    for report in ("report.json", "report.html"):
        (folder / report).write_text("")
    missing, damaged, *found = verify(folder)
    assert missing == f"{paths[0]}: missing"
    assert damaged.startswith(f"{paths[1]}: damaged, its sha256 is e3b0c44298fc, the manifest says ")
    foreign = "does not belong here, it is not in manifest.json"
    assert found == [
        f"{paths[2]}: Is a directory",
        f"{folder}/notes\\n\\x1b[31m.txt: {foreign}",
        f"{folder}/old: {foreign}",
        f"{folder}/train/scene9999_00.safetensors: {foreign}",
        f"{folder}/val/.{paths[3].name}.x1y2.tmp: temporary file of a killed run; "
        "the next preparation removes it",
    ]


def edited(folder, change):
    """The findings after a change to the content of the manifest."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)
    return verify(folder)


def test_a_manifest_that_was_edited(prepared):
    folder, paths = prepared
    name = paths[0].stem

    def count(content):
        entry = content["scenes"][name]
        entry["ignored"] += entry["class_counts"][0]
        entry["class_counts"][0] = 0

    original = (folder / "manifest.json").read_text()
    assert edited(folder, count) == [
        f"{paths[0]}: its header disagrees with the manifest; was manifest.json edited?"
    ]
    (folder / "manifest.json").write_text(original)
    assert edited(folder, lambda c: c["scenes"][name].update(sha256="0" * 64))[0].endswith(
        "the manifest says 000000000000"
    )
    (folder / "manifest.json").write_text(original)
    for change, reason in (
        (lambda c: c["scenes"][name].update(content="0" * 64), "its scenes do not match its hash"),
        (lambda c: c["scenes"].pop(name), "its scenes do not match its hash"),
        (lambda c: c.update(voxel_size=0.1), "its scenes do not match its hash"),
        (lambda c: c.update(format=0), "format 0; expected the manifest"),
        (lambda c: c["scenes"][name].update(file="/etc/passwd"), "unexpected split or file"),
    ):
        (line,) = edited(folder, change)
        assert line.startswith(f"{folder / 'manifest.json'}: ") and reason in line
        (folder / "manifest.json").write_text(original)
    (folder / "manifest.json").unlink()
    (line,) = verify(folder)
    assert "no prepared data set here" in line


def test_a_scene_that_was_exchanged_together_with_its_checksum(prepared):
    folder, paths = prepared
    scene, header = load_scene(paths[0]), read_header(paths[0])
    scene.points[0] += 1
    checksum = save_scene(paths[0], scene, header)
    assert edited(folder, lambda c: c["scenes"][paths[0].stem].update(sha256=checksum)) == [
        f"{paths[0]}: its tensors are not those of the manifest; was manifest.json edited?"
    ]


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder; expected a prepared data set"):
        verify(tmp_path / "nowhere")


def test_the_command(prepared, prepare_scannet):
    folder, paths = prepared
    assert prepare_scannet("--verify", folder) == (0, f"{folder}: all scenes are whole\n", "")
    paths[0].unlink()
    (folder / "notes.txt").write_text("mine")
    code, text, errors = prepare_scannet("--verify", folder)
    assert (code, text.splitlines(), errors) == (1, [*verify(folder), f"{folder}: 2 problems"], "")
    code, text, errors = prepare_scannet("--verify", folder / "nowhere")
    assert (code, text) == (2, "") and errors.startswith(f"error: {folder}/nowhere: no such folder")
