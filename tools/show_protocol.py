"""Counts what each step of a protocol shows of a prepared data set, and what it hides as background.

    python tools/show_protocol.py --data data/scannet --protocol scannet/lgkd-14-5 --out exposure

For every step the training scenes, and the points and instances of each class that the labels show, hide as
background (old or future classes) or ignore; and how many scenes come back in a later step, as the protocol
has it, in overlapped and in partitioned data. Prints the tables and writes exposure.json, exposure.md and the
picture exposure.svg into --out. What the words mean: docs/protocols.md.
"""

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from tqdm import tqdm

from scannet_css.commands import Parser, run_command
from scannet_css.files import write_atomic, write_json
from scannet_css.protocols import Protocol, load_protocol
from scannet_css.protocols.exposure import (
    OUTCOMES,
    StepExposure,
    count_instances,
    measure_exposure,
    measure_recurrence,
)
from scannet_css.scenes import Manifest, load_manifest, load_scene

COLOURS = {  # outcome -> on light, on dark
    "new": ("#2a78d6", "#4f97ea"),
    "old": ("#17996b", "#2bb583"),
    "old_hidden": ("#e0612d", "#e97748"),
    "future_hidden": ("#c98a00", "#d9a11d"),
    "background": ("#8b8a84", "#87867f"),
    "no_class_hidden": ("#8a6f8e", "#a58aa9"),
    "ignored": ("#d3d2cc", "#4a4944"),
}
WIDTH, LEFT, RIGHT = 860, 92, 200  # the picture, and what its bars leave free
BAR, GAP = 26, 10
FEWEST_FOR_TEXT = 0.05  # share of a bar that is wide enough for its number


def main(arguments: Sequence[str]) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--data", required=True, help="folder of the prepared data set")
    parser.add_argument("--protocol", required=True, help="name, or path of a JSON file")
    parser.add_argument("--out", required=True, type=Path, help="folder for the three files")
    options = parser.parse_args(arguments)
    protocol, manifest = load_protocol(options.protocol), load_manifest(options.data)
    steps = measure_exposure(protocol, manifest, read_instances(protocol, manifest))
    recurrence = measure_recurrence(protocol, manifest)
    tables = as_markdown(protocol, manifest, steps) + as_recurrence_table(recurrence)
    content = {**as_json(protocol, manifest, steps), "recurrence": recurrence}
    write_json(options.out / "exposure.json", content)
    write_atomic(options.out / "exposure.md", tables)
    write_atomic(options.out / "exposure.svg", as_svg(protocol, manifest, steps, recurrence))
    print(tables, end="")
    print(f"\nwritten: {options.out}/exposure.json, exposure.md, exposure.svg")


def read_instances(protocol: Protocol, manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """The instances per class of every training scene that some step has."""
    entries = {
        entry.name: entry for step in range(len(protocol.steps)) for entry in protocol.scenes(step, manifest)
    }
    counts = {}
    for name, entry in tqdm(sorted(entries.items()), unit="scene", disable=None):
        scene = load_scene(manifest.path(entry))
        counts[name] = count_instances(scene.labels, scene.instances, len(manifest.classes))
    return counts


def as_json(protocol: Protocol, manifest: Manifest, steps: list[StepExposure]) -> dict:
    """Everything that was counted, and what it was counted on."""
    return {
        "protocol": {"name": protocol.name, "hash": protocol.hash, "regime": protocol.regime},
        "dataset": {"name": manifest.dataset, "hash": manifest.hash},
        "outcomes": OUTCOMES,
        "steps": [
            {
                "step": one.step,
                "classes": list(one.classes),
                "background_shift": one.background_shift,
                "points": {outcome: one.points(outcome) for outcome in OUTCOMES},
                "instances": {outcome: one.instances(outcome) for outcome in OUTCOMES},
                "groups": [vars(group) for group in one.groups],
                "scenes": list(one.scenes),
            }
            for one in steps
        ],
    }


def as_markdown(protocol: Protocol, manifest: Manifest, steps: list[StepExposure]) -> str:
    """One table of all steps, then one of the classes of each step."""
    used = [outcome for outcome in OUTCOMES if any(one.points(outcome) for one in steps)]
    rows = [
        [
            one.step,
            len(one.scenes),
            f"{one.points():,}",
            *(_percent(one.points(outcome), one.points()) for outcome in used),
            _shift(one),
        ]
        for one in steps
    ]
    titles = (OUTCOMES[outcome] for outcome in used)
    parts = [
        f"# {protocol.name} ({protocol.regime}) on {manifest.dataset}\n",
        "Shares of the vertices in the training scenes of a step. Background shift: of the vertices that the",
        "step shows as background, the share that is an old or a future class.\n",
        _table(("step", "scenes", "vertices", *titles, "background shift"), rows),
    ]
    for one in steps:
        rows = [
            [g.name, OUTCOMES[g.outcome], f"{g.points:,}", _percent(g.points, one.points()), g.instances]
            + [g.scenes]
            for g in one.groups
        ]
        rows.append(["all", "", f"{one.points():,}", _percent(1, 1), one.instances(), len(one.scenes)])
        parts.append(f"\n## Step {one.step}: {', '.join(one.classes)}\n")
        parts.append(_table(("class", "in the labels", "vertices", "share", "instances", "scenes"), rows, 2))
    return "\n".join(parts) + "\n"


def as_recurrence_table(recurrence: dict[str, list[tuple[int, int]]]) -> str:
    """How many scenes come back, by regime."""
    head = ("regime", *(f"step {step}" for step in range(len(next(iter(recurrence.values()))))))
    rows = [[regime, *(_again(*one) for one in found)] for regime, found in recurrence.items()]
    words = "Training scenes of each step, and how many of them an earlier step has had.\n"
    return "\n".join(["\n## Scenes that come back\n", words, _table(head, rows, 1)]) + "\n"


def _again(scenes: int, again: int) -> str:
    return f"{scenes}, {again} again"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], words: int = 0) -> str:
    """A Markdown table, padded to be read as it is; the first `words` columns are to the left."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]
    rule = ["-" * width if column < words else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    lines = []
    for row in (cells[0], rule, *cells[1:]):
        padded = (
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


def as_svg(
    protocol: Protocol,
    manifest: Manifest,
    steps: list[StepExposure],
    recurrence: dict[str, list[tuple[int, int]]],
) -> str:
    """Stacked bars, one per step: all vertices of its scenes, below all instances, and the scenes that come
    back by regime."""
    used = [outcome for outcome in OUTCOMES if any(one.points(outcome) for one in steps)]
    body, top = [], 34
    body.append(f'<text class="title" x="{GAP}" y="22">{escape(protocol.name)} ({protocol.regime})</text>')
    x = LEFT
    top += 8
    for outcome in used:
        words = OUTCOMES[outcome]
        if x + 30 + 7 * len(words) > WIDTH:
            x, top = LEFT, top + 20
        body.append(f'<rect class="{outcome}" x="{x}" y="{top}" width="12" height="12" rx="2"/>')
        body.append(f'<text x="{x + 18}" y="{top + 10}">{words}</text>')
        x += 30 + 7 * len(words)
    top += 22
    for what in ("points", "instances"):
        title = "vertices" if what == "points" else what
        body.append(f'<text class="title" x="{LEFT}" y="{top + 22}">{title}</text>')
        notes = "background shift" if what == "points" else ""
        body.append(f'<text x="{WIDTH - GAP}" y="{top + 22}" text-anchor="end">{notes}</text>')
        top += 34
        for one in steps:
            body.append(_bar(one, what, used, top))
            top += BAR + GAP
    bars, top = _recurrence_bars(recurrence, top)
    body += bars
    style = _style(used)
    about = f"{protocol.name} on {manifest.dataset}: what each step shows and hides"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + GAP}" role="img">'
        f"<title>{escape(about)}</title><style>{style}</style>"
        f'<rect class="page" width="{WIDTH}" height="{top + GAP}"/>{"".join(body)}</svg>\n'
    )


def _recurrence_bars(recurrence: dict[str, list[tuple[int, int]]], top: int) -> tuple[list[str], int]:
    """A group of bars for each regime, as long as a step has scenes, and how far down they reach."""
    most = max(scenes for found in recurrence.values() for scenes, _ in found)
    body = []
    for regime, found in recurrence.items():
        body.append(f'<text class="title" x="{LEFT}" y="{top + 22}">scenes, {escape(regime)}</text>')
        top += 34
        for step, (scenes, again) in enumerate(found):
            middle, width = top + BAR / 2 + 4, (WIDTH - LEFT - RIGHT) / most
            body.append(f'<text x="{LEFT - GAP}" y="{middle}" text-anchor="end">step {step}</text>')
            for words, x, count in (("again", 0, again), ("first", again, scenes - again)):
                place = f'x="{LEFT + x * width:.1f}" y="{top}" width="{count * width:.1f}" height="{BAR}"'
                body.append(f'<rect class="{words}" {place}/>')
            x = LEFT + scenes * width + GAP
            body.append(f'<text x="{x:.1f}" y="{middle}">{_again(scenes, again)}</text>')
            top += BAR + GAP
    return body, top


def _bar(one: StepExposure, what: str, used: Sequence[str], top: int) -> str:
    count = getattr(one, what)
    total, width = count(), WIDTH - LEFT - RIGHT
    middle = top + BAR / 2 + 4
    parts = [f'<text x="{LEFT - GAP}" y="{middle}" text-anchor="end">step {one.step}</text>']
    x = float(LEFT)
    for outcome in used:
        share = count(outcome) / total if total else 0
        if share:
            tip = f"{OUTCOMES[outcome]}: {count(outcome):,} ({share:.1%})"
            parts.append(
                f'<rect class="{outcome}" x="{x:.1f}" y="{top}" width="{share * width:.1f}" height="{BAR}">'
                f"<title>{tip}</title></rect>"
            )
        if share >= FEWEST_FOR_TEXT:
            place = f'x="{x + share * width / 2:.1f}" y="{middle}" text-anchor="middle"'
            parts.append(f'<text class="on {outcome}-text" {place}>{share:.0%}</text>')
        x += share * width
    note = f"{len(one.scenes)} scenes, {_short(total)}" if what == "points" else f"{total:,}"
    parts.append(f'<text x="{x + GAP:.1f}" y="{middle}">{note}</text>')
    if what == "points":
        place = f'x="{WIDTH - GAP}" y="{middle}" text-anchor="end"'
        parts.append(f'<text class="title" {place}>{_shift(one)}</text>')
    return "".join(parts)


def _style(used: Sequence[str]) -> str:
    colours = {**COLOURS, "first": COLOURS["new"], "again": COLOURS["old_hidden"]}
    used = [*used, "first", "again"]
    light = "".join(f".{name}{{fill:{colours[name][0]}}}" for name in used)
    dark = "".join(f".{name}{{fill:{colours[name][1]}}}" for name in used)
    return (
        "text{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#5c5b56}"
        ".title{font-size:13px;font-weight:600;fill:#1b1b1a}.page{fill:#fff}.on{fill:#fff}"
        f".on.ignored-text{{fill:#1b1b1a}}{light}"
        "@media (prefers-color-scheme:dark){text{fill:#a3a199}.title{fill:#f0efea}.page{fill:#1c1c1a}"
        f".on{{fill:#111}}.on.ignored-text{{fill:#f0efea}}{dark}}}"
    )


def _shift(one: StepExposure) -> str:
    return "no background" if one.background_shift is None else f"{one.background_shift:.1%}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _short(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


if __name__ == "__main__":
    sys.exit(run_command(main))
