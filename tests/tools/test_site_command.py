"""benchmarks/leaderboard.py --html with rooms, from real runs, opened from disk."""

import json
import re

import pytest
from safetensors.numpy import load_file

from scannet_css.scenes import load_manifest, load_scene
from scannet_css.viewer.predictions import channel_table


def wrong_share(trained, method: str, step: int, name: str) -> float:
    """Percent of the labelled vertices of a room that a run got wrong, from its files alone."""
    path = trained.runs[method] / "predictions" / f"step{step}" / f"{name}.safetensors"
    record = json.loads((trained.runs[method] / "record.json").read_text())
    manifest = load_manifest(trained.data)
    labels = load_scene(manifest.path(manifest.scenes[name])).labels.numpy()
    truth = channel_table(record["steps"][step]["classes"], manifest.classes)[labels]
    answers = load_file(path)["prediction"]
    return 100 * ((truth != 255) & (truth != answers)).sum() / (truth != 255).sum()


@pytest.fixture(scope="module")
def site(trained, command_line, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    where = ("--out", folder / "out", "--html", folder / "site", "--data", trained.data, "--rooms", 2)
    done = command_line("benchmarks/leaderboard.py", trained.folder, *where)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_the_site_shows_rooms_of_the_runs(site, trained, open_page):
    assert sorted(path.suffix for path in (site / "rooms").iterdir()) == [".js", ".js"]
    page = open_page(site / "index.html")
    viewer = page.locator(".room-viewer")
    viewer.scroll_into_view_if_needed()
    viewer.locator("canvas").wait_for()
    rooms = viewer.locator("select").first.locator("option").all_inner_texts()
    assert len(rooms) == 2 and set(rooms) <= set(trained.names)
    rows = viewer.locator("table tr").filter(has=page.locator("td")).all()
    shown = {}
    for row in rows:
        cells = row.locator("th, td").all_inner_texts()
        shown[cells[0]] = [float(re.sub(r"[^0-9.]", "", cell)) for cell in cells[1:]]
    name = viewer.locator("select").first.input_value()
    for method in trained.runs:
        expected = [wrong_share(trained, method, step, name) for step in range(2)]
        assert shown[method] == pytest.approx(expected, abs=0.051)


def test_the_charts_and_the_table_are_there_beside_them(site, open_page):
    page = open_page(site / "index.html")
    assert page.locator("section.board table").first.is_visible()
    assert page.locator("#curves-chart canvas, #curves-chart svg").first.is_visible()


def test_rooms_without_predictions_and_data_of_others_are_named(trained, command_line, tmp_path):
    where = ("--out", tmp_path / "out", "--html", tmp_path / "site", "--data", trained.data)
    done = command_line("benchmarks/leaderboard.py", "benchmarks/records", *where)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no run on this data kept predictions, expected benchmarks/run.py" in done.stderr
    assert not (tmp_path / "site" / "index.html").exists()
