"""Runs as DataFrames, and a metric that is added in one place."""

import subprocess
import sys
from pathlib import Path

import pytest

from scannet_css.errors import InputError
from scannet_css.files import write_json
from scannet_css.leaderboard import dataframe, dataframe_of_steps
from scannet_css.leaderboard.rows import make_rows
from scannet_css.metrics import METRICS, curves

ROOT = Path(__file__).parents[2]


def test_a_line_for_each_run_with_its_numbers(record):
    records = [record(method=name, seed=seed) for name in ("lgkd", "lwf", "joint") for seed in (0, 1)]
    frame = dataframe(records)
    assert len(frame) == 6 and list(frame["seed"]) == [0, 1] * 3
    for one, (_, line) in zip(records, frame.iterrows(), strict=True):
        assert (line["method"], line["protocol"], line["dataset"]) == (
            one.method.name,
            "small/3-2",
            "synthetic",
        )
        for name, value in one.metrics().items():
            assert (
                line[name] == pytest.approx(value, nan_ok=True)
                if value is not None
                else line[name] != line[name]
            )
        assert line["voxel_all"] == one.metrics("voxels")["all"]
    assert all(frame[name].dtype == "float64" for name in (*METRICS, "voxel_all"))
    assert frame[frame["is_joint"]]["forgetting"].isna().all()


def test_grouping_over_seeds_gives_what_the_leaderboard_says(record):
    records = [record(method=name, seed=seed) for name in ("lgkd", "lwf") for seed in (0, 1, 2)]
    found = dataframe(records).groupby("method")[list(METRICS)].agg(["mean", "std"])
    for row in make_rows(records, {}):
        for name in METRICS:
            assert tuple(found.loc[row.method, name]) == pytest.approx(row.values[name])


def test_a_line_for_each_step_is_what_the_run_would_have_said_there(record):
    run, joint = record(), record(method="joint")
    frame = dataframe_of_steps([run, joint])
    assert list(frame["step"]) == [0, 1, 1] and list(frame["method"]) == ["lgkd", "lgkd", "joint"]
    expected = curves([step.confusion.vertices for step in run.steps])
    for name in METRICS:
        assert list(frame[name][:2]) == pytest.approx(
            [float("nan") if value is None else value for value in expected[name]], nan_ok=True
        )
    assert frame["new"][2] == joint.metrics()["new"]


def test_folders_are_read_and_what_is_broken_or_missing_is_an_error(value, tmp_path):
    for seed in (0, 1):
        write_json(tmp_path / f"run{seed}" / "record.json", value(seed=seed))
    assert sorted(dataframe(tmp_path)["seed"]) == [0, 1]
    assert len(dataframe([tmp_path / "run0", tmp_path / "run1" / "record.json"])) == 2
    write_json(tmp_path / "run2" / "record.json", {**value(), "seed": "x"})
    with pytest.raises(InputError, match="record.json: seed is 'x': expected an integer"):
        dataframe(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        dataframe(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no records"):
        dataframe(tmp_path / "empty")


ONE_MORE = """
from scannet_css import metrics
def difference(ious):
    return None if ious.new is None else ious.old - ious.new
about = "old less new; small is good"
gap = metrics.Metric("gap", about, difference, "low", -100.0, metrics.NEW_CLASSES, decimals=2)
metrics.METRICS["gap"] = gap

import baselines
from scannet_css.errors import InputError
from scannet_css.leaderboard import dataframe, dataframe_of_steps
from scannet_css.leaderboard.html import render_tables_page
from scannet_css.leaderboard.reported import COLUMNS, check_line, read_lines
from scannet_css.leaderboard.sections import build_sections
from scannet_css.leaderboard.site_data import section_data
from scannet_css.leaderboard.text import render_csv, render_latex, render_markdown
from scannet_css.records.record import Record
from tests.leaderboard.test_reported import good, to_csv
from tests.records.made_records import make_value

records = [Record.from_json(make_value(method=name, new=new)) for name, new in (("a", 0.3), ("b", 0.5))]
high, low = (one.metrics()["gap"] for one in records)
assert low == records[1].metrics()["old"] - records[1].metrics()["new"] < high
(section,) = sections = build_sections(records)
lines = render_csv(sections).splitlines()
place = lines[0].split(",").index("gap")
assert lines[0].split(",")[place + 1] == "gap_std" and f",{low:.2f}," in lines[1] + lines[2]
text = render_markdown(sections)
assert "| gap " in text and f"| **{low:.2f}**" in text and f"| {high:.2f}" in text
text = render_latex(sections)
assert "& gap &" in text and f"\\\\textbf{{$-${-low:.2f}}}" in text
page = render_tables_page(sections)
assert "<dt>gap:</dt> <dd>old less new; small is good</dd>" in page and f"<b>{low:.2f}</b>" in page
assert 'data-column="gap" data-low="1"' in page
data = section_data(section)
assert "gap" in data["metrics"] and sorted(row["curves"]["gap"][-1][0] for row in data["rows"]) == [low, high]
assert sorted(dataframe(records)["gap"]) == [low, high] and "gap" in dataframe_of_steps(records)

row = check_line(*read_lines(to_csv(good(gap="-40.00", gap_std="1.00"), columns=COLUMNS)))
assert row.values["gap"] == (-40, 1)
for changes, message in (
    ({"gap": "-100.5", "gap_std": "1.00"}, "gap is '-100.5': expected percent from -100 to 100"),
    ({"gap": "", "gap_std": ""}, "gap is '': expected a number in scannet/s0-15-5"),
    ({"gap": "40.00", "gap_std": ""}, "gap_std is '': expected a deviation"),
):
    try:
        check_line(*read_lines(to_csv(good(**changes), columns=COLUMNS)))
    except InputError as error:
        assert message in str(error), error
    else:
        raise AssertionError(changes)
print("every table has it")
"""


def test_a_metric_that_is_added_to_the_table_stands_everywhere():
    done = subprocess.run(
        [sys.executable, "-c", ONE_MORE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "every table has it\n", done.stderr
