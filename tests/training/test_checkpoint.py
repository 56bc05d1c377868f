"""Checkpoints: damage is noticed, the one before is used, and loading runs no code."""

import os
import pickle
import random
import re
from pathlib import Path

import pytest
import torch

from scannet_css.errors import InputError
from scannet_css.training.checkpoint import Checkpoints, load_checkpoint, save_checkpoint

FOLDERS = ("scannet_css", "baselines", "benchmarks", "tools")


def content(seed):
    random_values = torch.Generator().manual_seed(seed)
    return {
        "network": {"weight": torch.randn(40, 30, generator=random_values), "count": torch.tensor(7)},
        "progress": {"epochs": seed, "sums": {"ce": 0.5}, "none": None},
        "list": [1, 2.5, "three", (4, True)],
    }


def assert_equal(first, second):
    assert torch.equal(first["network"]["weight"], second["network"]["weight"])
    assert first["network"]["count"] == second["network"]["count"]
    assert {k: first[k] for k in ("progress", "list")} == {k: second[k] for k in ("progress", "list")}


def test_what_is_saved_is_loaded(tmp_path):
    save_checkpoint(tmp_path / "a.pt", content(3))
    assert_equal(load_checkpoint(tmp_path / "a.pt"), content(3))
    save_checkpoint(tmp_path / "b.pt", content(3))
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_every_damage_is_noticed(tmp_path):
    """200 files: a flipped bit anywhere, or cut off anywhere."""
    path, dice = tmp_path / "a.pt", random.Random(0)
    save_checkpoint(path, content(0))
    whole = path.read_bytes()
    for number in range(200):
        place = dice.randrange(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :]
        path.write_bytes(flipped if number % 2 else whole[:place])
        with pytest.raises(InputError) as caught:
            load_checkpoint(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_checkpoint_of_another_format_says_so(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, content(0))
    path.write_bytes(path.read_bytes().replace(b"checkpoint 1\n", b"checkpoint 9\n", 1))
    with pytest.raises(InputError, match="checkpoint of format 9, expected 1"):
        load_checkpoint(path)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("has_our_header", [False, True])
def test_loading_runs_no_code(tmp_path, has_our_header, monkeypatch):
    made, path = tmp_path / "made", tmp_path / "a.pt"
    if has_our_header:
        save_checkpoint(path, {"network": Hostile(made)})
    else:
        path.write_bytes(pickle.dumps({"network": Hostile(made)}))
    with pytest.raises(InputError):
        load_checkpoint(path)
    assert not made.exists()


def test_the_newest_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    for iteration in (0, 5, 12, 100):
        checkpoints.save(iteration, content(iteration))
    assert [path.name for path in checkpoints.paths()] == [
        "checkpoint-000000012.pt",
        "checkpoint-000000100.pt",
    ]
    assert_equal(checkpoints.load(), content(100))
    checkpoints.keep(1)
    assert [path.name for path in checkpoints.paths()] == ["checkpoint-000000100.pt"]
    checkpoints.keep(0)
    assert checkpoints.paths() == []


def test_a_damaged_newest_one_gives_way_to_the_one_before_it(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    for iteration in (5, 12):
        checkpoints.save(iteration, content(iteration))
    older, newest = checkpoints.paths()
    newest.write_bytes(newest.read_bytes()[:-1])
    assert_equal(checkpoints.load(), content(5))
    (warning,) = caplog.messages
    assert warning == (
        f"warning: {newest}: damaged (its sha256 is not the one it was written with); going on from the one"
        " before it"
    )
    assert not newest.exists()
    older.write_bytes(b"")
    with pytest.raises(InputError, match="and there is none before it; remove it to train again"):
        checkpoints.load()


def test_nothing_is_loaded_in_a_way_that_can_run_code():
    root = Path(__file__).parents[2]
    unsafe = re.compile(
        r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|pickle\.load|yaml\.load\b|\beval\("
    )
    sources = [path for folder in FOLDERS for path in (root / folder).rglob("*.py")]
    assert len(sources) > 80
    assert [str(path) for path in sources if unsafe.search(path.read_text().replace(".eval(", ""))] == []
    loads = [path.name for path in sources if "torch.load(" in path.read_text()]
    assert sorted(loads) == ["checkpoint.py", "weights.py"]
