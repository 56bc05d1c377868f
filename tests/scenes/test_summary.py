"""The preparation report: its numbers against slow counts, the comparison with ScanNet, and hostile text."""

import json
import math
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from scannet_css.classes import CLASSES
from scannet_css.scenes import Manifest, SceneEntry, load_manifest, load_scene
from scannet_css.scenes.prepare import STAGES, Outcome, Report
from scannet_css.scenes.report.report_page import render_page
from scannet_css.scenes.report.summary import compare_with_scannet, count_conflicts, describe, write_report

PACKAGE = Path(__file__).parents[2] / "scannet_css"


NOTHING = {"unlisted": [], "absent": {}, "findings": {}, "leftover": []}


def report_of(manifest, made=(), **changes):
    """As if the scenes in `made` had been made now, in 1, 2, ... seconds a stage, and the others kept."""
    seconds = {stage: 1.0 + number for number, stage in enumerate(STAGES)}
    outcomes = {
        name: Outcome(name, entry.split, entry, None, name in made, seconds if name in made else {})
        for name, entry in manifest.scenes.items()
    }
    return Report(manifest, outcomes, **{**NOTHING, "absent": {"train": 0, "val": 0}, **changes})


@pytest.fixture(scope="module")
def manifest(small_set):
    return load_manifest(small_set)


@pytest.fixture(scope="module")
def content(manifest):
    return describe(report_of(manifest, made=list(manifest.scenes)[:2]))


def test_counts_are_those_of_the_scenes(manifest, content):
    together = Counter()
    for split in ("train", "val"):
        scenes = [load_scene(manifest.path(entry)) for entry in manifest.split(split)]
        sizes, classes = content["splits"][split], content["classes"][split]
        assert sizes["scenes"] == sizes["labelled"] == len(scenes)
        for what, numbers in (
            ("vertices", sorted(len(scene.points) for scene in scenes)),
            ("voxels", sorted(len(scene.voxel_coordinates) for scene in scenes)),
        ):
            assert (sizes[what]["smallest"], sizes[what]["largest"]) == (numbers[0], numbers[-1])
            assert sizes[what]["total"] == sum(numbers)
            assert sizes[what]["mean"] == round(sum(numbers) / len(numbers))
            histogram = content["histograms"][what]
            bins = Counter(number // histogram["bin_width"] for number in numbers)
            assert histogram["scenes"][split] == [bins[k] for k in range(len(histogram["scenes"][split]))]
            assert 12 >= len(histogram["scenes"][split]) / 2 > 4
        points, present = Counter(), Counter()
        for scene in scenes:
            labels = [label for label in scene.labels.tolist() if label != 255]
            points.update(labels)
            present.update(set(labels))
            together.update((a, b) for a in set(labels) for b in set(labels))
        assert [classes[name]["vertices"] for name in CLASSES] == [points[c] for c in range(20)]
        assert [classes[name]["scenes"] for name in CLASSES] == [present[c] for c in range(20)]
        for c, name in enumerate(CLASSES):
            assert classes[name]["share"] == pytest.approx(points[c] / sum(points.values()), abs=1e-6)
    assert content["co_occurrence"] == [[together[a, b] for b in range(20)] for a in range(20)]


def test_conflicts_are_those_of_the_sampled_scenes(manifest, content):
    conflicts = content["label_conflicts"]
    assert len(conflicts["scenes"]) == 3
    assert [row["voxel_size"] for row in conflicts["sizes"]] == [0.02, 0.05, 0.1, 0.15]
    for row in conflicts["sizes"]:
        expected = Counter()
        for name in conflicts["scenes"]:
            scene = load_scene(manifest.path(manifest.scenes[name]))
            voxels = {}
            for point, label in zip(scene.points.tolist(), scene.labels.tolist(), strict=True):
                if label != 255:
                    cell = tuple(math.floor(x / row["voxel_size"]) for x in point)
                    voxels.setdefault(cell, []).append(label)
            for labels in voxels.values():
                mixed, most = len(set(labels)) > 1, Counter(labels).most_common(1)[0][1]
                expected.update(voxels=1, mixed_voxels=int(mixed), vertices=len(labels))
                expected.update(mixed_vertices=mixed * len(labels), outvoted_vertices=len(labels) - most)
        assert {key: row[key] for key in expected} == expected
    assert conflicts["sizes"][-1]["outvoted_vertices"] > 0


def test_conflicts_without_a_label():
    labels, inverse = torch.full((3,), 255, dtype=torch.uint8), torch.tensor([0, 0, 1])
    assert set(count_conflicts(labels, inverse).values()) == {0}


def test_stages_are_of_the_scans_made_now(content):
    assert content["scans"]["made"] == 2 and content["scans"]["kept"] == 12
    assert list(content["seconds"]) == [*STAGES, "all"]
    assert content["seconds"]["read"] == {"mean": 1, "median": 1, "longest": 1, "total": 2}
    assert content["seconds"]["all"]["mean"] == sum(1 + number for number in range(len(STAGES)))


def test_findings_name_their_scans(manifest):
    names = sorted(manifest.scenes)
    scenes = {name: replace(entry, findings={}, unknown_ids={}) for name, entry in manifest.scenes.items()}
    scenes[names[1]] = replace(scenes[names[1]], findings={"unknown_ids": 7}, unknown_ids={50: 4, 149: 3})
    scenes[names[3]] = replace(
        scenes[names[3]], findings={"unknown_ids": 2, "no_faces": 1}, unknown_ids={50: 2}
    )
    found = describe(report_of(replace(manifest, scenes=scenes), findings={"blank_ids": 5}))
    unknown = found["findings"].pop("unknown_ids")
    assert (unknown["count"], unknown["scans"]) == (9, {names[1]: 7, names[3]: 2})
    assert unknown["vertices_of_scans"] == scenes[names[1]].vertices + scenes[names[3]].vertices
    assert found["findings"]["no_faces"]["scans"] == {names[3]: 1} and len(found["findings"]) == 2
    assert (found["findings"]["blank_ids"]["count"], found["findings"]["blank_ids"]["scans"]) == (5, {})
    assert found["unknown_ids"] == {"50": {names[1]: 4, names[3]: 2}, "149": {names[1]: 3}}


def test_the_same_data_give_the_same_files(manifest, tmp_path):
    for folder in ("a", "b"):
        write_report(report_of(manifest), tmp_path / folder)
    for name in ("report.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    kept, made = describe(report_of(manifest)), describe(report_of(manifest, made=manifest.scenes))
    assert {key for key in made if made[key] != kept[key]} == {"scans", "seconds"}


@pytest.fixture(scope="module")
def whole_scannet():
    """A manifest with every scan of ScanNet and what is known of it."""
    facts = json.loads((PACKAGE / "scenes/report/expected_scannet.json").read_text())
    scenes = {}
    for split, vertices in facts["vertices"].items():
        names = (PACKAGE / f"raw/splits/scannetv2_{split}.txt").read_text().split()
        for number, (name, count) in enumerate(zip(names, vertices, strict=True)):
            counts = [0] * 20
            if split != "test":
                present = {c: n for c, n in facts["scans_with_class"].items() if number < n[split]}
                shares = [
                    facts["vertex_share"][c] / present[c][split] if c in present else 0 for c in CLASSES
                ]
                counts = [round(1e8 * share) for share in shares]
            scenes[name] = SceneEntry(
                name, split, "", "", count, count, tuple(counts), 0, {}, labelled=split != "test"
            )
    return Manifest(Path("prepared"), "scannet", CLASSES, 0.02, scenes)


def changed(manifest, name, **changes):
    return replace(manifest, scenes={**manifest.scenes, name: replace(manifest.scenes[name], **changes)})


def test_scannet_as_it_should_be(whole_scannet):
    result = compare_with_scannet(whole_scannet)
    assert result["differences"] == 0
    assert [(s["expected"], s["found"]) for s in result["splits"].values()] == [
        (1201,) * 2,
        (312,) * 2,
        (100,) * 2,
    ]
    assert result["classes"]["train"]["sink"] == {
        "scans": 322,
        "expected_scans": 322,
        "share": pytest.approx(0.002746, abs=2e-6),
        "expected_share": 0.002746,
        "differs": False,
    }
    assert result["classes"]["val"]["wall"] == {"scans": 305, "expected_scans": 305, "differs": False}


def test_what_differs_from_scannet_is_marked(whole_scannet):
    other = changed(whole_scannet, "scene0000_00", vertices=81368)
    result = compare_with_scannet(other)
    assert result["splits"]["train"]["other_vertices"] == {
        "scene0000_00": {"found": 81368, "expected": 81369}
    }
    assert result["differences"] == 1

    scenes = dict(whole_scannet.scenes)
    del scenes["scene0011_00"]
    result = compare_with_scannet(replace(whole_scannet, scenes=scenes))
    assert result["splits"]["val"]["missing"] == ["scene0011_00"] and result["splits"]["val"]["found"] == 311
    assert set(result["classes"]) == {"train"} and result["differences"] == 1

    result = compare_with_scannet(changed(whole_scannet, "scene0011_00", split="train"))
    assert result["splits"]["train"]["elsewhere"] == result["splits"]["val"]["missing"] == ["scene0011_00"]

    sink = CLASSES.index("sink")  # as if a name were spelt another way
    scenes = {
        name: replace(entry, class_counts=(*entry.class_counts[:sink], 0, *entry.class_counts[sink + 1 :]))
        for name, entry in whole_scannet.scenes.items()
    }
    result = compare_with_scannet(replace(whole_scannet, scenes=scenes))
    marked = [name for name, row in result["classes"]["train"].items() if row["differs"]]
    assert marked == ["sink"] and result["differences"] == 2  # in train and in val


def test_other_data_sets_are_not_compared(manifest, whole_scannet):
    assert compare_with_scannet(manifest) is None
    assert compare_with_scannet(replace(whole_scannet, classes=(*CLASSES, "lamp"))) is None


class Page(HTMLParser):
    """The tags and texts of a page; void elements apart, every one is closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open = Counter(), [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        if tag != "meta":
            self.open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on") and name not in ("src", "href") and "://" not in (value or "")

    def handle_startendtag(self, tag, attributes):
        self.tags[tag] += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_shows_the_numbers(content, manifest, tmp_path):
    write_report(report_of(manifest, made=list(manifest.scenes)[:2]), tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert json.loads((tmp_path / "report.json").read_text()) == content
    sinks = content["classes"]["train"]["sink"]
    for text in (
        "Preparation of synthetic",
        f"{sinks['vertices']:,}",
        f"{sinks['share']:.2%}",
        "0.15 m (prepared)",
    ):
        assert text in page.texts
    assert page.tags["svg"] == 2 and "script" not in page.tags


def test_the_page_marks_what_differs(content, whole_scannet):
    sound = compare_with_scannet(whole_scannet)
    assert "all as expected" in Page(render_page({**content, "expected": sound})).texts
    other = changed(whole_scannet, "scene0000_00", vertices=81368, class_counts=(10**9, *[0] * 19))
    page = Page(render_page({**content, "expected": compare_with_scannet(other)}))
    assert "all as expected" not in page.texts and "0.275%" in page.texts
    assert "vertices, train: scene0000_00 81,368 instead of 81,369" in page.texts


HOSTILE = "<script>alert(1)</script>\"'&\u202e\x1b[31m\udcff"


def test_hostile_names_and_reasons_stay_text(manifest, tmp_path):
    bad = Outcome(HOSTILE, "train", None, f"/scans/{HOSTILE}.ply: {HOSTILE}", False, {})
    first = next(iter(manifest.scenes.values()))
    scenes = {**manifest.scenes, first.name: replace(first, findings={HOSTILE: 3})}
    report = report_of(replace(manifest, scenes=scenes), unlisted=[HOSTILE], leftover=[HOSTILE])
    report = replace(report, outcomes={**report.outcomes, HOSTILE: bad})
    write_report(report, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and not any(letter in text for letter in "\u202e\x1b")
    shown = "<script>alert(1)</script>\"'&\\u202e\\x1b[31m\\udcff"
    assert shown in page.texts and f"/scans/{shown}.ply: {shown}" in page.texts
    assert json.loads((tmp_path / "report.json").read_text())["scans"]["unlisted"] == [shown]


def test_nothing_could_be_prepared(tmp_path):
    bad = Outcome("scene0000_00", "train", None, "a.ply: empty", False, {})
    write_report(Report(None, {"scene0000_00": bad}, **{**NOTHING, "absent": {"train": 1200}}), tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["scans"]["failed"] == {"scene0000_00": "a.ply: empty"}
    assert content["scans"]["absent"] == {"train": 1200} and "dataset" not in content
    assert "a.ply: empty" in Page((tmp_path / "report.html").read_text()).texts
