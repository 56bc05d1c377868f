"""docs/results.md says what benchmarks/records say, and its pictures show it."""

import re
from dataclasses import asdict

import pytest
import render_results
from PIL import Image
from results_data import OLDER_RULES, STUDY, TUNING, Results, bases, differences, picture_data
from suite_lib.recipe_defaults import recipe_defaults
from suite_lib.suite_file import read_suite

from scannet_css.errors import InputError
from scannet_css.files import digest
from scannet_css.methods.method import find_method, method_names, options_of
from scannet_css.records.record import Record, save_record
from scannet_css.training.recipe import Recipe

ROOT = render_results.DOCS.parent
PICTURES = render_results.DOCS / "pictures"


@pytest.fixture(scope="module")
def committed():
    return Results(render_results.load_records(*render_results.RECORDS))


@pytest.fixture
def make(value):
    """`make(method, seed, old, new, ...)`: a record of the study's rooms with the settings of the method."""

    def one(method="mib", seed=0, old=0.6, new=0.5, manifest=STUDY, **options):
        made = value(method=method, seed=seed, old=old, new=new, protocol="scannet/s0-15-5", **options)
        made["data"]["manifest_hash"] = manifest
        return Record.from_json(made)

    return one


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_every_generated_part_is_what_the_records_say(committed):
    text = (render_results.DOCS / "results.md").read_text(encoding="utf-8")
    parts = render_results.parts(committed)
    assert sorted(re.findall(r"<!-- begin (\S+) -->", text)) == sorted(parts)
    assert sorted(re.findall(r"<!-- end (\S+) -->", text)) == sorted(parts)
    assert render_results.filled(text, parts) == text, "run python docs/render/render_results.py"


def test_the_table_beside_published_numbers_is_what_the_records_say(committed):
    text = render_results.REPRODUCIBILITY.read_text(encoding="utf-8")
    table = render_results.reproducibility(committed)
    assert render_results.filled(text, {"reproducibility": table}) == text, (
        "run python docs/render/render_results.py"
    )
    ours = {name for name in method_names() if find_method(name).__module__.startswith("baselines.")}
    assert {line[0].strip("`") for line in cells(table)[2:]} == ours


@pytest.mark.parametrize("file, data, manifest", [("suite", "study", STUDY), ("tuning", "tuning", TUNING)])
def test_the_records_are_the_runs_of_the_suite(file, data, manifest, committed):
    """Every run of the study has its record, and no record is of another run. Of methods whose rules have
    changed since, settings may differ; those that have no record yet are named (see `older`)."""

    def wanted(run):
        recipe = asdict(
            Recipe(**{**recipe_defaults("synthetic"), **dict(run.recipe), **dict(run.own_recipe)})
        )
        return run.protocol, run.method, run.make_method().settings(), recipe, run.seed

    def found(record):
        options = options_of(find_method(record.method.name))
        settings = {one.name: one.default for one in options} | record.method.settings  # some came since
        return record.protocol.name, record.method.name, settings, record.recipe, record.seed

    runs = read_suite(ROOT / "benchmarks" / f"{file}.toml", ROOT)
    there = {record.method.name for record in committed.records}
    runs = [wanted(run) for run in runs if run.data.name == data and run.method in there]
    records = [one for one in committed.records if one.data.manifest_hash.startswith(manifest)]
    records = [found(record) for record in records]
    older = {name for names in OLDER_RULES.values() for name in names}
    assert older <= there

    def same_rules(all_of_them):
        return [one for one in all_of_them if one[1] not in older]

    assert {digest(one) for one in same_rules(records)} == {digest(one) for one in same_rules(runs)}
    assert len(same_rules(records)) == len({digest(one) for one in same_rules(runs)})
    kinds = {(protocol, method, seed) for protocol, method, _, _, seed in records}
    assert kinds == {(protocol, method, seed) for protocol, method, _, _, seed in runs}


def test_methods_with_older_rules_and_without_records_are_named(committed):
    text = render_results.older(committed)
    for names in OLDER_RULES.values():
        assert all(f"`{name}`" in text for name in names)
    few = Results([one for one in committed.records if one.method.name != "mib"])
    assert "No records yet: " in render_results.older(few) and "`mib`" in render_results.older(few)


def test_pictures_show_the_records(committed):
    drawn = picture_data(committed)
    found = {path.stem.removeprefix("results_"): path for path in PICTURES.glob("results_*.png")}
    assert found.keys() == drawn.keys()
    for name, path in found.items():
        with Image.open(path) as picture:
            assert picture.text["Data"] == digest(drawn[name]), (
                f"{path}: run python docs/render/render_results.py"
            )
    assert sum(path.stat().st_size for path in found.values()) < 2**20


def test_without_records_every_part_says_so():
    assert set(render_results.parts(Results([])).values()) == {"no records yet"}


def test_paired_differences(make):
    records = [make(seed=seed) for seed in range(3)]
    records += [make("lgkd+mib", seed, new=0.6 if seed else 0.4) for seed in range(3)]
    results = Results(records)
    ((before, after),) = results.blocks["scannet/s0-15-5"].pairs
    expected = [
        other.metrics()["new"] - one.metrics()["new"]
        for one, other in zip(records[:3], records[3:], strict=True)
    ]
    assert differences(before, after, "new") == expected
    line = cells(render_results.claims(results))[2]
    assert line[:3] == ["s0-15-5", "mib", "3"]
    first, last = map(float, line[4].split(" → "))
    assert last - first == pytest.approx(sum(expected) / 3, abs=0.11)
    assert line[7].endswith("(2/3)")


def test_a_missing_seed_is_a_missing_cell(make):
    records = [make(seed=seed) for seed in range(3)] + [make("lwf", seed) for seed in range(2)]
    table = cells(render_results.parts(Results(records))["methods-s0-15-5"])
    assert table[3] == ["lwf", "2", *[""] * 7]
    assert table[2][0] == "mib" and table[2][2]


def test_main_settings_are_those_with_every_seed(make):
    weights = {"lgkd_weight": 1.0, "background_weight": 5.0, "novel_weight": 1.0, "guidance": "transplant"}
    records = [make("lgkd", seed, settings=weights) for seed in range(3)]
    records += [make("lgkd", 0, old=0.9, new=0.9, settings=weights | {"novel_weight": 5.0})]
    records += [make("lgkd", 0, new=0.1, settings=weights | {"guidance": "none"})]
    results = Results(records)
    (row,) = results.blocks["scannet/s0-15-5"].section.rows
    assert row.first.method.settings == weights and len(row.records) == 3
    assert set(results.lgkd_variants("guidance")) == {("none",), ("transplant",)}
    drawn = picture_data(results)["weights"]
    assert drawn["values"]["new"] == [[records[0].metrics()["new"], records[3].metrics()["new"]]]
    assert drawn["used"] == [5.0, 1.0]


def test_tuning_marks_what_the_study_used(make):
    records = [make("mib", settings={"weight": 1.0})]
    records += [make("mib", manifest=TUNING, settings={"weight": weight}) for weight in (1.0, 10.0)]
    lines = cells(render_results.tuning(Results(records)))[4:]
    assert {line[1]: line[-1] for line in lines} == {"**weight 1**": "yes", "defaults": ""}


def test_methods_with_the_same_step_0_share_a_line(make):
    same = make("mib")
    other = make("lwf")
    other.steps[0] = same.steps[0]
    (block,) = Results([same, other, make("freeze", seed=1), make("freeze")]).blocks.values()
    assert [base.methods for base in bases(block)] == [["freeze"]]  # the only one with both seeds
    (block,) = Results([same, other, make("freeze")]).blocks.values()
    assert [base.methods for base in bases(block)] == [["lwf", "mib"], ["freeze"]]


def test_command_writes_tables_and_pictures(make, tmp_path, monkeypatch):
    for method in ("mib", "lgkd+mib", "joint"):
        for seed in range(2):
            save_record(make(method, seed), tmp_path / "records" / f"{method}-{seed}.json")
    render_results.main(["--records", str(tmp_path / "records"), "--out", str(tmp_path / "out")])
    assert "| lgkd+mib" in (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    with Image.open(tmp_path / "out" / "pictures" / "results_tradeoff-s0-15-5.png") as picture:
        results = Results(render_results.load_records(tmp_path / "records"))
        assert picture.text["Data"] == digest(picture_data(results)["tradeoff-s0-15-5"])


def test_records_of_other_rooms_are_refused(make):
    with pytest.raises(InputError, match=f"manifest cdcd.*expected {STUDY}"):
        Results([make(manifest="cd" * 32)])


def test_marker_of_another_name_is_refused():
    with pytest.raises(InputError, match="marker 'tuned', expected one of tuning"):
        render_results.filled("<!-- begin tuned -->\n<!-- end tuned -->", {"tuning": ""})
