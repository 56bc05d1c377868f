"""Renders the tables and pictures of docs/results.md and the table of REPRODUCIBILITY.md from the records of
benchmarks/; a test compares them.

    python docs/render/render_results.py
    python docs/render/render_results.py --records runs/study --out build/preview  # a look at unfinished runs

Between <!-- begin NAME --> and <!-- end NAME --> stands what this script wrote; the rest is written by hand.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from reproducibility import older, reproducibility
from results_data import (
    PROTOCOLS,
    SEED,
    STUDY,
    Block,
    Results,
    bases,
    changed_settings,
    differences,
    incremental_seconds,
    picture_data,
)

from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError
from scannet_css.files import write_atomic
from scannet_css.leaderboard.rows import Row, mean_and_deviation
from scannet_css.leaderboard.sections import Section, read_records
from scannet_css.leaderboard.text import markdown_table
from scannet_css.metrics import METRICS
from scannet_css.records.record import Record

DOCS = Path(__file__).resolve().parents[1]
BENCHMARKS = DOCS.parent / "benchmarks"
RECORDS = (BENCHMARKS / "records", BENCHMARKS / "tuning")  # the leaderboard's, and those that chose settings
REPRODUCIBILITY = DOCS.parent / "REPRODUCIBILITY.md"
NOTHING = "no records yet"
COLUMNS = ("old", "new", "all", "average", "hiou", "forgetting")
PART = re.compile(r"(<!-- begin (\S+) -->\n)(.*?)(<!-- end \2 -->)", re.DOTALL)
CAPTIONS = {
    "steps-s0-15-1": "all after every step: mean of the seeds, the band is the deviation; dashed: joint",
    "tradeoff-s0-15-5": "15 + 5 classes: old against new; arrows lead from a method to LGKD on top of it",
    "tradeoff-s0-15-1": "15 + 5 times 1 class: old against new; arrows as above",
    "weights": "LGKD's two weights: old, new and all",
}


def main(arguments: Sequence[str]) -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--records", type=Path, nargs="+", default=RECORDS, help="folders of records (those of benchmarks/)"
    )
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of results.md and pictures (docs)")
    options = parser.parse_args(arguments)
    results = Results(load_records(*options.records))
    write_atomic(options.out / "results.md", filled((DOCS / "results.md").read_text("utf-8"), parts(results)))
    table = {"reproducibility": reproducibility(results)}
    beside = options.out.parent if options.out == DOCS else options.out
    write_atomic(beside / REPRODUCIBILITY.name, filled(REPRODUCIBILITY.read_text("utf-8"), table))

    from plots import draw  # the tables do without matplotlib

    for name, data in picture_data(results).items():
        draw(name, data, options.out / "pictures" / f"results_{name}.png")


def load_records(*folders: Path) -> list:
    """All records of the folders that exist. Raises InputError for a bad one."""
    records, problems = read_records([folder for folder in folders if folder.exists()])
    if problems:
        raise InputError(problems[0])
    return records


def filled(text: str, contents: dict[str, str]) -> str:
    """`text` with `contents` between its markers. Raises InputError for a marker of another name."""
    for _, name, *_ in PART.findall(text):
        if name not in contents:
            raise InputError(f"results.md: marker {name!r}, expected one of {', '.join(contents)}")
    return PART.sub(lambda part: part[1] + contents[part[2]] + "\n" + part[4], text)


def parts(results: Results) -> dict[str, str]:
    """Marker -> what stands there."""
    found = {
        "older": older(results),
        "setup": setup(results),
        "bases": base_table(results),
        "claims": claims(results),
    }
    for protocol in PROTOCOLS:
        block = results.blocks.get(protocol)
        found[f"methods-{short(protocol)}"] = methods(block) if block else NOTHING
    found |= {"ablation": ablation(results), "weights": weights(results), "tuning": tuning(results)}
    found["settings"] = settings(results)
    drawn = picture_data(results)
    for name, caption in CAPTIONS.items():
        found[f"picture-{name}"] = f"![{caption}](pictures/results_{name}.png)" if name in drawn else NOTHING
    return found


def setup(results: Results) -> str:
    """What the records say of data, network, recipe and machine."""
    if not results.records:
        return NOTHING

    def values(show: Callable) -> str:
        return "; ".join(sorted({show(record) for record in results.records}))

    def rooms(record: Record) -> str:
        kind = "study" if record.data.manifest_hash.startswith(STUDY) else "tuning"
        scenes = f"{record.data.train_scenes} + {record.data.validation_scenes} scenes"
        return f"{kind} {scenes}, voxels of {record.data.voxel_size:g} m, `{record.data.manifest_hash[:16]}`"

    keys = results.records[0].recipe
    recipe = [
        f"{key} {' or '.join(sorted({value(one.recipe[key]) for one in results.records}))}" for key in keys
    ]
    seconds = sum(step.seconds for record in results.records for step in record.steps)
    facts = {
        "records": f"{len(results.records)}, {seconds / 3600:.1f} hours; a shared step 0 counts in each",
        "rooms": values(rooms),
        "network": values(lambda one: f"{one.network.name}, {one.network.parameters} parameters"),
        "recipe": ", ".join(recipe),
        "machine": values(lambda one: f"{one.environment.device}, {one.environment.threads} threads"),
        "torch": values(lambda one: one.environment.torch),
    }
    return "\n".join(f"- {name}: {text}" for name, text in facts.items())


def methods(block: Block) -> str:
    """Methods by `all`, best in bold; a method that lacks a seed has empty cells; joint and step 0 below."""
    section = block.section
    lines = [method_line(section, row) for row in section.methods]
    for row in sorted(block.incomplete, key=lambda row: row.first.method.name):
        lines.append((row.first.method.name, str(len(row.records)), *[""] * len(COLUMNS), ""))
    lines += [method_line(section, row) for row in section.references]
    for base in bases(block):
        value = spread([*base.by_seed.values()])
        lines.append((f"*after step 0, {base.word} base*", str(len(base.by_seed)), value, *[""] * 6))
    return table(("method", "n", *COLUMNS, "seconds"), lines)


def method_line(section: Section, row: Row) -> tuple[str, ...]:
    cells = [section.cell(row, column) for column in COLUMNS]
    marked = zip(cells, COLUMNS, strict=True)
    shown = [f"**{cell}**" if section.is_best(row, column) else cell for cell, column in marked]
    name = f"*{row.first.method.name}*" if row.first.is_joint else row.first.method.name
    return name, str(len(row.records)), *shown, f"{incremental_seconds(row):.0f}"


def base_table(results: Results) -> str:
    lines = [
        (short(name), base.word, spread([*base.by_seed.values()]), ", ".join(base.methods))
        for name, block in results.blocks.items()
        for base in bases(block)
    ]
    return table(("protocol", "base", "all after step 0", "shared by"), lines)


def claims(results: Results) -> str:
    """LGKD on top of other methods; the differences are paired by seed."""
    names, lines = ("old", "new", "all"), []
    for protocol, block in results.blocks.items():
        for before, after in block.pairs:
            means = {name: (before.values[name][0], after.values[name][0]) for name in names}
            change = [gain(differences(before, after, name)) for name in names]
            first, last = means["new"]
            relative = f"{100 * (last / first - 1):+.0f} %" if first else ""
            shown = [f"{one:.1f} → {other:.1f}" for one, other in means.values()]
            kind = (short(protocol), before.first.method.name, str(len(before.records)))
            lines.append((*kind, *shown, *change, relative))
    changes = [f"Δ {name}" for name in names]
    return table(("protocol", "LGKD on", "n", *names, *changes, "new, relative"), lines)


def gain(changes: Sequence[float]) -> str:
    """Mean ± deviation of paired differences, and how many of them are gains."""
    mean, deviation = mean_and_deviation(changes)
    tail = f" ± {deviation:.1f}" if deviation is not None else ""
    return f"{mean:+.1f}{tail} ({sum(change > 0 for change in changes)}/{len(changes)})"


def ablation(results: Results) -> str:
    """LGKD's `guidance`, one seed."""
    found = results.lgkd_variants("guidance")
    order = [one for one in ("none", "expand", "one-hot", "transplant") if (one,) in found]
    lines = [(one, *numbers(found[one,].metrics(), COLUMNS)) for one in order if len(found) > 1]
    return table(("guidance", *COLUMNS), lines)


def weights(results: Results) -> str:
    """LGKD's two weights, one seed: old / new / all."""
    data = picture_data(results).get("weights")
    if not data:
        return NOTHING
    lines = []
    for index, background in enumerate(data["background_weight"]):
        cells = zip(*(data["values"][name][index] for name in ("old", "new", "all")), strict=True)
        shown = ["" if None in cell else " / ".join(f"{one:.1f}" for one in cell) for cell in cells]
        lines.append((f"{background:g}", *shown))
    return table(("background \\ novel", *(f"{one:g}" for one in data["novel_weight"])), lines)


def tuning(results: Results) -> str:
    """Every setting that was tried on the tuning rooms, with one seed; bold: what the study then used."""
    tables = []
    for protocol, section in results.tuning.items():
        usual = usual_recipe(section.rows)
        varied = [key for key in usual if any(row.first.recipe[key] != usual[key] for row in section.rows)]
        used = [tried(row, varied) for block in results.blocks.values() for row in block.rows]
        lines = []
        for row in sorted(section.rows, key=lambda row: row.first.method.name):
            name, is_used = difference(row, usual), tried(row, varied) in used
            record = next((one for one in row.records if one.seed == SEED), row.first)
            cells = numbers(record.metrics(), COLUMNS[:3])
            line = (row.first.method.name, f"**{name}**" if is_used else name, *cells)
            lines.append((*line, "yes" if is_used else ""))
        head = table(("method", "settings", *COLUMNS[:3], "used in the study"), lines)
        tables.append(f"{short(protocol)}, seed {SEED}:\n\n{head}")
    return "\n\n".join(tables) or NOTHING


def settings(results: Results) -> str:
    """The study's settings, by method; several lines where a protocol has its own."""
    rows = [(short(name), row) for name, block in results.blocks.items() for row in block.rows]
    usual = usual_recipe([row for _, row in rows]) if rows else {}
    found: dict[tuple, list[str]] = {}
    for protocol, row in rows:
        found.setdefault((row.first.method.name, difference(row, usual)), []).append(protocol)
    lines = [(*key, ", ".join(protocols)) for key, protocols in sorted(found.items())]
    return table(("method", "settings", "protocols"), lines)


def usual_recipe(rows: Sequence[Row]) -> dict:
    """Every entry of the recipe as most rows have it."""
    recipes = [row.first.recipe for row in rows]
    columns = {key: [one[key] for one in recipes] for key in recipes[0]}
    return {key: max(found, key=found.count) for key, found in columns.items()}


def tried(row: Row, varied: Sequence[str]) -> list:
    return [row.first.method, *(row.first.recipe[key] for key in varied)]


def difference(row: Row, usual: dict) -> str:
    """The method's settings other than its defaults, and the recipe's other than `usual`."""
    recipe = {key: one for key, one in row.first.recipe.items() if one != usual[key]}
    changes = changed_settings(row) | recipe
    return ", ".join(f"{name} {value(one)}" for name, one in changes.items()) or "defaults"


def value(setting: object) -> str:
    return f"{setting:g}" if isinstance(setting, float) else str(setting)


def numbers(metrics: dict, names: Sequence[str]) -> list[str]:
    return [METRICS[name].shown(metrics[name]) for name in names]


def spread(values: Sequence[float]) -> str:
    """Mean ± unbiased deviation of `all`."""
    return METRICS["all"].shown(*mean_and_deviation(values))


def short(protocol: str) -> str:
    return protocol.rpartition("/")[2]


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown; NOTHING without lines."""
    return markdown_table([header, *lines]).rstrip("\n") if lines else NOTHING


if __name__ == "__main__":
    raise SystemExit(run_command(main))
