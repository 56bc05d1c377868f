"""The tuner: the shipped table, which candidates are refused, what is remembered. No GPU is needed."""

import itertools
import json
from types import SimpleNamespace

import pytest
import torch

from scannet_css.sparse.engines import torch_engine, triton_engine, triton_tuner
from scannet_css.sparse.maps import CoordinateManager

OPTIONS = [{"BLOCK_ROWS": size, "num_warps": 4} for size in (16, 32, 64, 128)]
REFERENCE = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def zeros(x):
    return torch.zeros_like(x)


def nan_everywhere(x):
    return torch.full_like(x, torch.nan)


def one_nan(x):
    x[500, 77] = torch.nan
    return x


def one_wrong_cell(x):
    x[999, 999] = 1 + 2 * x[999, 999]
    return x


def infinite(x):
    x[3, 3] = torch.inf
    return x


@pytest.fixture(autouse=True)
def fresh_cache_of_warnings():
    triton_tuner._warn_once.cache_clear()


def timed(seconds):
    """A timer that takes the seconds of each configuration from a list."""
    return lambda run: seconds[OPTIONS.index(run.args[-1])]


def is_right(result):
    return triton_tuner.agrees(result, REFERENCE, 0.01 + REFERENCE.abs(), 1e-3)


def test_the_fastest_wins(tmp_path):
    memory = triton_tuner.Tuner(tmp_path / "winners.json")
    memory.tune("key", OPTIONS, lambda option: REFERENCE, is_right, timed([3, 1, 2, 4]))
    assert memory.knows("key", OPTIONS)
    assert memory.winner("key") == OPTIONS[1]


@pytest.mark.parametrize("spoil", [zeros, nan_everywhere, one_nan, one_wrong_cell, infinite])
def test_a_wrong_candidate_never_wins(spoil, tmp_path, caplog):
    """However fast it is, and though a single number of a million may be wrong."""
    memory = triton_tuner.Tuner(tmp_path / "winners.json")

    def run(option):
        rounded = REFERENCE.half()
        return spoil(rounded) if option is OPTIONS[2] else rounded

    memory.tune("key", OPTIONS, run, is_right, timed([3, 2, 1e-9, 4]))
    assert memory.winner("key") == OPTIONS[1]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"key: {OPTIONS[2]} gives a wrong result" in caplog.text


def test_the_smallest_half_numbers_are_rounded_coarsely():
    reference = torch.tensor([3.4 * 2**-24], dtype=torch.float64)
    assert triton_tuner.agrees(reference.half(), reference, reference, 1e-3)
    assert not triton_tuner.agrees(5 * reference.half(), reference, reference, 1e-3)


def test_a_candidate_that_cannot_run_is_passed_over(tmp_path):
    def run(option):
        if option is OPTIONS[0]:
            raise RuntimeError("out of resource: shared memory")
        return REFERENCE

    memory = triton_tuner.Tuner(tmp_path / "winners.json")
    memory.tune("key", OPTIONS, run, is_right, timed([1, 3, 2, 4]))
    assert memory.winner("key") == OPTIONS[2]


def test_if_all_are_wrong_there_is_no_winner_and_nothing_on_disk(tmp_path):
    memory = triton_tuner.Tuner(tmp_path / "winners.json")
    memory.tune("key", OPTIONS, lambda option: zeros(REFERENCE), is_right, timed([1, 1, 1, 1]))
    assert memory.knows("key", OPTIONS)
    assert memory.winner("key") is None
    assert not memory.path.exists()


def test_winners_outlive_the_process_and_keep_what_others_wrote(tmp_path):
    path = tmp_path / "folder" / "winners.json"
    one, other = triton_tuner.Tuner(path), triton_tuner.Tuner(path)
    assert not one.knows("a", OPTIONS)
    assert not other.knows("b", OPTIONS)
    one.tune("a", OPTIONS, lambda option: REFERENCE, is_right, timed([1, 2, 3, 4]))
    other.tune("b", OPTIONS, lambda option: REFERENCE, is_right, timed([4, 3, 2, 1]))

    later = triton_tuner.Tuner(path)
    assert later.knows("a", OPTIONS)
    assert later.knows("b", OPTIONS)
    assert [later.winner(key) for key in "ab"] == [OPTIONS[0], OPTIONS[3]]
    assert not later.knows("a", OPTIONS[1:])  # the winner is no candidate any more: find another


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "7", '{"version": 1}', '{"version": 1, "winners": 3}', '{"winners": {}}', "\x00"],
)
def test_a_damaged_file_is_ignored_with_one_warning_and_replaced(content, tmp_path, caplog):
    path = tmp_path / "winners.json"
    path.write_text(content)
    memory = triton_tuner.Tuner(path)
    assert not memory.knows("key", OPTIONS)
    memory.tune("key", OPTIONS, lambda option: REFERENCE, is_right, timed([1, 2, 3, 4]))
    assert len(caplog.records) == 1
    assert f"{path}: ignored, it is damaged" in caplog.text
    assert json.loads(path.read_text()) == {"version": triton_tuner.VERSION, "winners": {"key": OPTIONS[0]}}


def test_rankings_of_another_version_are_discarded(tmp_path, caplog):
    path = tmp_path / "winners.json"
    path.write_text(json.dumps({"version": triton_tuner.VERSION + 1, "winners": {"key": OPTIONS[0]}}))
    assert not triton_tuner.Tuner(path).knows("key", OPTIONS)
    assert not caplog.records


def test_a_cache_folder_that_cannot_be_written_costs_a_warning_only(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    memory = triton_tuner.Tuner(tmp_path / "file" / "winners.json")
    memory.tune("key", OPTIONS, lambda option: REFERENCE, is_right, timed([1, 2, 3, 4]))
    assert memory.winner("key") == OPTIONS[0]
    assert "cannot be written" in caplog.text


def test_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    triton_tuner.user_tuner.cache_clear()
    assert triton_tuner.user_tuner().path == tmp_path / "scannet_css" / "triton.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    triton_tuner.user_tuner.cache_clear()
    assert triton_tuner.user_tuner().path == tmp_path / "home/.cache/scannet_css/triton.json"
    triton_tuner.user_tuner.cache_clear()


def test_tuning_is_off_by_default_and_in_deterministic_mode(monkeypatch):
    monkeypatch.delenv(triton_tuner.VARIABLE, raising=False)
    assert not triton_tuner.is_tuning()
    monkeypatch.setenv(triton_tuner.VARIABLE, "1")
    assert triton_tuner.is_tuning()
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not triton_tuner.is_tuning()


@pytest.mark.parametrize("operation", ["convolve", "weight_gradient"])
@pytest.mark.parametrize("precision", ["half", "tf32", "ieee"])
def test_the_shipped_table_has_an_answer_for_everything(operation, precision):
    entries = triton_tuner.shipped_table()[operation][precision]
    assert len(entries) <= 8
    assert list(entries[-1]) == ["config"]
    chosen = []
    for rows, inputs, outputs in itertools.product(
        (1, 10**5), (1, 16, 32, 64, 96, 192), (1, 32, 64, 96, 512)
    ):
        problem = triton_tuner.Problem(operation, precision, rows, inputs, outputs, 27, torch.float16)
        entry = next(each for each in entries if each["config"] == triton_tuner.shipped(problem))
        assert rows <= entry.get("rows", rows)
        assert inputs <= entry.get("in_channels", inputs)
        assert outputs <= entry.get("out_channels", outputs)
        assert inputs % entry.get("multiple", 1) == 0
        chosen.append(entry["config"])
    assert all(entry["config"] in chosen for entry in entries)


def test_keys_tell_apart_what_may_run_differently():
    problem = triton_tuner.Problem("convolve", "half", 100_000, 32, 96, 27, torch.bfloat16)
    key = problem.key("sm90/triton3.9.0")
    assert key == "convolve/half/bfloat16/rows2^17/32x96/27/sm90/triton3.9.0"


class Experiment:
    """A convolution on the CPU that tunes as on a GPU: its kernels are stood in for by the plain engine."""

    def __init__(self, monkeypatch, tmp_path):
        cells = torch.cartesian_prod(torch.tensor([0]), *[torch.arange(6)] * 3)
        self.map = CoordinateManager(cells).map(1, 3, 1)
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(216, 8, generator=generator).half()
        self.kernel = torch.randn(27, 8, 9, generator=generator).half()
        self.gradient = torch.randn(216, 9, generator=generator).half()
        self.spoiled, self.runs = [], []
        self.memory = triton_tuner.Tuner(tmp_path / "winners.json")
        monkeypatch.setattr(triton_engine, "triton", SimpleNamespace(__version__="0"))
        monkeypatch.setattr(triton_engine, "_is_interpreted", lambda: False)
        monkeypatch.setattr(triton_engine, "_convolve", self.convolve)
        monkeypatch.setattr(triton_engine, "_sum_over_pairs", self.sum_over_pairs)
        monkeypatch.setattr(triton_tuner, "is_tuning", lambda: True)
        monkeypatch.setattr(triton_tuner, "user_tuner", lambda: self.memory)
        monkeypatch.setattr(triton_tuner, "seconds_on_gpu", self.seconds)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))

    def convolve(self, features, kernel, kernel_map, configuration, *finish):
        self.runs.append(configuration)
        out = torch_engine.convolve(features.float(), kernel.float(), kernel_map, *finish).half()
        if configuration in self.spoiled:
            out[200, 5] += 2
        return out

    def sum_over_pairs(self, features, gradient, kernel_map, configuration):
        self.runs.append(configuration)
        operands = features.double(), self.kernel.double(), gradient.double()
        total = torch_engine.gradients(*operands, kernel_map, False, True)[1].float()
        if configuration in self.spoiled:
            total[13] = 0
        return total

    def seconds(self, run):
        """The last candidates are the fastest."""
        return -self.runs.index(run.args[-1])


@pytest.fixture
def experiment(monkeypatch, tmp_path):
    return Experiment(monkeypatch, tmp_path)


@pytest.mark.parametrize("wrong", [0, 2])
def test_the_engine_runs_the_fastest_right_candidate(wrong, experiment):
    options = triton_tuner.candidates("convolve", "half")
    experiment.spoiled = options[len(options) - wrong :]
    expected = experiment.convolve(experiment.features, experiment.kernel, experiment.map, None)
    for _ in range(2):
        experiment.runs = []
        out = triton_engine.convolve(experiment.features, experiment.kernel, experiment.map)
        assert torch.equal(out, expected)
        assert experiment.runs[-1] == options[len(options) - wrong - 1]
    assert len(experiment.runs) == 1


@pytest.mark.parametrize("wrong", [0, 2])
def test_the_kernels_gradient_runs_the_fastest_right_candidate(wrong, experiment):
    options = triton_tuner.candidates("weight_gradient", "half")
    experiment.spoiled = options[len(options) - wrong :]
    operands = experiment.features, experiment.kernel, experiment.gradient, experiment.map
    for _ in range(2):
        experiment.runs = []
        triton_engine.gradients(*operands, False, True)
        assert experiment.runs[-1] == options[len(options) - wrong - 1]
    assert len(experiment.runs) == 1


def test_if_every_candidate_is_wrong_the_plain_engine_runs(experiment):
    experiment.spoiled = triton_tuner.candidates("convolve", "half") + triton_tuner.candidates(
        "weight_gradient", "half"
    )
    operands = experiment.features, experiment.kernel
    out = triton_engine.convolve(*operands, experiment.map, relu=True)
    assert torch.equal(out, torch_engine.convolve(*operands, experiment.map, relu=True))
    _, total = triton_engine.gradients(*operands, experiment.gradient, experiment.map, False, True)
    doubles = (x.double() for x in (*operands, experiment.gradient))
    exact = torch_engine.gradients(*doubles, experiment.map, False, True)[1]
    assert (total - exact).abs().max() <= 1e-5 * exact.abs().max()


def test_a_large_gradient_of_the_kernel_is_tuned_on(experiment):
    """It is float32: what half precision cannot hold is no overflow."""
    experiment.features *= 5000
    experiment.gradient *= 5000
    operands = experiment.features, experiment.kernel, experiment.gradient, experiment.map
    _, total = triton_engine.gradients(*operands, False, True)
    assert total.abs().max() > 1e6
    assert experiment.memory.path.exists()


def test_a_step_that_overflows_is_not_tuned_on(experiment):
    experiment.features[0] = 60000
    triton_engine.convolve(experiment.features, experiment.kernel, experiment.map)
    assert len(experiment.runs) == 1
    assert not experiment.memory.path.exists()
