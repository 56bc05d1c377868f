"""The table of REPRODUCIBILITY.md: what papers report for each method beside what our records say."""

import json
from pathlib import Path

from results_data import PROTOCOLS, Results

PUBLISHED = Path(__file__).with_name("published.json")
NAMES = ("old", "new", "all")


def reproducibility(results: Results) -> str:
    """A line for each method: published old / new / all, and ours as means over the seeds."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    columns = published["columns"]
    lines = [
        ["method", *columns.values(), "ours: 15-5", "ours: 15-1", "what differs, beside network and data"]
    ]
    lines.append(["---"] * len(lines[0]))
    for method, found in published["methods"].items():
        cells = [" / ".join(f"{value:.1f}" for value in found.get(column, [])) for column in columns]
        ours = [_ours(results, protocol, method) for protocol in PROTOCOLS[:2]]
        lines.append([f"`{method}`", *cells, *ours, found.get("differs", "")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ours(results: Results, protocol: str, method: str) -> str:
    block = results.blocks.get(protocol)
    if block is None:
        return ""
    row = block.joint if method == "joint" else block.by_method.get(method)
    return "" if row is None else " / ".join(f"{row.values[name][0]:.1f}" for name in NAMES)
