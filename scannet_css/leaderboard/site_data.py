"""Sections of the leaderboard -> what the page's charts draw, as JSON.

Every metric is computed here with scannet_css/metrics.py; the page itself only draws, and turns counts into
shares of a row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scannet_css.leaderboard.rows import Row, mean_and_deviation
from scannet_css.leaderboard.sections import Section
from scannet_css.metrics import METRICS, class_ious

MOST_COUNTS = 1_500_000  # of the confusion matrices of one section, about 3 MB


def section_data(section: Section) -> dict[str, Any]:
    """What the charts of a section need; rows without records have no charts.

    Steps count from 0. For every row: `curves[metric][step]` is [mean, deviation] over seeds, `ious[step]`
    one value per channel, `confusions[seed][step]` the counts of (C, C) row by row. A joint run stands at
    the last step only. Absent numbers are null.
    """
    scope = _scope(section.rows)
    return {
        "title": section.title,
        "steps": section.steps,
        "metrics": list(METRICS),
        "rows": [
            {"index": index, **_row_data(section, row, *scope)} for index, row in enumerate(section.rows)
        ],
    }


def _row_data(section: Section, row: Row, only_first_seed: bool, only_last_step: bool) -> dict[str, Any]:
    last = len(section.steps) - 1
    positions = [last] if row.is_joint else list(range(last + 1))
    runs = [one.curves() for one in row.records]
    return {
        "label": section.label(row),
        "method": row.method,
        "reference": row.is_joint,
        "runs": len(row.records),
        "curves": {metric: _placed(positions, _pairs([run[metric] for run in runs])) for metric in METRICS},
        "ious": _placed(positions, [_mean_ious(row, position) for position in range(len(positions))]),
        "confusions": {
            one.seed: {
                position: sum(step.confusion.vertices, [])
                for position, step in zip(positions, one.steps, strict=True)
                if position == last or not only_last_step
            }
            for one in (row.records[:1] if only_first_seed else row.records)
        },
    }


def _placed(positions: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """`values` at their steps, null before."""
    return [None] * positions[0] + list(values)


def _pairs(runs: Sequence[Sequence[float | None]]) -> list[tuple[float | None, float | None]]:
    """(mean, deviation) over runs at each step."""
    return [mean_and_deviation(values) for values in zip(*runs, strict=True)]


def _mean_ious(row: Row, step: int) -> list[float | None]:
    """Percent for every channel, mean over seeds; null if a seed lacks the class."""
    ious = np.mean([100 * class_ious(one.steps[step].confusion.vertices) for one in row.records], axis=0)
    return [None if np.isnan(iou) else round(float(iou), 4) for iou in ious]


def _scope(rows: Sequence[Row]) -> tuple[bool, bool]:
    """Whether only the first seed, and only the last step, of each row's confusion matrices fit the page."""
    per_row = [[len(step.classes) ** 2 for step in row.first.steps] for row in rows]
    for only_first_seed, only_last_step in ((False, False), (True, False)):
        counts = sum(
            sum(sizes) * (1 if only_first_seed else len(row.records))
            for sizes, row in zip(per_row, rows, strict=True)
        )
        if counts <= MOST_COUNTS:
            return only_first_seed, only_last_step
    return True, True
