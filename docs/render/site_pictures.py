"""Pictures of the result page for the README, docs/pictures/site_*.png.

python benchmarks/leaderboard.py runs/study --html site --data data/study/prepared
python docs/render/site_pictures.py site/index.html
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from scannet_css.commands import Parser, run_command

PICTURES = Path(__file__).parents[1] / "pictures"
SECTION = "synthetic-scannet-s0-15-1"
COLOURS = 256  # of the palette: text and flat areas look the same, the file takes a third
DESKTOP = {"viewport": {"width": 1360, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def main(arguments: Sequence[str]) -> None:
    parser = Parser(__doc__)
    parser.add_argument("page", type=Path, metavar="PAGE", help="index.html of the site")
    address = f"{parser.parse_args(arguments).page.resolve().as_uri()}#{SECTION}"
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name, start, options in (
            ("site_table", "body", {**DESKTOP, "color_scheme": "light"}),
            ("site_charts", "#charts .pair", {**DESKTOP, "color_scheme": "dark"}),
            ("site_phone", "#charts .pair", PHONE),
        ):
            page = browser.new_context(**options).new_page()
            page.goto(address)
            take(page, start, PICTURES / f"{name}.png")
        browser.close()


def take(page: Page, start: str, path: Path) -> None:
    """A screenshot of what one sees with the element `start` at the top."""
    page.locator(start).evaluate("e => scrollTo(0, e.getBoundingClientRect().top + scrollY + 16)")
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
