"""The site: one HTML page that opens from disk, with tables, charts and rooms, and needs no network.

Its scripts stand in the page, and the Content-Security-Policy names each by its sha256: nothing else can run
or be loaded. Texts of records reach the page escaped, and its scripts write them as text only.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from scannet_css.files import write_atomic
from scannet_css.leaderboard.html import (
    INTRODUCTION,
    read_asset,
    render_meaning,
    render_protocol,
    render_published,
    render_section_table,
)
from scannet_css.leaderboard.published import PublishedTable
from scannet_css.leaderboard.sections import Section
from scannet_css.leaderboard.site_data import section_data
from scannet_css.scenes import Scene
from scannet_css.viewer.browser import viewer_css, viewer_html, viewer_js, write_rooms
from scannet_css.viewer.predictions import RoomRun

VENDOR = Path(__file__).parents[1] / "vendor"
SCRIPTS = (  # joined in this order into one
    *("dom.js", "table.js", "chart.js", "chosen.js", "curves.js", "tradeoff.js"),
    *("classes.js", "confusion.js", "main.js"),
)


def write_site(
    sections: Sequence[Section],
    published: Sequence[PublishedTable],
    folder: str | Path,
    rooms: Iterable[tuple[Scene, Sequence[RoomRun]]],
    classes: Sequence[str],
) -> Path:
    """Writes index.html, and a script for each room into rooms/, each atomically; returns the page's path.

    `classes` are those of the rooms' data set, none where no room is shown. Every PNG in the
    folder's subfolder `pictures` is shown.
    """
    folder = Path(folder)
    room_names = write_rooms(folder / "rooms", rooms, classes)
    pictures = sorted(folder.glob("pictures/*.png"))
    write_atomic(folder / "index.html", render_site(sections, published, room_names, pictures))
    return folder / "index.html"


def render_site(
    sections: Sequence[Section],
    published: Sequence[PublishedTable] = (),
    room_names: Sequence[str] = (),
    pictures: Iterable[Path] = (),
) -> str:
    """The page as HTML; `pictures` (PNG files) become part of it, rooms/<name>.js lie beside it."""
    names = section_names(sections)
    theme = read_asset("theme.js")
    charts = (VENDOR / "charts.min.js").read_text(encoding="utf-8")
    viewer = [viewer_js()] if room_names else []
    page = "(function () {\n'use strict';\n" + "".join(map(read_asset, SCRIPTS)) + "})();\n"
    data = [{"name": name, **section_data(one)} for name, one in zip(names, sections, strict=True)]
    return Template(read_asset("site.html")).substitute(
        policy=content_policy((theme, charts, page, *viewer), bool(room_names)),
        style=read_asset("tables.css") + read_asset("site.css") + (viewer_css() if room_names else ""),
        theme=theme,
        introduction=escape(INTRODUCTION),
        choice=_choice(sections, names),
        meaning=render_meaning(),
        sections="".join(map(_section, sections, names)),
        rooms=_rooms(room_names),
        pictures="".join(map(_picture, pictures)),
        published=render_published(published),
        data=json_for_html(data),
        charts=charts,
        page=page,
        viewer="".join(f"<script>{script}</script>\n" for script in viewer),
    )


def content_policy(scripts: Iterable[str], has_rooms: bool = False) -> str:
    """The Content-Security-Policy of a page that runs these inline scripts and loads nothing; with rooms, it
    may load scripts that lie beside it, on a server or on disk (file:, which is no 'self' everywhere)."""
    allowed = [f"'sha256-{_digest(script)}'" for script in scripts] + ["'self'", "file:"] * has_rooms
    return (
        f"default-src 'none'; script-src {' '.join(allowed)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def json_for_html(value: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def section_names(sections: Iterable[Section]) -> list[str]:
    """What stands behind # in the address: the title in plain letters, numbered where two are the same."""
    names: list[str] = []
    for section in sections:
        plain = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
        count = sum(re.fullmatch(rf"{plain}(~\d+)?", name) is not None for name in names)
        names.append(plain if count == 0 else f"{plain}~{count + 1}")
    return names


def _choice(sections: Sequence[Section], names: Sequence[str]) -> str:
    """Links to the sections, a line for each data set."""
    lines = []
    both = zip(sections, names, strict=True)
    for dataset, group in groupby(both, key=lambda pair: pair[0].title.partition(", ")[0]):
        links = "".join(f'<a href="#{name}">{escape(_short(section, name))}</a>' for section, name in group)
        lines.append(f'<div><span class="dataset">{escape(dataset)}</span>{links}</div>')
    return "".join(lines)


def _short(section: Section, name: str) -> str:
    """A section's name without its data set; numbered where another one has the same."""
    number = name.partition("~")[2]
    return section.title.partition(", ")[2] + (f" ({number})" if number else "")


def _section(section: Section, name: str) -> str:
    return (
        f'<section class="board" id="{name}" aria-labelledby="title-{name}">'
        f'<h2 id="title-{name}">{escape(section.title)}</h2>'
        f'<p class="about">{escape(section.description)}</p>{render_section_table(section)}'
        f'<p class="hits" aria-live="polite"></p><h3>Protocol</h3>{render_protocol(section)}</section>\n'
    )


def _rooms(names: Sequence[str]) -> str:
    """Where the 3D view goes."""
    if not names:
        return ""
    return (
        '<section id="rooms"><h2>Rooms of the validation split</h2><p class="about">What the runs predict '
        f"after each step. Classes that have not come yet are background.</p>{viewer_html(names)}</section>"
    )


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = escape(path.name)
    image = f'<img alt="{name}" src="data:image/png;base64,{data}">'
    return f'<figure class="picture">{image}<figcaption>{name}</figcaption></figure>'
