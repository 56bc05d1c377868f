"""The result page: one HTML file that needs no network, no JavaScript and no other file.

For each section of the leaderboard: the table, `all` after each step, old against new, and
the IoU of every class.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from math import ceil
from pathlib import Path

import numpy as np

from scannet_css.files import write_atomic
from scannet_css.learning.metrics import class_ious, summarise
from scannet_css.results.leaderboard import Section
from scannet_css.results.published import PublishedTable
from scannet_css.results.render import REFERENCE, TABLE
from scannet_css.results.rows import Row, mean_and_deviation

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 34, 44  # margins of the plotting area
COLOURS = 8  # --series-0 ... in STYLE

STYLE = """
:root { color-scheme: light dark; --page: #f7f7f5; --card: #ffffff; --text: #1b1b1a; --muted: #66655f;
  --line: #e2e1dc; --heat: 42, 120, 214; --series-0: #2a78d6; --series-1: #e0612d; --series-2: #17996b;
  --series-3: #c98a00; --series-4: #d4588a; --series-5: #5b48c2; --series-6: #008300; --series-7: #d23f3e; }
@media (prefers-color-scheme: dark) { :root { --page: #121211; --card: #1c1c1a; --text: #f0efea; --muted:
  #a3a199; --line: #35342f; --heat: 38, 104, 190; --series-0: #4f97ea; --series-1: #e97748; --series-2:
  #2bb583; --series-3: #d9a11d; --series-4: #e27aa5; --series-5: #9d90f0; --series-6: #4fae4f; --series-7:
  #ea6d6c; } }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 1360px; background: var(--page); color:
  var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .1rem; }
h3 { font-size: .95rem; margin: 1.5rem 0 .5rem; }
p { margin: .2rem 0 1rem; color: var(--muted); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .75rem 1rem;
  overflow-x: auto; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1rem; }
.charts .card { flex: 1 1 400px; }
svg { display: block; width: 100%; height: auto; max-width: 560px; margin: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .86rem; }
th, td { padding: .35rem .5rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; font-weight: 600; color: var(--muted); }
th:first-child, td:first-child { text-align: left; }
.scores th:nth-child(2), .scores td:nth-child(2) { text-align: left; }
td small { color: var(--muted); }
.reference td { color: var(--muted); text-align: left; font-style: italic; border-top: 2px solid
  var(--line); }
.classes td { padding: .3rem .2rem; text-align: center; min-width: 2rem; }
.classes td:first-child { padding-right: .75rem; text-align: left; }
.classes .first { border-left: 3px solid var(--card); }
.classes thead tr:last-child th:not(:first-child) { writing-mode: vertical-rl; transform: rotate(180deg);
  text-align: left; padding: .4rem .2rem; font-weight: 400; border: 0; }
.classes .step { text-align: center; }
.heat { background: rgba(var(--heat), var(--value)); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin-top: .75rem; padding: 0 .25rem; }
.legend span { display: inline-flex; align-items: center; gap: .4rem; }
.legend svg { width: 22px; height: 14px; }
svg text { fill: var(--muted); font-size: 12px; }
svg .title { fill: var(--text); font-size: 13px; font-weight: 600; }
.grid { stroke: var(--line); stroke-width: 1; }
.curve { fill: none; stroke-width: 2; }
.dashed { stroke-dasharray: 6 5; }
.whisker { stroke-width: 1.5; opacity: .55; }
.mark { stroke: var(--card); stroke-width: 1.5; }
.pictures figure { margin: 0 0 1rem; }
.pictures img { max-width: 100%; border-radius: 4px; display: block; }
figcaption { color: var(--muted); font-size: .86rem; margin-top: .3rem; }
"""


def write_page(sections: Sequence[Section], folder: str | Path) -> None:
    """Writes index.html into `folder`, atomically; every PNG in its subfolder `pictures` is shown."""
    write_atomic(
        Path(folder) / "index.html", render_page(sections, sorted(Path(folder).glob("pictures/*.png")))
    )


def render_page(sections: Sequence[Section], pictures: Iterable[Path] = ()) -> str:
    """The page as HTML; the pictures (PNG files) become part of it."""
    shown = "".join(_section(section) for section in sections)
    figures = "".join(_picture(path) for path in pictures)
    if figures:
        figures = f'<h2>Pictures</h2><div class="pictures">{figures}</div>'
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>scannet-css results</title><style>{STYLE}</style></head><body>"
        "<h1>Continual semantic segmentation: results</h1>"
        "<p>IoU in percent at raw vertices after the last step, mean ± standard deviation over n seeds; "
        f"best in bold.</p>{shown}{figures}</body></html>\n"
    )


def render_tables_page(sections: Sequence[Section], published: Sequence[PublishedTable]) -> str:
    """The tables alone."""
    return render_page([section for section in sections if section.rows])


def _section(section: Section) -> str:
    charts = [chart for chart in (_curves(section), _trade_off(section)) if chart]
    cards = "".join(f'<div class="card">{chart}</div>' for chart in charts)
    figures = f'<div class="charts">{cards}</div>{_legend(section)}' if charts else ""
    return (
        f"<section><h2>{escape(section.title)}</h2><p>{escape(section.description)}</p>"
        f'<div class="card">{_scores(section)}</div>{figures}'
        f'<h3>IoU of each class after the last step</h3><div class="card">{_classes(section)}</div>'
        "</section>\n"
    )


def _scores(section: Section) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in TABLE)
    body = "".join(_score_line(section, row) for row in section.methods)
    if section.references and section.methods:
        body += f'<tr class="reference"><td colspan="{len(TABLE)}">{REFERENCE}</td></tr>'
    body += "".join(_score_line(section, row) for row in section.references)
    notes = "".join(
        f"<p>{escape(section.label(row))}: {escape(flag)}</p>" for row in section.rows for flag in row.flags
    )
    return f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}'


def _score_line(section: Section, row: Row) -> str:
    cells = []
    for column in TABLE:
        mean, separator, deviation = section.cell(row, column).partition(" ± ")
        text = f"<b>{escape(mean)}</b>" if section.is_best(row, column) else escape(mean)
        cells.append(f"<td>{text}{f' <small>± {escape(deviation)}</small>' if separator else ''}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _classes(section: Section) -> str:
    steps = section.rows[0].first.protocol.steps
    names = ["background", *(name for step in steps for name in step)]
    starts = {1 + sum(map(len, steps[:index])) for index in range(len(steps))}
    groups = "".join(
        f'<th class="step first" colspan="{len(step)}">step {index}</th>' for index, step in enumerate(steps)
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for row in section.rows:
        ious = np.mean([100 * class_ious(one.steps[-1].confusion.vertices) for one in row.records], axis=0)
        cells = "".join(_heat_cell(iou, channel in starts) for channel, iou in enumerate(ious))
        lines.append(f"<tr><td>{escape(section.label(row))}</td>{cells}</tr>")
    return (
        f'<table class="classes"><thead><tr><th></th><th></th>{groups}</tr><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _heat_cell(iou: float, is_first: bool) -> str:
    first = " first" if is_first else ""
    if np.isnan(iou):
        return f'<td class="{first.strip()}"></td>'
    return f'<td class="heat{first}" style="--value: {iou / 100:.3f}">{iou:.0f}</td>'


def _curves(section: Section) -> str:
    """`all` after each step, mean over seeds; references are level lines. Empty for one step."""
    count = len(section.rows[0].first.protocol.steps)
    lines = {}
    for index, row in enumerate(section.rows):
        runs = [[summarise([step.confusion.vertices])["all"] for step in one.steps] for one in row.records]
        values = [mean_and_deviation(step)[0] for step in zip(*runs, strict=True)]
        lines[index] = [(step, value) for step, value in enumerate(values) if value is not None]
    if count == 1 or not any(lines.values()):
        return ""
    top = _limit(value for line in lines.values() for _, value in line)
    ticks = range(0, count, ceil(count / 12))
    body = [_axes("all after each step", "step", {step: step / (count - 1) for step in ticks}, top)]
    for index, row in enumerate(section.rows):
        points = [(_x(step / (count - 1)), _y(value / top)) for step, value in lines[index]]
        tip = f"{section.label(row)}: " + ", ".join(f"{value:.1f}" for _, value in lines[index])
        if row.first.is_joint:
            points = [(_x(0), y) for _, y in points] + [(_x(1), y) for _, y in points]
        body.append(_line(points, _colour(section, index), row.first.is_joint, tip))
        body += [] if row.first.is_joint else [_mark(x, y, section, index, tip) for x, y in points]
    return _svg(body)


def _trade_off(section: Section) -> str:
    """Old against new at the last step, mean and deviation over seeds. Empty if no row has both."""
    values = {index: (row.values["old"], row.values["new"]) for index, row in enumerate(section.rows)}
    values = {i: (old, new) for i, (old, new) in values.items() if old[0] is not None and new[0] is not None}
    if not values:
        return ""
    top = _limit(mean for pair in values.values() for mean, _ in pair)
    body = [_axes("new against old classes", "old", {tick: tick / top for tick in _ticks(top)}, top, "new")]
    for index, ((old, old_deviation), (new, new_deviation)) in values.items():
        x, y, colour = _x(old / top), _y(new / top), _colour(section, index)
        tip = f"{section.label(section.rows[index])}: old {old:.1f}, new {new:.1f}"
        across = [(_x((old + side * (old_deviation or 0)) / top), y) for side in (-1, 1)]
        along = [(x, _y((new + side * (new_deviation or 0)) / top)) for side in (-1, 1)]
        body += [_line(whisker, colour, False, tip, "whisker") for whisker in (across, along)]
        body.append(_mark(x, y, section, index, tip))
    return _svg(body)


def _legend(section: Section) -> str:
    entries = []
    for index, row in enumerate(section.rows):
        line = _line([(0, 7), (22, 7)], _colour(section, index), row.first.is_joint, "")
        mark = _mark(11, 7, section, index, "")
        entries.append(
            f'<span><svg viewBox="0 0 22 14">{line}{mark}</svg>{escape(section.label(row))}</span>'
        )
    return f'<div class="legend">{"".join(entries)}</div>'


def _axes(title: str, x_name: str, x_ticks: dict, top: float, y_name: str = "IoU") -> str:
    parts = [f'<text class="title" x="{LEFT}" y="18">{title}</text>']
    for tick in _ticks(top):
        y = _y(tick / top)
        parts.append(f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_x(0) - 8}" y="{y + 4}" text-anchor="end">{tick}</text>')
    for tick, place in x_ticks.items():
        parts.append(f'<text x="{_x(place)}" y="{_y(0) + 18}" text-anchor="middle">{tick}</text>')
    parts.append(f'<text x="{_x(0.5)}" y="{HEIGHT - 8}" text-anchor="middle">{x_name}</text>')
    middle = _y(0.5)
    return "".join(parts) + (
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{y_name}</text>'
    )


def _line(points: list, colour: str, is_dashed: bool, tip: str, kind: str = "curve") -> str:
    path = " ".join(f"{x},{y}" for x, y in points)
    dashed = " dashed" if is_dashed else ""
    return f'<polyline class="{kind}{dashed}" points="{path}" style="stroke: {colour}">{_tip(tip)}</polyline>'


def _mark(x: float, y: float, section: Section, index: int, tip: str) -> str:
    """A circle, from the ninth method on another shape; a diamond for a reference."""
    style = f'class="mark" style="fill: {_colour(section, index)}"'
    shape = "diamond" if section.rows[index].first.is_joint else index // COLOURS
    if shape == 0:
        return f'<circle {style} cx="{x}" cy="{y}" r="5">{_tip(tip)}</circle>'
    corners = {"diamond": ((0, -7), (7, 0), (0, 7), (-7, 0)), 1: ((-5, -5), (5, -5), (5, 5), (-5, 5))}
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners.get(shape, ((0, -6), (6, 5), (-6, 5))))
    return f'<polygon {style} points="{path}">{_tip(tip)}</polygon>'


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _svg(body: list[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(body)}</svg>'


def _colour(section: Section, index: int) -> str:
    return "var(--muted)" if section.rows[index].first.is_joint else f"var(--series-{index % COLOURS})"


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _limit(values: Iterable[float]) -> int:
    return max(20, min(100, 20 * ceil(max(values) / 20)))


def _ticks(top: int) -> range:
    return range(0, top + 1, 10 if top <= 40 else 20)


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = escape(path.name)
    image = f'<img alt="{name}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{name}</figcaption></figure>"
