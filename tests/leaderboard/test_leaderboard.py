"""Records -> rows -> CSV, Markdown and page, and the commands as a user runs them."""

import csv
import io
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import pytest

from scannet_css.files import write_json
from scannet_css.leaderboard.html import render_tables_page
from scannet_css.leaderboard.published import read_published
from scannet_css.leaderboard.reported import COLUMNS
from scannet_css.leaderboard.rows import mean_and_deviation
from scannet_css.leaderboard.sections import build_sections, read_records
from scannet_css.leaderboard.site import render_site
from scannet_css.leaderboard.text import render_csv, render_latex, render_markdown
from scannet_css.metrics import METRICS
from scannet_css.records.record import Record

ROOT = Path(__file__).parents[2]


def rows_of(records) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_csv(build_sections(records)))))


def store(folder: Path, *values: dict) -> list[str]:
    paths = [folder / "runs" / f"run{index}" / "record.json" for index in range(len(values))]
    for path, content in zip(paths, values, strict=True):
        write_json(path, content)
    return [str(path) for path in paths]


def test_mean_and_unbiased_deviation_over_seeds(record):
    records = [record(method="mine", seed=seed) for seed in (2, 0, 1)]
    (row,) = rows_of(records)
    for metric in METRICS:
        values = [one.metrics()[metric] for one in records]
        assert row[metric] == f"{mean(values):.2f}" and row[f"{metric}_std"] == f"{stdev(values):.2f}"
    assert row["voxel_all"] == f"{mean(one.metrics('voxels')['all'] for one in records):.2f}"
    assert (row["n"], row["hours"], row["peak_memory"]) == ("3", f"{123 / 3600:.2f}", "")
    assert row["status"] == "self-reported" and row["orders"] == "1"
    assert row["flags"] == "not verified: its validation split is not registered"
    assert tuple(row) == COLUMNS


def test_a_missing_value_is_a_missing_cell_never_a_partial_mean(value, record):
    assert mean_and_deviation([1.0, None, 3.0]) == (None, None)
    assert mean_and_deviation([5.0]) == (5.0, None)
    gap = value(seed=1, steps=[["wall", "floor"]])
    matrix = gap["steps"][0]["confusion"]["vertices"]
    matrix[0] = [0] * len(matrix)
    for line in matrix:
        line[0] = 0
    row = rows_of([record(seed=0, steps=[["wall", "floor"]]), Record.from_json(gap)])[0]
    assert row["bg"] == row["bg_std"] == "" and row["n"] == "2"
    assert row["all"] != "" and row["all_std"] != ""
    single = rows_of([record(method="joint")])[0]
    assert single["forgetting"] == "" and single["new"] != "" and single["new_std"] == ""


def test_data_sets_protocols_settings_networks_and_recipes_never_mix(value):
    def changed(*path_and_new):
        *path, new = path_and_new
        one = value()
        target = one
        for name in path[:-1]:
            target = target[name]
        target[path[-1]] = new
        return one

    variants = [
        value(),
        changed("data", "dataset", "scannet"),
        changed("data", "manifest_hash", "00" * 32),
        changed("data", "voxel_size", 0.02),
        changed("protocol", "hash", "11" * 32),
        changed("protocol", "name", "scannet/other"),
        changed("method", "settings", {"novel_weight": 20.0}),
        changed("network", "name", "minkunet34c"),
        changed("recipe", "learning_rate", 0.2),
    ]
    sections = build_sections([Record.from_json(one) for one in variants])
    assert len(sections) == 6 and sum(len(section.rows) for section in sections) == len(variants)
    assert all(len(row.records) == 1 for section in sections for row in section.rows)
    labels = {section.label(row) for section in sections for row in section.rows}
    assert {"lgkd (learning_rate 0.2)", "lgkd (learning_rate 0.1, novel_weight 20.0)"} <= labels


def test_a_seed_twice_counts_once_or_is_flagged(record):
    first, same, other = record(seed=0), record(seed=0), record(seed=0, old=0.2)
    same.created = "2027-01-01T00:00:00Z"
    (row,) = rows_of([first, same])
    assert row["n"] == "1" and "different runs" not in row["flags"]
    other.created = "2026-12-24T00:00:00Z"
    (row,) = rows_of([other, first])
    assert row["n"] == "1" and row["old"] == f"{other.metrics()['old']:.2f}"
    assert row["flags"].startswith("seed 0 has 2 different runs, the newest is used")
    assert "lgkd: seed 0 has 2 different runs" in render_markdown(build_sections([first, other]))


def test_output_does_not_depend_on_the_order_of_records(record):
    records = [record(method=name, seed=seed) for name in ("lwf", "lgkd", "joint") for seed in (0, 1)]
    forward, backward = build_sections(records), build_sections(records[::-1])
    assert render_csv(forward) == render_csv(backward)
    assert render_markdown(forward) == render_markdown(backward)
    assert render_tables_page(forward) == render_tables_page(backward)
    assert render_site(forward) == render_site(backward)


def test_markdown_sorts_by_all_puts_joint_last_and_marks_the_best(record):
    old = {"finetune": 0.1, "lgkd": 0.7, "lwf": 0.5, "joint": 0.9}
    records = [record(method=name, old=share, seed=seed) for name, share in old.items() for seed in (0, 1)]
    text = render_markdown(build_sections(records))
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]
    head, table = lines[0], lines[2:]
    assert [line[0] for line in table] == [
        "lgkd",
        "lwf",
        "finetune",
        "*trained on all classes at once:*",
        "joint",
    ]
    assert {len(line) for line in lines} == {len(head)}
    for column, best in (("old", max), ("all", max), ("average", max), ("forgetting", min)):
        cells = [line[head.index(column)] for line in table[:3]]
        shown = [float(cell.strip("*").split(" ")[0]) for cell in cells]
        assert [cell.startswith("**") for cell in cells] == [value == best(shown) for value in shown]
        assert not table[4][head.index(column)].startswith("*")
    values = [one.metrics()["all"] for one in records if one.method.name == "lwf"]
    assert table[1][head.index("all")] == f"{mean(values):.1f} ± {stdev(values):.1f}"
    assert "±" not in render_markdown(build_sections(records[::2])).split("n seeds")[1]


def test_csv_is_rfc_4180_and_no_text_cell_starts_a_formula(record):
    text = render_csv(build_sections([record(settings={"a": "b, c", "scales": [1, 2]})]))
    assert text.endswith("\r\n") and text.count("\n") == text.count("\r\n") == 2
    row = next(csv.DictReader(io.StringIO(text)))
    assert row["settings"] == '{"a":"b, c","scales":[1,2]}'
    assert not [name for name, cell in row.items() if name != "forgetting" and cell[:1] in tuple("=+-@\t")]


def test_records_are_found_in_folders_and_files(value, tmp_path):
    store(tmp_path, value(seed=0), value(seed=1))
    write_json(tmp_path / "runs" / "run0" / "settings.json", {"not": "a record"})
    write_json(tmp_path / "mine.json", value(seed=2))
    records, problems = read_records([tmp_path, tmp_path / "mine.json"])
    assert sorted(one.seed for one in records) == [0, 1, 2, 2] and problems == []


def test_command_renders_the_good_and_names_the_broken(run, value, tmp_path):
    store(tmp_path, value(seed=0), value(method="lwf"), {**value(), "seed": "x"})
    done = run(tmp_path, "benchmarks/leaderboard.py")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: runs/run2/record.json: seed is 'x': expected an integer"]
    assert "| lgkd " in done.stdout and "| lwf " in done.stdout
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "index.html",
        "leaderboard.csv",
        "leaderboard.md",
        "leaderboard.tex",
    ]
    assert len((tmp_path / "results" / "leaderboard.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "runs, benchmarks/records, benchmarks/reported: no records found"),
        (("nowhere",), "nowhere: no such file or folder"),
    ],
)
def test_command_without_records_says_so_and_writes_nothing(run, tmp_path, arguments, message):
    done = run(tmp_path, "benchmarks/leaderboard.py", *arguments)
    assert (
        done.returncode == 2 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
    )
    assert list(tmp_path.iterdir()) == []


def test_submit_stores_once_and_renders(run, value, record, tmp_path):
    own = {"method": "mine", "seed": 0}
    paths = store(tmp_path, value(**own), {**value(seed=1), "colour": "red"})
    checked = run(tmp_path, "tools/submit.py", "--check", paths[0])
    assert checked.returncode == 0 and not (tmp_path / "benchmarks").exists()
    assert f"all {record(**own).metrics()['all']:.2f}" in checked.stdout
    done = run(tmp_path, "tools/submit.py", *paths)
    assert done.returncode == 1 and "colour is 'red': unknown field" in done.stderr
    name = f"benchmarks/records/{record(**own).hash[:16]}.json"
    assert [path.name for path in (tmp_path / "benchmarks/records").glob("*.json")] == [Path(name).name]
    table = (tmp_path / "benchmarks/leaderboard.csv").read_text()
    assert table.count("\n") == 2 and (tmp_path / "benchmarks/leaderboard.md").exists()
    again = run(tmp_path, "tools/submit.py", paths[0])
    assert again.returncode == 0 and f"already there: {name}" in again.stdout
    assert (tmp_path / "benchmarks/leaderboard.csv").read_text() == table


def test_submit_of_a_missing_file_is_one_line(run, tmp_path):
    done = run(tmp_path, "tools/submit.py", "nowhere.json")
    assert done.returncode == 1 and done.stderr == "error: nowhere.json: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


def test_command_starts_from_a_shell(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/leaderboard.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith(
        "error: runs, benchmarks/records, benchmarks/reported: no records"
    )


def flags_of(records) -> dict[str, str]:
    return {row["method"]: row["flags"] for row in rows_of(records)}


def test_better_than_joint_by_three_deviations_is_flagged_and_shown(record):
    joint = [record(method="joint", seed=seed, old=0.5, new=0.5) for seed in range(3)]
    values = [one.metrics()["all"] for one in joint]
    limit = mean(values) + 3 * stdev(values)
    shares = {"low": 0.3, "fair": 0.5, "high": 0.95}
    others = [
        record(method=name, seed=seed, old=share, new=share)
        for name, share in shares.items()
        for seed in range(2)
    ]
    found = flags_of([*joint, *others])
    for row in rows_of([*joint, *others]):
        suspicious = row["method"] != "joint" and float(row["all"]) > limit
        assert (
            "better than joint training by more than three of its deviations" in row["flags"]
        ) == suspicious
    assert "better than joint" in found["high"] and "better than joint" not in found["low"]
    text = render_markdown(build_sections([*joint, *others]))
    assert "- high: better than joint training by more than three of its deviations" in text
    alone = flags_of([joint[0], *others])  # one run has no deviation to compare with
    assert "better than joint" not in alone["high"]


def test_seeds_that_gave_the_same_result_are_flagged(record):
    runs = [record(method="mine", seed=seed) for seed in (0, 1, 2, 3)]
    runs[2].steps = runs[0].steps
    (row,) = rows_of(runs)
    assert row["n"] == "4" and row["flags"].startswith("seeds 0, 2 gave the very same result")
    for one in runs:
        one.steps = runs[0].steps
    (row,) = rows_of(runs)
    assert row["all_std"] == "0.00" and "seeds 0, 1, 2, 3 gave the very same result" in row["flags"]


def test_orders_count_the_class_orders_of_a_method(record):
    orders = [
        [["wall", "floor", "chair"], ["sofa", "shower curtain"]],
        [["sofa", "floor", "wall"], ["chair", "shower curtain"]],
    ]
    records = [
        record(method="mine", steps=steps, protocol=f"small/{index}") for index, steps in enumerate(orders)
    ]
    records.append(
        record(
            method="mine",
            steps=[["wall", "floor", "chair", "sofa"], ["shower curtain"]],
            protocol="small/4-1",
        )
    )
    records.append(record(method="other", steps=orders[0], protocol="small/0"))
    found = {(row["method"], row["protocol"]): row["orders"] for row in rows_of(records)}
    assert found == {
        ("mine", "small/0"): "2",
        ("mine", "small/1"): "2",
        ("mine", "small/4-1"): "1",
        ("other", "small/0"): "1",
    }


def test_latex_has_the_best_bold_and_the_second_underlined(record):
    shares = {"finetune": 0.1, "lgkd": 0.7, "lwf": 0.5, "joint": 0.9}
    records = [record(method=name, old=share, seed=seed) for name, share in shares.items() for seed in (0, 1)]
    lines = render_latex(build_sections(records)).splitlines()
    head = next(line for line in lines if line.startswith("method")).removesuffix(" \\\\").split(" & ")
    table = {line.split(" & ")[0]: line.removesuffix(" \\\\").split(" & ") for line in lines if " & " in line}
    assert {"\\toprule", "\\midrule", "\\bottomrule"} <= set(lines)
    assert table["lgkd"][head.index("old")].startswith("\\textbf{")
    assert table["lwf"][head.index("old")].startswith("\\underline{")
    assert "\\textbf" not in "".join(table["joint"]) and "\\underline" not in "".join(table["joint"])
    assert table["joint"][head.index("forgetting")] == ""
    values = [one.metrics()["all"] for one in records if one.method.name == "lwf"]
    cell = table["lwf"][head.index("all")].replace("\\underline{", "").replace("}", "", 1)
    assert cell.startswith(f"{mean(values):.1f}") and f"$\\pm$ {stdev(values):.1f}" in cell


def test_published_numbers_stand_apart_with_their_caveats(record):
    published = read_published()
    table = published[0]
    assert table.title == "3DPC-CISS: ScanNet, class order S0"
    assert table.value("gua", "15-5 all") == 28.98 and table.value("joint", "19-1 new") == 18.08
    for one in published:
        for name, values in one.rows:
            for start in range(0, len(values), 3):
                old, new, every = values[start : start + 3]
                if None not in (old, new, every):
                    assert min(old, new) <= every <= max(old, new), (one.title, name)
    text = render_markdown(build_sections([record()]), published=published)
    ours, theirs = text.split("## Published numbers")
    assert "neither recomputed nor comparable" in theirs and "refrigerator" in theirs
    assert "cfsseg" in theirs and "cfsseg" not in ours
    missing = next(one for one in published if one.title == "CFSSeg: ScanNet, class order S0")
    assert missing.value("cfsseg", "17-1 old") is None and missing.value("lwf", "15-1 old") is None
    assert "not comparable: CFSSeg: ScanNet, class order S0" in render_latex([], published)
