"""The 3D viewer in a headless browser: what stands on the page, and the pixels it draws."""

import base64
import io
import json
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from scannet_css.classes import CLASSES, COLOURS
from scannet_css.viewer.browser import (
    room_script,
    viewer_css,
    viewer_html,
    viewer_js,
    write_rooms,
    write_viewer_page,
)
from tests.viewer.viewed_room import CEILING_RGB, FLOOR_RGB, HOSTILE, UNLABELLED, make_room, make_run

COLOUR = dict(zip(CLASSES, COLOURS, strict=True))
WRONG, RIGHT, RIGHT_IN_THE_DARK = (230, 0, 100), (185, 200, 190), (77, 90, 82)
RGB, TRUTH, PREDICTION, ERRORS = range(4)
READY = "document.querySelector('.room-viewer').viewer.shownSteps"
TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def room():
    return make_room()


@pytest.fixture(scope="module")
def runs(room):
    return [make_run(room, "alpha", (0.1, 0.45)), make_run(room, "beta", (0.1, 0.2))]


@pytest.fixture(scope="module")
def page_path(room, runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("viewer") / "room.html"
    write_viewer_page(path, [(room, runs)], CLASSES)
    return path


@pytest.fixture
def view(open_page, page_path):
    def open_view(path=page_path, **options):
        page = open_page(path, **options)
        until(page, READY)
        return page

    return open_view


def until(page, expression: str) -> None:
    """Waits for a true value. Playwright's own waiting needs eval, which the page forbids."""
    for _ in range(200):
        if page.evaluate(f"Boolean({expression})"):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"in ten seconds never true: {expression}")


def until_titled(page, panel: int, title: str) -> None:
    until(page, f"document.querySelectorAll('.title')[{panel}]?.textContent === {json.dumps(title)}")


def until_at_rest(page) -> None:
    """Until the camera rests and all points are drawn."""
    page.evaluate(TWO_FRAMES)
    until(page, "document.querySelector('.room-viewer').viewer.panels.isMoving === false")
    page.evaluate(TWO_FRAMES)


def pixels(page, panel: int) -> np.ndarray:
    """(h, w, 3) of a panel below its title, once the camera rests and all points are drawn."""
    until_at_rest(page)
    picture = page.locator(".panel").nth(panel).screenshot()
    return np.array(Image.open(io.BytesIO(picture)).convert("RGB"))[30:].astype(int)


def share(page, panel: int, colour: tuple[int, int, int]) -> float:
    return float((np.abs(pixels(page, panel) - colour).max(axis=-1) <= 2).mean())


def covered(page, panel: int) -> np.ndarray:
    """(h, w) where points are: not the paper."""
    return (np.abs(pixels(page, panel) - 255).max(axis=-1) > 2)[:-2, 2:-2]


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    height, width = (min(sizes) for sizes in zip(first.shape, second.shape, strict=True))
    first, second = first[:height, :width], second[:height, :width]
    return (first & second).sum() / max(1, (first | second).sum())


def choose_step(page, position: int) -> None:
    page.get_by_label("Step", exact=True).fill(str(position))


def test_a_packed_room_holds_exactly_its_labels_and_predictions(room, runs):
    name, text = re.fullmatch(
        r"\(globalThis\.scannetRooms \?\?= \{\}\)\[(.*?)\] = (.*);\n", room_script(room, runs, CLASSES)
    ).groups()
    packed, count = json.loads(text), len(room.points)
    assert json.loads(name) == packed["name"] == "scene0000_00"
    data = zlib.decompress(base64.b64decode(packed["points"]))
    assert packed["vertices"] == count and len(data) == 13 * count
    places = np.frombuffer(data, "<u2", 3 * count).reshape(count, 3)
    error = np.abs(np.array(packed["low"]) + packed["step"] * places - room.points.numpy())
    assert packed["step"] == 0.001 and error.max() <= 0.0005 + 2e-6
    colours, normals, labels = data[6 * count : 9 * count], data[9 * count : 12 * count], data[12 * count :]
    assert np.array_equal(np.frombuffer(colours, "u1"), room.colours.numpy().ravel())
    assert np.array_equal(np.frombuffer(normals, "i1"), 127 * room.normals.numpy().ravel())
    expected = [255 if label == 255 else label + 1 for label in room.labels.tolist()]
    assert list(labels) == expected
    for run, found in zip(runs, packed["runs"], strict=True):
        values = np.frombuffer(zlib.decompress(base64.b64decode(found["predictions"])), "u1").reshape(
            2, count
        )
        for one, step, numbers in zip(run.steps, found["steps"], values, strict=True):
            names = ["background" if n == 0 else CLASSES[n - 1] for n in numbers]
            assert names == [one.channels[value] for value in one.values]
            assert step["seen"] == [CLASSES.index(channel) + 1 for channel in one.channels[1:]]


def test_steps_change_truth_prediction_and_numbers(view, room, runs):
    page = view()
    scored = room.labels.numpy() != UNLABELLED
    assert share(page, TRUTH, COLOUR["table"]) > 0.02  # the last step is shown first
    choose_step(page, 0)
    assert share(page, TRUTH, COLOUR["table"]) == 0 and share(page, TRUTH, (150, 150, 150)) > 0.02
    assert page.locator(".step-text").inner_text() == "step 0 of 1; 3 classes"
    before = pixels(page, PREDICTION)
    few_wrong = share(page, ERRORS, WRONG)
    choose_step(page, 1)
    assert page.locator(".step-text").inner_text() == "step 1 of 1; new: table"
    assert (pixels(page, PREDICTION) != before).any(axis=-1).mean() > 0.05
    assert share(page, ERRORS, WRONG) > few_wrong + 0.03
    for step, one in enumerate(runs[0].steps):
        known = [CLASSES.index(name) for name in one.channels[1:]]
        labels = np.where(np.isin(room.labels, known), room.labels, 0)
        truth = [
            one.channels.index(CLASSES[n]) if n in known else 0
            for n in np.where(np.isin(room.labels, known), labels, 254)
        ]
        wrong = 100 * (scored & (np.array(truth) != one.values)).sum() / scored.sum()
        choose_step(page, step)
        assert page.locator(".title").nth(ERRORS).inner_text() == f"errors: {wrong:.1f} % wrong"
        assert page.locator("tbody tr").nth(0).locator("button").nth(step).inner_text() == f"{wrong:.1f}"


def test_a_class_that_is_off_is_gone_from_all_panels(view):
    page = view()
    choose_step(page, 0)
    kept = {panel: covered(page, panel).mean() for panel in range(4)}
    page.get_by_label("chair").uncheck()
    for panel in (TRUTH, PREDICTION):
        assert share(page, panel, COLOUR["chair"]) == 0
        assert share(page, panel, COLOUR["floor"]) > 0.02 or panel == PREDICTION
    assert covered(page, RGB).mean() < kept[RGB] - 0.02
    page.get_by_role("button", name="None").click()
    assert all(covered(page, panel).mean() < 1e-4 for panel in range(4))
    page.get_by_label("chair").check()
    assert share(page, TRUTH, COLOUR["chair"]) > 0.02 and share(page, TRUTH, COLOUR["floor"]) == 0
    page.get_by_role("button", name="All").click()
    assert {panel: covered(page, panel).mean() for panel in range(4)} == kept


def test_all_panels_look_from_the_same_place(view):
    page = view()
    before = covered(page, RGB)
    box = page.locator(".panel").nth(ERRORS).bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 90, middle[1] - 60, steps=4)
    page.mouse.up()
    after = [covered(page, panel) for panel in range(4)]
    assert overlap(after[RGB], before) < 0.9
    assert all(overlap(after[RGB], other) > 0.98 for other in after[1:])
    page.mouse.wheel(0, -400)  # the stage has the focus by now
    assert covered(page, TRUTH).mean() > after[TRUTH].mean() + 0.02
    assert overlap(covered(page, TRUTH), covered(page, PREDICTION)) > 0.98


def test_the_wheel_is_the_pages_until_the_view_is_clicked(view):
    page = view(viewport={"width": 900, "height": 500})
    before = pixels(page, RGB)
    page.locator(".stage").hover()
    page.mouse.wheel(0, 120)
    until(page, "window.scrollY > 0")
    page.evaluate("window.scrollTo(0, 0)")
    assert np.array_equal(pixels(page, RGB), before)


def test_keys_turn_move_zoom_reset_and_step(view):
    page = view()
    start = covered(page, RGB)
    page.locator(".stage").focus()
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight", "+", "t"):
        before = covered(page, RGB)
        page.keyboard.press(key)
        assert overlap(before, covered(page, RGB)) < 0.97, key
        assert overlap(covered(page, TRUTH), covered(page, RGB)) > 0.98
    page.keyboard.press("r")
    assert overlap(start, covered(page, RGB)) > 0.999
    page.keyboard.press(",")
    assert page.locator(".step-text").inner_text().startswith("step 0 of 1")
    page.keyboard.press(".")
    assert page.locator(".step-text").inner_text().startswith("step 1 of 1")
    page.get_by_label("Step", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".step-text").inner_text().startswith("step 0 of 1")


def test_play_goes_through_the_steps_until_it_is_stopped(view):
    page = view()
    page.get_by_role("button", name="Play").click()
    assert page.locator(".step-text").inner_text().startswith("step 0")
    until(page, "document.querySelector('.step-text').textContent.startsWith('step 1')")
    page.get_by_role("button", name="Pause").click()
    assert page.get_by_role("button", name="Play").is_visible()
    assert page.evaluate("document.querySelector('.room-viewer').viewer.timer") is None


def test_what_faces_away_is_hidden_until_it_is_wanted(view):
    page = view()
    assert share(page, RGB, CEILING_RGB) == 0 and share(page, RGB, FLOOR_RGB) > 0.1
    page.get_by_label("See through").uncheck()
    ceiling = (np.array(CEILING_RGB) * 0.72).round()  # it looks down: in shade
    assert share(page, RGB, ceiling) > 0.1 and share(page, RGB, FLOOR_RGB) < 0.05


def test_methods_are_chosen_and_compared(view, runs):
    page = view()
    alpha = share(page, ERRORS, WRONG)
    page.get_by_label("Method").select_option("beta")
    until_titled(page, PREDICTION, "beta")
    beta = share(page, ERRORS, WRONG)
    assert beta < alpha - 0.01
    page.get_by_label("Compare with").select_option("alpha")
    until_titled(page, 4, "alpha")
    assert page.locator(".title").nth(PREDICTION).inner_text() == "beta"
    assert share(page, 5, WRONG) > share(page, 3, WRONG) + 0.01
    page.get_by_role("button", name="alpha, step 0").click()  # a number chooses its method and step
    until_titled(page, PREDICTION, "alpha")
    assert page.locator(".step-text").inner_text().startswith("step 0")
    page.get_by_label("Compare with").select_option("nothing")
    until(page, "document.querySelectorAll('.panel').length === 4")


def test_a_joint_run_stands_beside_runs_with_more_steps(view, room, runs, tmp_path):
    write_viewer_page(
        tmp_path / "p.html", [(room, [make_run(room, "joint", (0.0,), joint=True), *runs])], CLASSES
    )
    page = view(tmp_path / "p.html")
    assert page.locator(".title").nth(ERRORS).inner_text() == "errors: 0.0 % wrong"
    assert page.get_by_label("Step", exact=True).is_disabled()
    page.get_by_label("Compare with").select_option("alpha")
    until_titled(page, 4, "alpha")
    choose_step(page, 0)
    assert page.locator(".title").nth(3).inner_text() == "errors: 0.0 % wrong"
    assert share(page, 2, COLOUR["table"]) > 0.02  # its only step knows every class
    assert share(page, 4, COLOUR["table"]) == 0


def test_rooms_are_loaded_from_beside_the_page_when_chosen(view, runs, tmp_path):
    rooms = [make_room("scene0000_00"), make_room("scene0001_00", 120, 30)]
    shown = [(one, [make_run(one, "alpha", (0.1, 0.5))]) for one in rooms]
    names = write_rooms(tmp_path / "rooms", shown, CLASSES)
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'self'"
    (tmp_path / "index.html").write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>{viewer_css()}</style>{viewer_html(names)}<script>{viewer_js()}</script>"
    )
    page = view(tmp_path / "index.html")
    assert page.evaluate("Object.keys(scannetRooms)") == ["scene0000_00"]
    first = covered(page, RGB)
    page.get_by_label("Room").select_option("scene0001_00")
    labelled = int((rooms[1].labels != UNLABELLED).sum())
    until(page, f"document.querySelector('.numbers').textContent.includes('{labelled:,}')")
    assert page.evaluate("Object.keys(scannetRooms)") == names
    assert overlap(first, covered(page, RGB)) < 0.97


def test_titles_are_text_whatever_they_hold(view, room, tmp_path):
    rooms = [(room, [make_run(room, HOSTILE, (0.1, 0.2))])]
    write_viewer_page(tmp_path / "p.html", rooms, CLASSES, title=HOSTILE)
    page = view(tmp_path / "p.html")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator(".title").nth(PREDICTION).evaluate("(one) => one.textContent") == HOSTILE
    assert page.locator("tbody th").evaluate("(one) => one.textContent") == HOSTILE


def test_a_phone_shows_all_panels_and_takes_fingers(view):
    page = view(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = [page.locator(".panel").nth(panel).bounding_box() for panel in range(4)]
    assert len({(round(box["x"]), round(box["y"])) for box in boxes}) == 4
    assert all(box["width"] > 150 and box["height"] > 150 for box in boxes)
    assert all(covered(page, panel).mean() > 0.1 for panel in range(4))
    before = covered(page, TRUTH)
    fingers = page.context.new_cdp_session(page)
    x, y = boxes[0]["x"] + 60, boxes[0]["y"] + 100
    for kind, points in (
        ("touchStart", [(x, y)]),
        *(("touchMove", [(x + move, y)]) for move in (15, 30, 45)),
        ("touchEnd", []),
    ):
        touches = [{"x": across, "y": down} for across, down in points]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    assert overlap(before, covered(page, TRUTH)) < 0.9


def test_the_dark_has_its_own_colours(view):
    page = view(color_scheme="dark")
    assert share(page, ERRORS, RIGHT_IN_THE_DARK) > 0.02 and share(page, ERRORS, RIGHT) == 0
    assert share(page, TRUTH, COLOUR["chair"]) > 0.02
    page.emulate_media(color_scheme="light")
    assert share(page, ERRORS, RIGHT) > 0.02


def test_nothing_is_drawn_while_nothing_changes(view):
    page = view()
    until_at_rest(page)
    page.evaluate(
        "() => { const panels = document.querySelector('.room-viewer').viewer.panels, draw = panels.draw;"
        " window.draws = 0; panels.draw = function () { window.draws += 1; draw.call(panels); }; }"
    )
    for _ in range(10):
        page.evaluate(TWO_FRAMES)
    assert page.evaluate("draws") == 0
    page.locator(".stage").focus()
    page.keyboard.press("ArrowLeft")
    until_at_rest(page)
    draws = page.evaluate("draws")
    assert draws in (1, 2)  # in motion, and once more at rest if that had not been all points
    for _ in range(10):
        page.evaluate(TWO_FRAMES)
    assert page.evaluate("draws") == draws


def test_a_large_room_is_drawn(view, tmp_path):
    room = make_room(columns=300, rows=200)
    assert len(room.points) == 120_000
    write_viewer_page(tmp_path / "p.html", [(room, [make_run(room, "alpha", (0.1, 0.45))])], CLASSES)
    page = view(tmp_path / "p.html")
    assert all(covered(page, panel).mean() > 0.1 for panel in range(4))
    assert share(page, TRUTH, COLOUR["chair"]) > 0.02
    shares = np.array([share(page, ERRORS, WRONG), share(page, ERRORS, RIGHT)])
    assert shares.min() > 0.01
    attributes = "document.querySelector('.room-viewer').viewer.panels.renderer.info.memory.geometries"
    assert page.evaluate(attributes) == 1  # four panels, one copy of the points


def test_a_room_without_predictions_is_shown(view, room, tmp_path):
    write_viewer_page(tmp_path / "p.html", [(room, [])], CLASSES)
    page = view(tmp_path / "p.html")
    assert page.locator(".title").all_inner_texts() == ["RGB", "ground truth"]
    assert share(page, TRUTH, COLOUR["table"]) > 0.02
    assert not page.get_by_label("Method").is_visible() and not page.locator(".steps").is_visible()


def test_a_moving_camera_draws_fewer_points_when_frames_are_slow_and_all_of_them_at_rest(view):
    page = view()
    panels = "document.querySelector('.room-viewer').viewer.panels"
    count = page.evaluate(f"{panels}.room.vertices")
    assert sorted(page.evaluate(f"Array.from({panels}.order)")) == list(range(count))
    shares = page.evaluate(
        f"""() => {{
          const panels = {panels};
          return [[1, 330], [0.1, 16.5], [0.2, 5], [1, 5000]].map(([share, took]) => {{
            panels.adapt(share * panels.room.vertices, took);
            return panels.share;
          }});
        }}"""
    )
    assert shares == pytest.approx([0.1, 0.2, 1, 0.05])
    drawn = page.evaluate(
        f"""() => {{
          const panels = {panels};
          panels.share = 0.25;
          panels.moved();
          panels.draw();
          return panels.points.geometry.drawRange.count;
        }}"""
    )
    assert drawn == count / 4
    until(page, f"{panels}.isMoving === false")
    page.evaluate(TWO_FRAMES)
    assert page.evaluate(f"{panels}.points.geometry.drawRange.count") == count
