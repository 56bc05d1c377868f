"""Metrics against hand-computed cases, a slow loop reference, and properties."""

import numpy as np
import pytest
import torch

from scannet_css.metrics import METRICS, accumulate, class_ious, summarise


def slow_ious(matrix) -> list[float | None]:
    result = []
    for channel in range(len(matrix)):
        hit = matrix[channel][channel]
        missed = sum(matrix[channel]) - hit
        wrong = sum(row[channel] for row in matrix) - hit
        result.append(100 * hit / (hit + missed + wrong) if hit + missed + wrong else None)
    return result


def slow_mean(values) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def slow_summary(confusions, base: int) -> dict[str, float | None]:
    steps = [slow_ious(matrix) for matrix in confusions]
    last = steps[-1]
    old, new = slow_mean(last[1 : base + 1]), slow_mean(last[base + 1 :])
    hiou = None
    if old is not None and new is not None:
        hiou = 2 / (1 / old + 1 / new) if old and new else 0.0
    drops = []
    for channel in range(1, len(steps[-2]) if len(steps) > 1 else 0):
        before = [step[channel] for step in steps[:-1] if len(step) > channel and step[channel] is not None]
        if before and last[channel] is not None:
            drops.append(max(before) - last[channel])
    return {
        "bg": last[0],
        "old": old,
        "new": new,
        "all": slow_mean(last[1:]),
        "all_with_bg": slow_mean(last),
        "average": slow_mean([slow_mean(step[1:]) for step in steps]),
        "hiou": hiou,
        "forgetting": slow_mean(drops),
    }


def random_confusions(generator, sizes, empty: int = 0) -> list[np.ndarray]:
    confusions = [generator.integers(0, 50, (size, size)) for size in sizes]
    for channel in generator.choice(sizes[-1], size=empty, replace=False):
        for matrix in confusions:
            if channel < len(matrix):
                matrix[channel, :] = matrix[:, channel] = 0
    return confusions


def test_hand_computed_two_steps():
    first = [[8, 2, 0], [1, 6, 1], [0, 0, 4]]  # IoU 8/11, 6/10, 4/5
    second = [[4, 0, 0, 4], [2, 3, 0, 3], [0, 0, 2, 2], [0, 0, 0, 10]]  # 4/10, 3/8, 2/4, 10/19
    result = summarise([first, second])
    old, new = 100 * (3 / 8 + 1 / 2) / 2, 100 * 10 / 19
    assert result == pytest.approx(
        {
            "bg": 40.0,
            "old": old,
            "new": new,
            "all": 100 * (3 / 8 + 1 / 2 + 10 / 19) / 3,
            "all_with_bg": 100 * (4 / 10 + 3 / 8 + 1 / 2 + 10 / 19) / 4,
            "average": 100 * ((6 / 10 + 4 / 5) / 2 + (3 / 8 + 1 / 2 + 10 / 19) / 3) / 2,
            "hiou": 2 * old * new / (old + new),
            "forgetting": 100 * ((6 / 10 - 3 / 8) + (4 / 5 - 1 / 2)) / 2,
        }
    )
    assert tuple(result) == tuple(METRICS)


def test_forgetting_takes_the_best_earlier_step_and_counts_classes_of_middle_steps():
    # class 1: 0.5, 1.0, 0.25; class 2, learnt at step 1: 1.0, 0.5; class 3 is new and not counted
    first = [[0, 0], [2, 2]]
    second = [[0, 0, 0], [0, 4, 0], [0, 0, 4]]
    third = [[0, 0, 0, 0], [3, 1, 0, 0], [2, 0, 2, 0], [0, 0, 0, 4]]
    assert summarise([first, second, third])["forgetting"] == pytest.approx(100 * (0.75 + 0.5) / 2)


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_the_slow_reference(seed):
    generator = np.random.default_rng(seed)
    sizes = np.cumsum(generator.integers(1, 5, generator.integers(1, 5))) + 1
    confusions = random_confusions(generator, sizes.tolist(), empty=int(generator.integers(0, 3)))
    base = int(sizes[0]) - 1 if seed % 2 else int(generator.integers(1, sizes[-1]))
    result = summarise(confusions, base_classes=base)
    expected = slow_summary([matrix.tolist() for matrix in confusions], base)
    assert {name for name, value in result.items() if value is None} == {
        name for name, value in expected.items() if value is None
    }
    for name, value in expected.items():
        assert result[name] == (None if value is None else pytest.approx(value, abs=1e-9))


@pytest.mark.parametrize("seed", range(5))
def test_order_of_classes_within_a_step_changes_nothing(seed):
    generator = np.random.default_rng(seed)
    confusions = random_confusions(generator, [4, 7, 9], empty=1)
    order = [
        0,
        *(1 + generator.permutation(3)),
        *(4 + generator.permutation(3)),
        *(7 + generator.permutation(2)),
    ]
    permuted = [matrix[np.ix_(order[: len(matrix)], order[: len(matrix)])] for matrix in confusions]
    assert summarise(permuted) == pytest.approx(summarise(confusions))


@pytest.mark.parametrize("seed", range(5))
def test_old_and_new_weighted_by_their_classes_give_all(seed):
    confusions = random_confusions(np.random.default_rng(seed), [6, 9])
    result = summarise(confusions)
    assert 5 * result["old"] + 3 * result["new"] == pytest.approx(8 * result["all"])
    assert result["bg"] + 8 * result["all"] == pytest.approx(9 * result["all_with_bg"])
    assert min(result["old"], result["new"]) <= result["hiou"] <= (result["old"] + result["new"]) / 2


def test_a_class_that_never_occurs_is_left_out_and_a_predicted_one_counts_as_zero():
    absent = [[5, 0, 0], [0, 5, 0], [0, 0, 0]]
    predicted = [[5, 0, 5], [0, 5, 0], [0, 0, 0]]
    assert summarise([absent])["all"] == 100.0
    assert summarise([predicted])["all"] == 50.0
    assert np.isnan(class_ious(absent)[2]) and class_ious(predicted)[2] == 0


def test_single_step_has_no_new_classes_unless_told_how_many_are_old():
    matrix = np.diag([4, 4, 4, 4])
    matrix[3, 1] = 4
    alone = summarise([matrix])
    assert (alone["new"], alone["hiou"], alone["forgetting"]) == (None, None, None)
    joint = summarise([matrix], base_classes=2)
    assert joint["old"] == pytest.approx(75.0) and joint["new"] == pytest.approx(50.0)
    assert joint["hiou"] == pytest.approx(60.0) and joint["forgetting"] is None


def test_nothing_to_compute_from_is_none_and_total_failure_is_zero():
    assert set(summarise([np.zeros((3, 3), dtype=int)]).values()) == {None}
    assert summarise([[[0, 0], [0, 5]], [[0, 0, 0], [0, 0, 5], [0, 5, 0]]])["hiou"] == 0.0
    no_background = [[0, 0], [0, 5]]
    assert summarise([no_background])["bg"] is None and summarise([no_background])["all_with_bg"] == 100.0


def test_tensors_arrays_and_lists_give_the_same():
    matrices = random_confusions(np.random.default_rng(0), [3, 5])
    expected = summarise(matrices)
    assert summarise([torch.tensor(matrix) for matrix in matrices]) == expected
    assert summarise([matrix.tolist() for matrix in matrices]) == expected


@pytest.mark.parametrize(
    ("confusions", "base", "message"),
    [
        ([], None, "at least one step"),
        ([np.eye(4, dtype=int), np.eye(3, dtype=int)], None, "no shrinking"),
        ([np.ones((2, 3), dtype=int)], None, "square integer"),
        ([np.eye(3)], None, "square integer"),
        ([[[1, -1], [0, 1]]], None, "counts points, got -1"),
        ([np.eye(3, dtype=int)], 3, "base_classes is 3, expected 0..2"),
    ],
)
def test_what_is_no_sequence_of_confusion_matrices_is_refused(confusions, base, message):
    with pytest.raises(ValueError, match=message):
        summarise(confusions, base)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_accumulate_counts_every_labelled_point_once(dtype):
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 6, (5000,), generator=generator)
    truth[::7] = 255
    prediction = torch.randint(0, 6, (5000,), generator=generator)
    expected = np.zeros((6, 6), dtype=np.int64)
    for t, p in zip(truth.tolist(), prediction.tolist(), strict=True):
        if t != 255:
            expected[t, p] += 1
    whole = accumulate(None, truth.to(dtype), prediction.to(dtype), 6)
    assert whole.dtype == torch.int64 and whole.tolist() == expected.tolist()
    parts = None
    for begin in range(0, 5000, 999):
        part = slice(begin, begin + 999)
        parts = accumulate(parts, truth[part].to(dtype), prediction[part].to(dtype), 6)
    assert torch.equal(parts, whole)


def test_accumulate_of_nothing_and_of_strange_channels():
    nothing = torch.tensor([], dtype=torch.uint8)
    assert accumulate(None, nothing, nothing, 3).tolist() == [[0] * 3] * 3
    with pytest.raises(ValueError, match=r"truth holds 0..3, expected 0..2"):
        accumulate(None, torch.tensor([0, 3]), torch.tensor([0, 0]), 3)
    with pytest.raises(ValueError, match=r"prediction holds -1..2"):
        accumulate(None, torch.tensor([0, 1]), torch.tensor([2, -1]), 3)
    with pytest.raises(ValueError, match="expected the same"):
        accumulate(None, torch.tensor([0, 1]), torch.tensor([1]), 3)
