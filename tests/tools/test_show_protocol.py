"""tools/show_protocol.py as a user runs it: the files agree with each other, and hostile names stay text."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

NAMESPACE = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def shown(command_line, small_set, three_steps, tmp_path_factory):
    """Standard output, and the folder of the three files."""
    folder = tmp_path_factory.mktemp("exposure")
    options = ("--data", small_set, "--protocol", three_steps, "--out", folder)
    done = command_line("tools/show_protocol.py", *options)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout, folder


def test_the_table_shows_what_the_json_holds(shown):
    stdout, folder = shown
    text = (folder / "exposure.md").read_text()
    assert stdout.startswith(text)
    content = json.loads((folder / "exposure.json").read_text())
    assert content["protocol"]["name"] == "three-steps" and len(content["steps"]) == 3
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    for step in content["steps"]:
        all_points = sum(step["points"].values())
        assert all_points == sum(group["points"] for group in step["groups"]) > 0
        (line,) = (row for row in rows if row[0] == str(step["step"]))
        assert line[1:3] == [str(len(step["scenes"])), f"{all_points:,}"]
        assert line[-1] == f"{step['background_shift']:.1%}"
    chairs = [row for row in rows if row[0] == "chair"]
    labels = ["future class, as background", "new class, shown", "old class, as background"]
    assert [row[1] for row in chairs] == labels
    counts = [next(g for g in step["groups"] if g["name"] == "chair") for step in content["steps"]]
    assert [(row[2], row[4], row[5]) for row in chairs] == [
        (f"{g['points']:,}", str(g["instances"]), str(g["scenes"])) for g in counts
    ]


def test_bars_are_as_long_as_their_counts(shown):
    _, folder = shown
    content = json.loads((folder / "exposure.json").read_text())
    picture = ElementTree.parse(folder / "exposure.svg").getroot()
    bars = [r for r in picture.iter(f"{NAMESPACE}rect") if r.find(f"{NAMESPACE}title") is not None]
    for what in ("points", "instances"):
        for step in content["steps"]:
            total = sum(step[what].values())
            for outcome, count in step[what].items():
                if count:
                    bar = bars.pop(0)
                    assert bar.get("class") == outcome
                    assert float(bar.get("width")) == pytest.approx(568 * count / total, abs=0.06)
    assert bars == []


def test_a_hostile_protocol_name_stays_text(command_line, small_set, three_steps, tmp_path):
    content = json.loads(three_steps.read_text())
    content["name"] = "<script>alert(1)</script> | &"
    (tmp_path / "hostile.json").write_text(json.dumps(content))
    options = ("--data", small_set, "--protocol", tmp_path / "hostile.json", "--out", tmp_path / "out")
    assert command_line("tools/show_protocol.py", *options).returncode == 0
    picture = ElementTree.parse(tmp_path / "out" / "exposure.svg").getroot()
    tags = {element.tag.removeprefix(NAMESPACE) for element in picture.iter()}
    assert tags == {"svg", "title", "style", "rect", "text"}
    assert content["name"] + " (overlapped)" in [text.text for text in picture.iter(f"{NAMESPACE}text")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--protocol", "lgkd-14-6"), "did you mean"),
        (("--protocol", "lgkd-14-5", "--data", "/nowhere"), "no prepared data set here"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(command_line, small_set, tmp_path, options, message):
    fixed = ("--data", small_set, "--out", tmp_path / "out")
    done = command_line("tools/show_protocol.py", *fixed, *options)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr
    assert not (tmp_path / "out").exists()


def test_scenes_that_come_back_are_drawn_beside_those_of_other_regimes(shown):
    _, folder = shown
    content = json.loads((folder / "exposure.json").read_text())
    recurrence, steps = content["recurrence"], content["steps"]
    assert list(recurrence) == ["overlapped", "partitioned"]
    seen = set()
    for step, (scenes, again) in zip(steps, recurrence["overlapped"], strict=True):
        assert scenes == len(step["scenes"]) and again == len(seen & set(step["scenes"]))
        seen |= set(step["scenes"])
    assert any(again for _, again in recurrence["overlapped"])
    assert all(again == 0 for _, again in recurrence["partitioned"])
    assert sum(scenes for scenes, _ in recurrence["partitioned"]) == len(seen)
    picture = ElementTree.parse(folder / "exposure.svg").getroot()
    widths = {
        name: [
            float(bar.get("width")) for bar in picture.iter(f"{NAMESPACE}rect") if bar.get("class") == name
        ]
        for name in ("first", "again")
    }
    numbers = [one for regime in recurrence.values() for one in regime]
    most = max(scenes for scenes, _ in numbers)
    assert widths["again"] == pytest.approx([568 * again / most for _, again in numbers], abs=0.06)
    assert widths["first"] == pytest.approx([568 * (n - again) / most for n, again in numbers], abs=0.06)
    texts = [text.text for text in picture.iter(f"{NAMESPACE}text")]
    assert "scenes, overlapped" in texts and "scenes, partitioned" in texts
    assert "## Scenes that come back" in (folder / "exposure.md").read_text()
