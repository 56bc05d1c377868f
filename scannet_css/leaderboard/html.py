"""Sections of the leaderboard and tables of papers -> HTML tables, for the page and for a file of tables.

Every text is escaped. The cells carry their exact value for page/table.js, which sorts by it; without
JavaScript the table reads as it stands.
"""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from scannet_css.leaderboard.published import PublishedTable
from scannet_css.leaderboard.reported import ReportedRow
from scannet_css.leaderboard.rows import VALUES, Row, number
from scannet_css.leaderboard.sections import Section
from scannet_css.leaderboard.text import INTRO, NAMES, PUBLISHED, PUBLISHED_INTRO, TABLE, groups_of
from scannet_css.protocols import load_protocol

PAGE = Path(__file__).parent / "page"
INTRODUCTION = f"{INTRO} Best in bold, second underlined."
MEANING = {
    **{name: metric.meaning for name, metric in VALUES.items()},
    "n": "seeds",
    "orders": "class orders of the same steps in which the method stands here",
    "parameters": "of the network after the last step",
    "hours": "training and evaluation of one run",
    "peak_memory": "the most over all runs",
    "status": "verified: recomputed from a record whose data is registered; self-reported: as sent in",
}
REGIMES = {
    "overlapped": "scenes hold past and future classes too, both labelled background",
    "disjoint": "scenes hold no future class, and past ones are labelled background",
    "sequential": "scenes hold past and future classes too; past ones keep their label",
    "partitioned": "no scene is of two steps; past and future classes in it are labelled background",
}
UNANNOTATED = {
    "ignore": "points without annotation are ignored",
    "background": "points without annotation are trained as background",
}
_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)(?: [A-Za-z]+)?")


def render_tables_page(sections: Sequence[Section], published: Sequence[PublishedTable] = ()) -> str:
    """One HTML file with all tables: no script, no network, no other file."""
    shown = "".join(
        f'<section><h2>{escape(section.title)}</h2><p class="about">{escape(section.description)}</p>'
        f"{render_section_table(section)}</section>\n"
        for section in sections
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>scannet-css leaderboard</title><style>\n{read_asset('tables.css')}</style></head><body>\n"
        f'<main><h1>Leaderboard</h1><p class="about">{INTRODUCTION}</p>{render_meaning()}\n'
        f"{shown}{render_published(published)}</main></body></html>\n"
    )


def read_asset(name: str) -> str:
    """A text file of page/."""
    return (PAGE / name).read_text(encoding="utf-8")


def render_section_table(section: Section) -> str:
    """The table of a section in a scroller of its own: methods, references, rows without records."""
    columns = _columns(section)
    head = "".join(_head(section, column) for column in columns)
    groups = groups_of(section)
    parts = []
    for heading, rows in groups:
        if heading and len(groups) > 1:
            cell = f'<th scope="rowgroup" colspan="{len(columns)}"><span>{heading}</span></th>'
            parts.append(f'<tbody><tr class="between">{cell}</tr></tbody>')
        lines = "".join(_line(section, row, columns) for row in rows)
        parts.append(f'<tbody class="rows">{lines}</tbody>')
    return (
        f'<div class="scroller" tabindex="0" role="region" aria-label="Table of {escape(section.title)}">'
        f'<table class="scores"><thead><tr>{head}</tr></thead>{"".join(parts)}</table></div>'
    )


def _columns(section: Section) -> list[str]:
    """Those that are not empty in every row."""
    return [column for column in TABLE if any(section.cell(row, column) for row in section.all_rows)]


def _head(section: Section, column: str) -> str:
    sorted_by = ' aria-sort="descending"' if column == "all" else ""
    low_is_good = ' data-low="1"' if column in VALUES and VALUES[column].better == "low" else ""
    kind = f'class="{_kind(section, column)}" data-column="{column}"'
    return f'<th scope="col" {kind}{sorted_by}{low_is_good}>{_heading(column)}</th>'


def _heading(column: str) -> str:
    return escape(NAMES.get(column, column).replace("_", " "))


def _kind(section: Section, column: str) -> str:
    """Whether a column holds numbers or text: how it is aligned and sorted."""
    cells = [section.cell(row, column) for row in section.all_rows if column not in VALUES]
    return "number" if all(not cell or _NUMBER.fullmatch(cell) for cell in cells) else "text"


def _line(section: Section, row: Row | ReportedRow, columns: Sequence[str]) -> str:
    # the place in this list is how the page tells rows apart
    position = next(index for index, other in enumerate(section.all_rows) if other is row)
    cells = "".join(_cell(section, row, column) for column in columns)
    return f'<tr data-row="{position}" data-status="{escape(row.status)}">{cells}</tr>\n'


def _cell(section: Section, row: Row | ReportedRow, column: str) -> str:
    if column == "method":
        return f'<th scope="row">{_name(section, row)}</th>'
    mean, separator, deviation = section.cell(row, column).partition(" ± ")
    shown = escape(mean)
    if section.is_best(row, column):
        shown = f"<b>{shown}</b>"
    elif section.is_second(row, column):
        shown = f"<u>{shown}</u>"
    elif column == "status":
        shown = f'<span class="status">{shown}</span>'
    if separator:
        shown += f" <small>± {escape(deviation)}</small>"
    elif column in VALUES and mean:
        shown += " <small></small>"  # keeps the digits of a column below each other
    found = _NUMBER.fullmatch(mean)
    value = row.values[column][0] if column in VALUES else found and float(found[1])
    exact = f' data-value="{value}"' if value is not None else ""
    return f'<td class="{_kind(section, column)}"{exact}>{shown}</td>'


def _name(section: Section, row: Row | ReportedRow) -> str:
    """The first cell: method, settings that tell it from its like, links, and what is to be known of it."""
    name, bracket, settings = section.label(row).partition(" (")
    shown = f'<span class="method">{escape(name)}</span>'
    if bracket:
        shown += f' <span class="settings">({escape(settings)}</span>'
    shown += "".join(f" {_link(text, address)}" for text, address in row.links)
    mark = '<span aria-hidden="true">⚠</span>'
    return shown + "".join(f'<span class="flag">{mark} {escape(flag)}</span>' for flag in row.flags)


def _link(text: str, address: str) -> str:
    """A link, or only its text where the address is not https."""
    if not address.startswith("https://"):
        return escape(text)
    return f'<a href="{escape(address)}" rel="noopener noreferrer">{escape(text)}</a>'


def render_meaning() -> str:
    """What the columns mean, to be unfolded."""
    known = [column for column in TABLE if column in MEANING]
    entries = "".join(
        f"<div><dt>{_heading(column)}:</dt> <dd>{escape(MEANING[column])}</dd></div>" for column in known
    )
    return f'<details class="meaning"><summary>What the columns mean</summary><dl>{entries}</dl></details>'


def render_protocol(section: Section) -> str:
    """Which class arrives when: one entry for each step, then what background is."""
    steps = "".join(
        f'<li><span class="step">Step {index}</span> <span class="size">{_count(names)}</span>'
        f"<ul>{''.join(f'<li>{escape(name)}</li>' for name in names)}</ul></li>"
        for index, names in enumerate(section.steps)
    )
    terms = "".join(f"<div><dt>{name}:</dt> <dd>{escape(text)}</dd></div>" for name, text in _facts(section))
    return (
        '<div class="scroller" tabindex="0" role="region" aria-label="Steps">'
        f'<ol class="timeline" start="0">{steps}</ol></div><dl class="facts">{terms}</dl>'
    )


def _facts(section: Section) -> list[tuple[str, str]]:
    row = section.all_rows[0]
    protocol = row.first.protocol if row.records else load_protocol(row.section_key[3])
    return [
        ("Background throughout", ", ".join(protocol.background) or "none of the data set's classes"),
        ("Regime", f"{protocol.regime}: {REGIMES.get(protocol.regime, 'as its name says')}"),
        ("Unannotated", UNANNOTATED.get(protocol.unannotated, protocol.unannotated)),
    ]


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} class{'es' if len(names) != 1 else ''}"


def render_published(tables: Sequence[PublishedTable]) -> str:
    """The section of the numbers from papers; nothing where there are none."""
    if not tables:
        return ""
    shown = "".join(_published(table) for table in tables)
    return (
        f'<section class="published" id="published"><h2>{PUBLISHED}</h2>'
        f'<p class="warning"><span aria-hidden="true">⚠</span> {PUBLISHED_INTRO}</p>'
        f"<div>{shown}</div></section>\n"
    )


def _published(table: PublishedTable) -> str:
    head = "".join(f'<th scope="col" class="number">{escape(column)}</th>' for column in table.columns)
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="number">{number(value)}</td>' for value in values)
        + "</tr>"
        for name, values in table.rows
    )
    caveats = "".join(f"<li>{escape(caveat)}</li>" for caveat in table.caveats)
    return (
        f"<article><h3>{escape(table.title)}</h3><p>{_link(table.source, table.link)}</p>"
        f"<ul>{caveats}</ul>"
        f'<div class="scroller" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f'<table><thead><tr><th scope="col" class="text">method</th>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div></article>"
    )
