"""The table of REPRODUCIBILITY.md: what papers report for each method beside what our records say; and which
of these are older than today's rules."""

import json
from pathlib import Path

from results_data import OLDER_RULES, PROTOCOLS, Results

from scannet_css.leaderboard.published import PublishedTable, read_published
from scannet_css.methods.method import find_method, method_names
from scannet_css.metrics import METRICS

PUBLISHED = Path(__file__).with_name("published.json")
NAMES = ("old", "new", "all")
# Columns that stand in the leaderboard's tables of published numbers: title and setting there.
SHOWN = {
    "scannet_15_5": ("3DPC-CISS: ScanNet, class order S0", "15-5"),
    "scannet_15_1": ("CFSSeg: ScanNet, class order S0", "15-1"),
}


def reproducibility(results: Results) -> str:
    """A line for each method: published old / new / all, and ours as means over the seeds."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    columns = published["columns"]
    tables = {table.title: table for table in read_published()}
    lines = [
        ["method", *columns.values(), "ours: 15-5", "ours: 15-1", "what differs, beside network and data"]
    ]
    lines.append(["---"] * len(lines[0]))
    for method, found in published["methods"].items():
        cells = [_published(tables, found, method, column) for column in columns]
        ours = [_ours(results, protocol, method) for protocol in PROTOCOLS[:2]]
        lines.append([f"`{method}`", *cells, *ours, found.get("differs", "")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _published(tables: dict[str, PublishedTable], found: dict, method: str, column: str) -> str:
    """Old / new / all of a 3D table of the leaderboard, or of a 2D one noted in published.json."""
    values = found.get(column, [])
    if column in SHOWN:
        title, setting = SHOWN[column]
        values = [tables[title].value(method, f"{setting} {name}") for name in NAMES]
    return " / ".join(f"{value:.1f}" for value in values if value is not None)


def _ours(results: Results, protocol: str, method: str) -> str:
    block = results.blocks.get(protocol)
    if block is None:
        return ""
    row = block.joint if method == "joint" else block.by_method.get(method)
    return "" if row is None else " / ".join(METRICS[name].shown(row.values[name][0]) for name in NAMES)


def older(results: Results) -> str:
    """Which methods' records stand for other rules than those of today, and which have none."""
    if not results.records:
        return "no records yet"
    rules = "; ".join(
        f"{', '.join(f'`{one}`' for one in names)}: {rule}" for rule, names in OLDER_RULES.items()
    )
    sentences = []
    if rules:
        sentences.append(
            "**Older than some rules.** These records were made before the following methods took their"
            " published rules ([methods.md](methods.md)), and stand until the study is run again for what"
            f" they did then: {rules}."
        )
    there = {record.method.name for record in results.records}
    missing = [name for name in method_names() if _is_ours(name) and name not in there]
    if missing:
        sentences.append(f"No records yet: {', '.join(f'`{name}`' for name in missing)}.")
    return "\n\n".join(sentences)


def _is_ours(name: str) -> bool:
    """Others register methods too, such as tests."""
    return find_method(name).__module__.startswith("baselines.")
