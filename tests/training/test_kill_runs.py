"""The real command, killed at random moments and at chosen ones: what it ends with is, to the bit, what a run
that nobody killed ends with.

The normal run kills a few methods a few times; `make test-deep` kills every method that does more than
compute a loss, 50 times at random and at every point.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

import baselines  # noqa: F401  registers the methods
from scannet_css.methods.method import Method, find_method, method_names
from tests.training.killed_at import POINTS
from tests.training.real_run import ROOT

DRIVER = ROOT / "tests" / "training" / "killed_at.py"
# A point that a run comes to only if its method looks at scenes before or after a step
LOOKING = "a method finds something out"
# Their `begin` and `end` go over no scenes.
WITHOUT_A_LOOK = ("rcil", "lgkd+rcil", "pi", "rw", "replay", "ewf", "lgkd+ewf", "mib-augm", "ssul-m", "eir")
HOOKS = ("begin", "end", "adapt", "updated", "predict")
# One for each mechanism: none, sums before a step, exchanged modules, what every update adds up.
FEW = ("finetune", "lgkd+plop3d", "rcil", "rw")


def does_more_than_a_loss(name):
    method = find_method(name)
    is_ours = method.__module__.startswith("baselines.")  # other tests make methods too
    return is_ours and any(getattr(method, hook) is not getattr(Method, hook) for hook in HOOKS)


METHODS = [*FEW, *(name for name in method_names() if does_more_than_a_loss(name) and name not in FEW)]


def each_method(normally):
    """Those of the normal run, and in the deep one all."""
    return pytest.mark.parametrize(
        "method", [pytest.param(name, marks=() if name in normally else pytest.mark.deep) for name in METHODS]
    )


def counts(few, many):
    """The number of kills: few in the normal run, many in the deep one."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.deep)])


@counts(2, 50)
@each_method(FEW)
def test_random_kills(method, count, command, whole):
    """Several kills of one run, each somewhere in what a whole run takes; when it is done, the next one."""
    expected, seconds = whole(method)
    dice, one = random.Random(f"{method} {count}"), command(method)
    killed = 0
    while killed < count:
        process = one.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # start-up is a third of it; chains of kills shall get through
            process.wait(dice.uniform(0.3, 1) * seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
        assert process.returncode in (0, -signal.SIGKILL)
        assert one.is_at_most_one_iteration_behind()
        if process.returncode == 0:
            assert one.state() == expected
            one = command(method)
    code, errors = one.finish()
    assert code == 0, errors
    assert one.state() == expected


def comes_to(name, point):
    method = find_method(name)
    looks = method.begin is not Method.begin or method.end is not Method.end
    return point != LOOKING or (looks and name not in WITHOUT_A_LOOK)


@each_method(["lgkd+plop3d"])
def test_kills_at_chosen_points(method, command, whole):
    """One run that is killed at every point in turn, as early as it comes there."""
    one = command(method)
    points = [point for point in POINTS if comes_to(method, point)]
    for point in points:
        code, errors = one.finish(DRIVER, point, 1, "--")
        assert code == -signal.SIGKILL, (point, errors)
        assert one.is_at_most_one_iteration_behind(), point
    code, errors = one.finish()
    assert code == 0, errors
    assert one.state() == whole(method)[0]


def test_a_killed_worker_stops_the_run_in_one_line(command, whole):
    """As the system does where memory is short."""
    one = command("finetune")
    process = one.start(options=("--workers", 2))
    workers = []
    while process.poll() is None and not workers:
        time.sleep(0.001)
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            is_at_work = one.runs.exists() and list(one.runs.rglob("metrics.jsonl"))
            workers = [int(child) for child in children] if is_at_work else []
    os.kill(workers[-1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    if process.returncode:  # else it had done its work
        assert process.returncode == 2
        # torch's loader, lost while it starts, complains of itself when it is deleted
        assert "Traceback" not in errors or "Exception ignored in" in errors
        assert [line for line in errors.splitlines() if line.startswith("error: DataLoader worker (pid")]
        assert one.finish()[0] == 0
    assert one.state() == whole("finetune")[0]


def test_a_state_that_lacks_something_is_noticed(command, whole, tmp_path):
    """The test of the tests: momentum that is forgotten on resume changes what the run ends with."""
    one = command("finetune")
    assert one.finish(DRIVER, "weights are about to move", 3, "--")[0] == -signal.SIGKILL
    forgetful = tmp_path / "forgetful.py"
    forgetful.write_text(
        "import sys, torch\n"
        f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
        "import run\n"
        "torch.optim.Optimizer.load_state_dict = lambda self, state: None\n"
        "sys.exit(run.run_command(run.main, sys.argv[1:]))\n"
    )
    assert one.finish(forgetful)[0] == 0
    assert one.state() != whole("finetune")[0]
