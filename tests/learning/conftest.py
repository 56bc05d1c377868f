"""The real command on the small set, and what it leaves when nothing happens to it."""

import time

import pytest
from real_run import Command


@pytest.fixture(scope="session")
def command(small_set, three_steps, tmp_path_factory):
    """`command(method)`: the command in a folder of runs of its own."""
    made = []

    def make(method):
        made.append(Command(method, small_set, three_steps, tmp_path_factory.mktemp("runs") / "runs"))
        return made[-1]

    yield make
    for one in made:
        one.clear_up()


@pytest.fixture(scope="session")
def whole(command):
    """`whole(method)`: state and seconds of a run that nobody killed."""
    known = {}

    def run(method):
        if method not in known:
            one = command(method)
            started = time.monotonic()
            code, errors = one.finish()
            assert code == 0, errors
            known[method] = one.state(), time.monotonic() - started
        return known[method]

    return run
