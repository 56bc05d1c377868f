"""A small synthetic data set, made and prepared by the tools as a user would, once for the whole run of
tests."""

import scannet_css  # noqa: F401  before torch: how its threads wait

# isort: split
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Fixtures that several folders use
pytest_plugins = ("tests.fixtures.raw_scans", "tests.fixtures.records", "tests.fixtures.runs")

ROOT = Path(__file__).parents[1]
os.environ.pop("COLUMNS", None)  # commands print as wide as they like, wherever the tests run


def run_command_line(*arguments, **options):
    """Runs a script of the repository with this Python; gives the finished process with its output as
    text."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="session")
def command_line():
    return run_command_line


@pytest.fixture(scope="session")
def small_set(tmp_path_factory):
    """Folder of 10 + 4 prepared synthetic scenes of about 2500 vertices, voxels of 0.15 m."""
    folder = tmp_path_factory.mktemp("small_set")
    size = ("--train", 10, "--val", 4, "--seed", 5, "--vertices", 2500)
    made = run_command_line("tools/make_scans.py", "--out", folder / "scans", *size)
    assert made.returncode == 0, made.stderr
    prepared = run_command_line(
        "tools/prepare_scannet.py",
        "--scans",
        folder / "scans",
        "--out",
        folder / "prepared",
        "--voxel-size",
        0.15,
    )
    assert prepared.returncode == 0, prepared.stderr
    return folder / "prepared"


@pytest.fixture(scope="session")
def three_steps(tmp_path_factory):
    """Path of a protocol with three steps, each of which every small set has scenes for."""
    path = tmp_path_factory.mktemp("protocol") / "three-steps.json"
    path.write_text(
        """{"name": "three-steps", "version": 1, "description": "for tests", "regime": "overlapped",
        "steps": [["wall", "floor", "bed", "sofa", "bookshelf", "desk", "toilet", "bathtub", "curtain"],
                  ["chair", "table", "window", "counter", "sink"], ["door", "cabinet", "picture"]],
        "background": ["refrigerator", "shower curtain", "otherfurniture"], "unannotated": "ignore"}"""
    )
    return path


CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Quiet and without a network: a page that asked for one would show it as an error on its console.
CHROMIUM_OPTIONS = ("--no-sandbox", "--disable-background-networking", "--disable-component-update")


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium (software rendering) for the whole run of tests. CI has to have one."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = [*CHROMIUM_OPTIONS, "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """`open_page(path, **context options)`: the page of a file; whatever reached its console as a warning or
    an error, or asked for a network, fails the test at its end."""
    contexts, complaints = [], []

    def watch(message):
        if message.type in ("error", "warning") and "GPU stall due to ReadPixels" not in message.text:
            complaints.append(f"{message.type}: {message.text}")

    def open_file(path, **options):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        page = contexts[-1].new_page()
        page.on("console", watch)
        page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
        page.on(
            "request",
            lambda request: request.url.startswith("http") and complaints.append(f"asked for {request.url}"),
        )
        page.goto(Path(path).resolve().as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []
