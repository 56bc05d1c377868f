"""What the matrices of several steps tell beyond the summary, by hand-computed cases and properties."""

import numpy as np
import pytest

from scannet_css.metrics import (
    METRICS,
    backward_transfer,
    class_ious,
    curves,
    intransigence,
    iou_table,
    summarise,
)

# Three steps that can be checked by hand.
FIRST = [[8, 2, 0], [1, 6, 1], [0, 0, 4]]  # IoU 8/11, 6/10, 4/5
SECOND = [[4, 0, 0, 4], [2, 3, 0, 3], [0, 0, 2, 2], [0, 0, 0, 10]]  # 4/10, 3/8, 2/4, 10/19
THIRD = [  # 8/9, 3/8, 4/4, 5/10, 0/1
    [8, 0, 0, 0, 1],
    [0, 3, 0, 5, 0],
    [0, 0, 4, 0, 0],
    [0, 0, 0, 5, 0],
    [0, 0, 0, 0, 0],
]


def test_iou_table_has_a_row_per_step_and_nothing_before_a_class_arrives():
    table = iou_table([FIRST, SECOND, THIRD])
    nan = float("nan")
    expected = [
        [800 / 11, 60, 80, nan, nan],
        [40, 37.5, 50, 1000 / 19, nan],
        [800 / 9, 37.5, 100, 50, 0],
    ]
    assert table.dtype == np.float64
    assert table == pytest.approx(np.array(expected), nan_ok=True)
    never = np.zeros((3, 3), dtype=int)
    never[1, 1] = 4
    assert iou_table([never]) == pytest.approx(np.array([[nan, 100, nan]]), nan_ok=True)


def test_curves_are_the_summaries_of_every_prefix():
    found = curves([FIRST, SECOND, THIRD])
    assert tuple(found) == tuple(METRICS)
    assert found["bg"] == pytest.approx([800 / 11, 40, 800 / 9])
    assert found["old"] == pytest.approx([70, 43.75, 68.75])
    assert found["new"] == [None, pytest.approx(1000 / 19), pytest.approx(25)]
    assert found["all"] == pytest.approx([70, (37.5 + 50 + 1000 / 19) / 3, (37.5 + 100 + 50) / 4])
    assert found["average"][1] == pytest.approx((70 + found["all"][1]) / 2)
    assert found["forgetting"] == [
        None,
        pytest.approx((22.5 + 30) / 2),
        pytest.approx((22.5 - 20 + 50 / 19) / 3),
    ]
    last = summarise([FIRST, SECOND, THIRD])
    assert {name: values[-1] for name, values in found.items()} == last
    joint = curves([THIRD], base_classes=2)
    assert joint == {name: [value] for name, value in summarise([THIRD], base_classes=2).items()}


def test_curves_with_more_old_classes_than_step_0_brings():
    found = curves([FIRST, SECOND, THIRD], base_classes=3)
    assert found["old"][:2] == pytest.approx([70, (37.5 + 50 + 1000 / 19) / 3])
    assert found["new"] == [None, None, pytest.approx(0)]
    with pytest.raises(ValueError, match="base_classes is 5, expected 0..4"):
        curves([FIRST, THIRD], base_classes=5)


def test_backward_transfer_is_last_less_when_learnt_over_classes():
    changes = [37.5 - 60, 100 - 80, 50 - 1000 / 19]  # class 4 comes with the last step and is not counted
    assert backward_transfer([FIRST, SECOND, THIRD]) == pytest.approx(sum(changes) / 3)
    assert backward_transfer([FIRST, SECOND]) == pytest.approx((-22.5 - 30) / 2)
    assert backward_transfer([FIRST]) is None
    nothing = np.zeros((3, 3), dtype=int)
    assert backward_transfer([nothing, np.zeros((4, 4), dtype=int)]) is None


def test_a_class_may_be_better_than_when_learnt_and_worse_than_at_its_best():
    worse = np.diag([0, 3, 3, 3])
    worse[1, 0] = 1  # class 1: 50, 100, 75
    steps = [[[0, 0], [5, 5]], np.diag([0, 4, 4]), worse]
    assert backward_transfer(steps) == pytest.approx((25 + 0) / 2)
    assert summarise(steps)["forgetting"] == pytest.approx((25 + 0) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_of_two_steps_backward_transfer_is_forgetting_with_the_other_sign(seed):
    generator = np.random.default_rng(seed)
    confusions = [generator.integers(0, 50, (size, size)) for size in (5, 8)]
    assert backward_transfer(confusions) == pytest.approx(-summarise(confusions)["forgetting"])


def test_intransigence_compares_each_steps_classes_right_after_it():
    joint = np.diag([5, 5, 5, 9, 4])
    joint[3, 0] = 1  # class 3: 90; class 4: 100
    expected = ((90 - 1000 / 19) + (100 - 0)) / 2
    assert intransigence([FIRST, SECOND, THIRD], joint) == pytest.approx(expected)
    assert intransigence([FIRST], np.diag([1, 1, 1])) is None
    # two classes come with step 1: they count half each, and step 1 as much as step 2
    wide = np.diag([1, 1, 2, 2])
    wide[2, 0], wide[3, 0] = 2, 6  # classes 2 and 3: 50, 25
    steps = [np.diag([1, 1]), wide, np.diag([1, 1, 1, 1, 1])]
    assert intransigence(steps, np.diag([1, 1, 1, 1, 1])) == pytest.approx((62.5 + 0) / 2)


def test_intransigence_leaves_out_what_neither_can_be_computed_for():
    absent = np.diag([1, 1, 0, 1])
    assert intransigence([np.diag([1, 1]), absent], np.diag([1, 1, 0, 1])) == 0
    last = np.diag([1, 1, 1, 0])
    assert intransigence([last[:3, :3], last], last) is None
    with pytest.raises(ValueError, match="joint has 3 channels, expected 4 as after the last step"):
        intransigence([np.diag([1, 1]), absent], np.diag([1, 1, 1]))


def test_merging_later_classes_into_the_background_leaves_a_class_its_iou():
    """Why the joint run's matrix, which tells all classes apart, is a fair reference for an earlier step."""
    joint = np.random.default_rng(0).integers(0, 50, (7, 7))
    merged = joint[:4, :4].copy()
    merged[0, 0] += joint[4:, 4:].sum() + joint[0, 4:].sum() + joint[4:, 0].sum()
    merged[1:, 0] += joint[1:4, 4:].sum(axis=1)
    merged[0, 1:] += joint[4:, 1:4].sum(axis=0)
    assert merged.sum() == joint.sum()
    assert class_ious(merged)[1:] == pytest.approx(class_ious(joint)[1:4], abs=0)
