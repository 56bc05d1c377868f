"""Runs as pandas DataFrames, for notebooks and plots of one's own. docs/metrics.md describes the columns."""

import json
from collections.abc import Iterable
from pathlib import Path

from pandas import DataFrame

from scannet_css.errors import InputError
from scannet_css.leaderboard.rows import VALUES, values_of
from scannet_css.leaderboard.sections import read_records
from scannet_css.metrics import METRICS
from scannet_css.records.record import Record


def dataframe(sources: str | Path | Iterable[str | Path | Record]) -> DataFrame:
    """A line for each run: what was run, and its numbers in percent (float64, NaN where there is none).

    `sources`: records, and files or folders of them. Nothing is left out or averaged: group by what shall be
    one, such as ["dataset", "protocol", "method", "settings"] over the seeds. Raises InputError for a path
    that does not exist and for a record that cannot be read.
    """
    return DataFrame([{**_facts(one), **values_of(one)} for one in _records(sources)]).astype(_NUMBERS)


def dataframe_of_steps(sources: str | Path | Iterable[str | Path | Record]) -> DataFrame:
    """A line for each run and step: the numbers as if the run had ended there, see `Record.curves`. Otherwise
    as `dataframe`, with the column `step` (from 0; that of the last where a joint run has one only)."""
    lines = []
    for one in _records(sources):
        found = one.curves()
        first = len(one.protocol.steps) - len(one.steps)
        for index in range(len(one.steps)):
            numbers = {name: values[index] for name, values in found.items()}
            lines.append({**_facts(one), "step": first + index, **numbers})
    return DataFrame(lines).astype(_STEP_NUMBERS)


def _records(sources: str | Path | Iterable[str | Path | Record]) -> list[Record]:
    sources = [sources] if isinstance(sources, (str, Path)) else list(sources)
    given = [one for one in sources if isinstance(one, Record)]
    read, problems = read_records(one for one in sources if not isinstance(one, Record))
    if problems:
        raise InputError(problems[0])
    if not given and not read:
        raise InputError(f"{', '.join(map(str, sources)) or 'nothing given'}: no records, expected some")
    return given + read


def _facts(record: Record) -> dict:
    return {
        "dataset": record.data.dataset,
        "manifest": record.data.manifest_hash,
        "protocol": record.protocol.name,
        "method": record.method.name,
        "settings": json.dumps(record.method.settings, sort_keys=True),
        "network": record.network.name,
        "seed": record.seed,
        "is_joint": record.is_joint,
        "hours": sum(step.seconds for step in record.steps) / 3600,
        "device": record.environment.device,
        "name": record.entry.name if record.entry else "",
    }


_STEP_NUMBERS = dict.fromkeys(METRICS, float)  # None becomes NaN
_NUMBERS = dict.fromkeys(VALUES, float)
