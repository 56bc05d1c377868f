"""The page in a headless Chromium, as a reader uses it: mouse, keyboard, phone, without JavaScript."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from scannet_css.classes import CLASSES
from scannet_css.leaderboard import site_data
from scannet_css.leaderboard.html import render_tables_page
from scannet_css.leaderboard.published import PublishedTable
from scannet_css.leaderboard.reported import COLUMNS, ReportedRow
from scannet_css.leaderboard.rows import Row
from scannet_css.leaderboard.sections import Section, build_sections
from scannet_css.leaderboard.site import json_for_html, render_site, section_names, write_site
from scannet_css.metrics import METRICS
from scannet_css.records.record import Record
from scannet_css.scenes import Scene
from scannet_css.viewer.predictions import Prediction, RoomRun
from tests.leaderboard.test_reported import good
from tests.records.made_records import make_value

THREE = [["wall", "floor", "chair"], ["sofa"], ["shower curtain", "desk"]]
METHODS = {"lgkd": 0.7, "mib": 0.5, "lwf": 0.3, "finetune": 0.08, "joint": 0.9}
SEEDS = (0, 1, 2)
NAMES = ("synthetic-small-3-2", "synthetic-small-3-1-2")


def reported(**cells: str) -> ReportedRow:
    return ReportedRow({**dict.fromkeys(COLUMNS, ""), **good(**cells)})


@pytest.fixture(scope="module")
def records() -> list[Record]:
    values = [
        make_value(method=name, seed=seed, old=share, new=share / 2, **options)
        for name, share in METHODS.items()
        for seed in SEEDS
        for options in ({}, {"steps": THREE, "protocol": "small/3-1-2"})
    ]
    return [Record.from_json(value) for value in values]


@pytest.fixture(scope="module")
def sections(records) -> list[Section]:
    first, second = build_sections(records, reported=[reported()])[::-1][:2]
    last = build_sections([], reported=[reported()])
    return [*sorted((first, second), key=lambda one: len(one.steps)), *last]


PUBLISHED = PublishedTable(
    title="Elsewhere: ScanNet",
    source="Somebody, 2025",
    link="https://example.org/paper",
    caveats=["blocks of one metre"],
    columns=["15-5 old", "15-5 all"],
    rows=[("freeze", [36.06, None])],
)


@pytest.fixture(scope="module")
def folder(sections, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_site(sections, [PUBLISHED], folder, [], [])
    return folder


@pytest.fixture
def page(open_page, folder):
    """`page(name, ...)`: the page at one of its sections."""

    def at(name: str = NAMES[1], **options):
        opened = open_page(folder / "index.html", **options)
        if name:
            opened.evaluate("name => { location.hash = name }", name)
            opened.wait_for_selector(f"#choice a[href='#{name}'][aria-current]")
        return opened

    return at


def texts(page, selector: str) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(selector).all_inner_texts()]


def head(page, name: str):
    return page.locator(f".board:not([hidden]) th[data-column={name}]")


def column(page, name: str, body: int = 0) -> list[str]:
    """The cells of a column of the shown table, in the order in which they are shown."""
    place = head(page, name).evaluate("e => e.cellIndex + 1")
    rows = page.locator(".board:not([hidden]) tbody.rows").nth(body).locator("tr")
    cells = "th .method" if name == "method" else f":nth-child({place})"
    return [" ".join(text.split()) for text in rows.locator(f"> {cells}").all_inner_texts()]


def ious(matrix) -> np.ndarray:
    """Percent per channel, written down once more."""
    matrix = np.array(matrix, dtype=float)
    hit = np.diag(matrix)
    return 100 * hit / (matrix.sum(0) + matrix.sum(1) - hit)


def runs_of(records, method: str, steps: int = 3) -> list[Record]:
    return [one for one in records if one.method.name == method and len(one.protocol.steps) == steps]


def shown(values) -> str:
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


def test_table_and_curves_show_what_the_records_hold(page, records):
    opened = page()
    table = dict(zip(column(opened, "method"), column(opened, "all"), strict=True))
    curve = dict.fromkeys(table)
    opened.locator("#curves-values summary").click()
    for line in texts(opened, "#curves-values tbody tr"):
        name, rest = line.split(" ", 1)
        curve[name] = re.findall(r"[\d.]+ ± [\d.]+", rest)
    for method in ("lgkd", "mib", "lwf", "finetune"):
        every = [
            [ious(one.steps[step].confusion.vertices)[1:].mean() for one in runs_of(records, method)]
            for step in range(3)
        ]
        assert table[method] == shown(every[-1])
        assert curve[method] == [shown(values) for values in every]
    joint = [ious(one.steps[0].confusion.vertices)[1:].mean() for one in runs_of(records, "joint")]
    assert column(opened, "all", body=1) == curve["joint"] == [shown(joint)]
    opened.select_option("#curves-metric", "new")
    after_the_first = [ious(one.steps[1].confusion.vertices)[4:].mean() for one in runs_of(records, "lgkd")]
    cells = opened.locator("#curves-values tbody tr", has_text="lgkd").locator("td").all_inner_texts()
    assert cells[0] == "" and cells[1] == shown(after_the_first)


def test_tradeoff_shows_old_and_new_after_the_last_step(page, records):
    opened = page()
    opened.locator("#tradeoff-values summary").click()
    lines = {line.split(" ", 1)[0]: line for line in texts(opened, "#tradeoff-values tbody tr")}
    assert set(lines) == set(METHODS)
    last = [ious(one.steps[-1].confusion.vertices) for one in runs_of(records, "mib")]
    old, new = [one[1:4].mean() for one in last], [one[4:].mean() for one in last]
    assert lines["mib"].startswith(f"mib {shown(old)} {shown(new)} ")


def test_best_is_bold_and_second_underlined_and_references_stand_apart(page):
    opened = page()
    assert column(opened, "method") == ["lgkd", "mib", "lwf", "finetune"] and column(
        opened, "method", body=1
    ) == ["joint"]
    place = head(opened, "all").evaluate("e => e.cellIndex + 1")
    board = opened.locator(".board:not([hidden])")
    for mark, method in (("b", "lgkd"), ("u", "mib")):
        rows = board.locator(f"tr:has(> :nth-child({place}) {mark}) .method").all_inner_texts()
        assert rows == [method]
    assert texts(opened, ".board:not([hidden]) .between") == ["trained on all classes at once:"]


def test_sorting_is_numeric_and_empty_cells_stay_last(open_page, records, tmp_path):
    gap = copy.deepcopy(runs_of(records, "lwf"))
    for record in gap:
        for step in record.steps:
            for name in ("vertices", "voxels"):
                matrix = np.array(getattr(step.confusion, name))
                matrix[0], matrix[:, 0] = 0, 0
                setattr(step.confusion, name, matrix.tolist())
    others = [one for one in records if one.method.name != "lwf" and len(one.protocol.steps) == 3]
    write_site(build_sections([*gap, *others]), [], tmp_path, [], [])
    opened = open_page(tmp_path / "index.html")
    button = head(opened, "bg")
    for order, sign in (("descending", -1), ("ascending", 1)):
        button.locator("button").click()
        assert button.get_attribute("aria-sort") == order
        cells = column(opened, "bg")
        numbers = [float(cell.split(" ")[0]) for cell in cells[:-1]]
        assert cells[-1] == "" and len(numbers) == 3 and numbers == sorted(numbers, key=lambda v: sign * v)
    button = head(opened, "forgetting")
    button.locator("button").click()  # low is good: best first
    numbers = [float(cell.split(" ")[0]) for cell in column(opened, "forgetting")]
    assert button.get_attribute("aria-sort") == "ascending" and numbers == sorted(numbers)
    assert len(set(map(len, map(str, map(int, numbers))))) > 1  # as text it would be another order
    assert opened.locator(".board:not([hidden]) th[aria-sort]").count() == 1
    opened.locator(".board:not([hidden]) thead th button").first.click()
    assert column(opened, "method") == ["finetune", "lgkd", "lwf", "mib"]


def test_filter_narrows_table_and_charts(page):
    opened = page()
    opened.fill("#words", "minkunet14s LW")
    board = ".board:not([hidden])"
    visible = f"{board} tr[data-row]:not([hidden]) .method"
    assert texts(opened, visible) == ["lwf"]
    opened.fill("#words", "LWF")
    assert texts(opened, visible) == ["lwf"] and texts(opened, f"{board} .hits") == ["1 of 5 rows"]
    assert texts(opened, "#chips button") == ["lwf"]
    assert texts(opened, "#classes-table tbody th") == ["lwf", "joint"]
    opened.fill("#words", "")
    opened.select_option("#status", "verified")
    assert texts(opened, visible) == []
    opened.select_option("#status", "self-reported")
    assert len(texts(opened, visible)) == 5 and texts(opened, f"{board} .hits") == [""]


def test_links_and_address_choose_the_section(page, sections):
    opened = page("")
    titles = ".board:not([hidden]) h2"
    assert texts(opened, titles) == [sections[0].title]
    opened.locator("#choice a").nth(1).click()
    assert texts(opened, titles) == [sections[1].title] and opened.url.endswith(f"#{NAMES[1]}")
    assert opened.locator("#choice a[aria-current]").all_inner_texts() == ["small/3-1-2"]
    opened.reload()
    assert texts(opened, titles) == [sections[1].title]
    opened.go_back()
    assert texts(opened, titles) == [sections[0].title]


def test_rows_without_records_have_a_table_and_no_charts(page):
    opened = page("scannet-scannet-s0-15-5")
    assert column(opened, "all") == ["50.0 ± 0.7"] and column(opened, "status") == ["self-reported"]
    assert opened.locator("#charts").is_hidden()
    link = opened.locator(".board:not([hidden]) th a")
    assert link.get_attribute("href") == "https://arxiv.org/abs/2304.12345"


def test_steps_of_the_protocol_are_named(page):
    opened = page()
    steps = texts(opened, ".board:not([hidden]) .timeline > li")
    assert steps == [
        "Step 0 3 classes wall floor chair",
        "Step 1 1 class sofa",
        "Step 2 2 classes shower curtain desk",
    ]
    facts = texts(opened, ".board:not([hidden]) .facts")[0]
    assert "Background throughout: otherfurniture" in facts and "overlapped" in facts


def test_heat_map_follows_its_slider(page, records):
    opened = page()
    for step in (2, 0):
        opened.locator("#classes-step").fill(str(step))
        cells = opened.locator("#classes-table tbody tr", has_text="lgkd").locator("td").all_inner_texts()
        mean = np.mean([ious(one.steps[step].confusion.vertices) for one in runs_of(records, "lgkd")], axis=0)
        assert cells == [str(int(value + 0.5)) for value in mean] + [""] * (7 - len(mean))
        joint = opened.locator("#classes-table tbody tr", has_text="joint").locator("td").all_inner_texts()
        assert all(joint) == (step == 2)
    assert "after step 0: + wall, floor, chair" in opened.locator("#classes-output").inner_text()


def test_confusion_of_a_method_seed_and_step(page, records):
    opened = page()
    opened.select_option("#confusion-method", label="mib")
    opened.select_option("#confusion-seed", "2")
    opened.locator("#confusion-step").fill("1")
    opened.locator("#confusion-values summary").click()
    opened.wait_for_selector("#confusion-values table")
    matrix = np.array(runs_of(records, "mib")[2].steps[1].confusion.vertices)
    lines = opened.locator("#confusion-values tbody tr").all()
    counts = [[int(cell.replace(",", "")) for cell in line.locator("td").all_inner_texts()] for line in lines]
    assert counts == matrix.tolist()
    share = 100 * matrix / matrix.sum(axis=1, keepdims=True)
    np.fill_diagonal(share, 0)
    worst = texts(opened, "#confusion-worst li")[0]
    assert worst.endswith(f"{share.max():.1f} %")
    drawn = opened.evaluate(
        "echarts.getInstanceByDom(document.getElementById('confusion-chart')).getOption().series[0].data"
    )
    assert len(drawn) == np.count_nonzero(matrix)
    for prediction, truth, level in drawn:
        exact = 100 * matrix[truth][prediction] / matrix[truth].sum()
        assert level == pytest.approx(np.log10(max(exact, 0.01)), abs=1e-9)


def test_hover_names_the_curve_and_its_value(page, records):
    opened = page()
    chart = opened.locator("#curves-chart")
    chart.scroll_into_view_if_needed()
    value = np.mean([ious(one.steps[1].confusion.vertices)[1:].mean() for one in runs_of(records, "lgkd")])
    x, y = opened.evaluate(
        """value => echarts.getInstanceByDom(document.getElementById('curves-chart'))
        .convertToPixel('grid', [1, value])""",
        float(value),
    )
    chart.hover(position={"x": x, "y": y})
    tip = opened.locator("#curves-chart .tip")
    tip.wait_for()
    assert tip.inner_text().split("\n")[0] == "lgkd" and f"all {value:.1f}" in tip.inner_text()


def test_chips_choose_what_is_in_colour(page):
    opened = page()
    colours = """() => echarts.getInstanceByDom(document.getElementById('curves-chart')).getOption().series
        .map(one => one.color)"""
    before = opened.evaluate(colours)
    assert len(set(before)) == 5
    opened.locator("#chips button", has_text="mib").click()
    assert opened.locator("#chips button", has_text="mib").get_attribute("aria-pressed") == "false"
    assert opened.evaluate("document.activeElement.textContent") == "mib"  # the focus stays
    opened.locator("#chosen-none").click()
    assert len(set(opened.evaluate(colours))) == 2  # grey, and the reference
    opened.locator("#chosen-best").click()
    assert opened.evaluate(colours) == before


def test_theme_follows_the_system_until_chosen_and_is_remembered(page):
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = (page(color_scheme=scheme).evaluate(background) for scheme in ("light", "dark"))
    assert light != dark
    opened = page(color_scheme="light")
    toggle = opened.locator("#theme")
    assert toggle.inner_text() == "Dark"
    toggle.click()
    assert opened.evaluate(background) == dark and toggle.inner_text() == "Light"
    opened.reload()
    assert opened.evaluate(background) == dark
    opened.locator("#theme").click()
    assert opened.evaluate(background) == light


NAME_OF_FOCUSED = """e => e.id || (e.matches('th button') ? 'column ' : e.parentElement.id)
    + (e.getAttribute('aria-label') || e.textContent.trim())"""


def test_everything_works_by_keyboard(page):
    opened = page("")
    seen, focused = [], "() => document.activeElement"
    for _ in range(80):
        opened.keyboard.press("Tab")
        place = opened.evaluate_handle(focused)
        name = place.evaluate(NAME_OF_FOCUSED)
        if place.evaluate("e => e === document.body") or name in seen:
            break
        outline = place.evaluate("e => getComputedStyle(e).outlineStyle")
        assert outline != "none", name
        seen.append(name)
        if name.endswith("small/3-1-2"):
            opened.keyboard.press("Enter")
        if name == "column old":
            opened.keyboard.press("Enter")
            assert opened.locator(".board:not([hidden]) th[aria-sort]").inner_text().split()[0] == "old"
        if name == "chipslwf":
            opened.keyboard.press("Space")
            assert place.evaluate("e => e.getAttribute('aria-pressed')") == "false"
        if name == "classes-step":
            opened.keyboard.press("ArrowLeft")
            assert "after step 1" in opened.locator("#classes-output").inner_text()
    expected = ["theme", "words", "status", "column all", "chosen-best", "curves-metric", "confusion-method"]
    assert set(expected) <= set(seen) and opened.url.endswith(NAMES[1])


def test_phone_shows_everything_without_scrolling_sideways(page):
    opened = page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = opened.evaluate(
        """() => [...document.querySelectorAll('button, select, input, summary, #choice a')]
        .filter(e => e.checkVisibility())
        .map(e => [e.id || e.textContent, e.getBoundingClientRect().height])"""
    )
    assert len(boxes) > 20 and [name for name, height in boxes if height < 40] == []
    wide = opened.evaluate(
        """() => [...document.querySelectorAll('main *')]
        .filter(e => e.checkVisibility() && !e.closest('.scroller'))
        .filter(e => e.getBoundingClientRect().right > 391).map(e => e.id || e.className)"""
    )
    assert wide == []


def test_tables_are_there_without_javascript(page, sections, folder, open_page):
    opened = open_page(folder / "index.html", java_script_enabled=False)
    assert texts(opened, ".board h2") == [section.title for section in sections]
    assert opened.locator(".board tr[data-row]").count() == 11
    assert all(opened.locator(".board").nth(index).is_visible() for index in range(3))
    controls = opened.locator("button, input, select").all()
    assert controls and not any(control.is_visible() for control in controls)
    assert opened.locator("#charts").is_hidden()


HOSTILE = "</script><script>window.bad=1</script><img src=x onerror='window.bad=1'>\u202e&amp;{b|x}${a}"


def hostile_sections(records) -> list[Section]:
    made = []
    for record in copy.deepcopy(runs_of(records, "lgkd")):
        record.method.name = record.network.name = record.data.dataset = record.environment.device = HOSTILE
        record.protocol.name = f"p{HOSTILE}"
        record.protocol.steps[1] = [HOSTILE]
        record.protocol.background = [HOSTILE]
        record.steps[1].classes = record.steps[2].classes = ["background", *sum(record.protocol.steps, [])]
        record.method.settings = {HOSTILE: HOSTILE}
        made.append(record)
    row = Row(made, [HOSTILE], HOSTILE)
    other = Row(made, [HOSTILE], HOSTILE)
    bad = reported(method=HOSTILE, name=HOSTILE, device=HOSTILE, paper="javascript:window.bad=1//")
    bad.flags.append(HOSTILE)
    return [Section([row, other], [], [bad])]


def test_hostile_texts_stay_text(records, open_page, tmp_path):
    published = PublishedTable(
        HOSTILE, HOSTILE, "javascript:alert(1)", [HOSTILE], [HOSTILE], [(HOSTILE, [1.0])]
    )
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "<img onerror=x>.png").write_bytes(b"")
    sections = hostile_sections(records)
    write_site(sections, [published], tmp_path, [], [])
    opened = open_page(tmp_path / "index.html")
    opened.locator("#curves-values summary").click()
    opened.locator("#confusion-values summary").click()
    opened.locator("#classes-step").fill("1")
    opened.locator(".board thead button").first.click()
    opened.fill("#words", "img")
    chart = opened.locator("#curves-chart")
    chart.scroll_into_view_if_needed()
    y = opened.evaluate(
        """() => { const chart = echarts.getInstanceByDom(document.getElementById('curves-chart'));
        return chart.convertToPixel('grid', [1, chart.getOption().series[0].data[1]]) }"""
    )
    chart.hover(position={"x": y[0], "y": y[1]})
    opened.locator("#curves-chart .tip").wait_for()
    assert HOSTILE.strip() in opened.locator("#curves-chart .tip b").text_content()
    assert opened.evaluate("window.bad") is None
    assert opened.locator("img").count() == 1 and opened.locator("a[href^=javascript]").count() == 0
    assert HOSTILE in opened.locator(".method").first.text_content()
    (tmp_path / "tables.html").write_text(render_tables_page(sections, [published]), encoding="utf-8")
    tables = open_page(tmp_path / "tables.html")
    assert tables.evaluate("window.bad") is None and tables.locator("img, script").count() == 0
    assert tables.locator("a[href^=javascript]").count() == 0


def test_json_in_the_page_cannot_end_its_element():
    text = json_for_html([HOSTILE, "<!--", "\u2028"])
    assert not re.search(r"[<>&\u2028]", text) and json.loads(text) == [HOSTILE, "<!--", "\u2028"]
    with pytest.raises(ValueError):
        json_for_html([float("nan")])


def test_policy_allows_the_page_s_own_scripts_and_no_network(sections):
    html = render_site(sections, [PUBLISHED])
    policy = re.search('Content-Security-Policy" content="([^"]*)"', html)[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data: blob:"
    assert re.fullmatch(r"('sha256-[A-Za-z0-9+/]{43}=' ?){3}", rules["script-src"])
    assert "connect-src" not in rules and not re.search(r"<(link|iframe|object|base)\b|\son\w+=", html)
    with_rooms = render_site(sections, [], room_names=["a room"])
    rule = re.search("script-src ([^;]*);", with_rooms)[1]
    assert "'self'" in rule and "unsafe" not in rule and '<section id="rooms"' in with_rooms


def floor() -> Scene:
    """A floor of 60 x 60 points: half floor, half chair."""
    x, y = torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij")
    points = torch.stack([x.flatten(), y.flatten(), torch.zeros(3600)], dim=1).float() * 0.05
    labels = torch.tensor([1, 4], dtype=torch.uint8).repeat_interleave(1800)
    return Scene(
        name="scene0000_00",
        points=points,
        colours=torch.full((3600, 3), 90, dtype=torch.uint8),
        normals=torch.tensor([[0.0, 0.0, 1.0]]).repeat(3600, 1),
        labels=labels,
        instances=torch.zeros(3600, dtype=torch.int32),
        voxel_coordinates=torch.stack([x.flatten(), y.flatten(), x.flatten() * 0], dim=1).int(),
        voxel_labels=labels.clone(),
        inverse=torch.arange(3600, dtype=torch.int32),
    )


def test_rooms_lie_beside_the_page_and_are_shown(sections, open_page, tmp_path):
    guess = Prediction(0, ["background", "floor", "chair"], np.repeat([1, 0], 1800).astype(np.uint8))
    path = write_site(sections, [], tmp_path, [(floor(), [RoomRun("lgkd", [guess])])], CLASSES)
    assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*.*")) == [
        "index.html",
        "rooms/scene0000_00.js",
    ]
    opened = open_page(path)
    opened.wait_for_function("globalThis.scannetRooms?.scene0000_00")
    opened.locator("#rooms select").nth(1).locator("option", has_text="lgkd").wait_for(state="attached")
    assert opened.locator("#charts").is_visible()


class Tags(HTMLParser):
    """The tags that a document opens; fails where one is closed that is not open."""

    VOID = {"meta", "img", "input"}

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_both_pages_are_whole_and_the_tables_have_no_script(sections, records):
    for html in (render_site(sections, [PUBLISHED]), render_tables_page(sections, [PUBLISHED])):
        assert Tags(html).open == []
    tags = Tags(html).tags
    assert "script" not in tags and tags.count("table") == 4 and "default-src 'none'; style-src" in html
    single = build_sections([Record.from_json(make_value(steps=[["wall", "floor"]]))])
    assert Tags(render_site(single)).open == [] and Tags(render_site([])).open == []


def test_page_of_one_step_and_page_of_nothing_open_cleanly(open_page, tmp_path):
    single = build_sections([Record.from_json(make_value(steps=[["wall", "floor"]]))])
    write_site(single, [], tmp_path, [], [])
    opened = open_page(tmp_path / "index.html")
    assert opened.locator("#charts").is_visible() and opened.locator("#classes-step").is_hidden()
    write_site([], [], tmp_path, [], [])
    assert open_page(tmp_path / "index.html").locator("h1").is_visible()


def test_published_numbers_stand_apart_with_their_caveats(page):
    opened = page()
    text = opened.locator("#published").inner_text()
    for part in ("Copied from papers", "nor comparable", "blocks of one metre", "Somebody, 2025", "15-5 old"):
        assert part in text
    assert opened.locator("#published td").all_inner_texts() == ["36.06", ""]
    assert opened.locator(".board #published").count() == 0


def test_sections_of_the_same_title_have_names_of_their_own(sections):
    assert section_names([sections[0], sections[1], sections[0]]) == [*NAMES, f"{NAMES[0]}~2"]


def test_what_would_be_too_large_is_left_out_seed_by_seed(sections, monkeypatch):
    section = sections[1]
    whole = site_data.section_data(section)
    assert set(whole["metrics"]) == set(METRICS) and set(whole["rows"][0]["confusions"]) == set(SEEDS)
    per_seed = 4 * (16 + 25 + 49) + 49
    for limit, seeds, steps in ((3 * per_seed, 3, 3), (per_seed, 1, 3), (per_seed - 1, 1, 1)):
        monkeypatch.setattr(site_data, "MOST_COUNTS", limit)
        confusions = site_data.section_data(section)["rows"][0]["confusions"]
        assert len(confusions) == seeds and [len(run) for run in confusions.values()] == [steps] * seeds
