"""Records for the tests of the results, and commands run in this process."""

import runpy
from pathlib import Path
from typing import NamedTuple

import pytest
from made_records import make_value

from scannet_css.errors import run_command
from scannet_css.results.record import Record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def value():
    """`value(method=..., seed=..., ...)` gives a record's JSON value, see make_value."""
    return make_value


@pytest.fixture
def record():
    """The same as a Record."""
    return lambda **options: Record.from_json(make_value(**options))


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys, monkeypatch):
    """`run(folder, script, *arguments)`: a command as if started in `folder`, in this process."""

    def in_folder(folder: Path, script: str, *arguments: object) -> Done:
        monkeypatch.chdir(folder)
        code = run_command(runpy.run_path(str(ROOT / script))["main"], [str(one) for one in arguments])
        return Done(code, *capsys.readouterr())

    return in_folder
