"""report.json as a page: one HTML file that needs no network, no JavaScript and no other file."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from scannet_css.scenes.report.cells import cell, percent, section, shortened, table, words
from scannet_css.scenes.report.histogram import draw_histogram

MOST_IN_HEAT_MAP = 40  # classes
MOST_SCENES = 5000  # in the table of all; beyond, manifest.json has them
_STYLE = Path(__file__).parent / "preparation_report.css"


def render_page(content: Mapping[str, Any]) -> str:
    """The page as HTML; `content` as in report.json. Every text in it is escaped."""
    parts = [_head(content), _tiles(content), _problems(content["scans"])]
    if "dataset" in content:
        parts += [
            _expected(content["expected"]),
            _sizes(content),
            _findings(content),
            _classes(content),
            _co_occurrence(content),
            _label_conflicts(content),
        ]
    parts.append(_seconds(content["seconds"]))
    parts.append(_scenes(content))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    title = escape(f"Preparation of {content.get('dataset', 'nothing')}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>\n{_STYLE.read_text(encoding='utf-8')}</style></head><body>\n"
        f"<h1>{title}</h1>\n{''.join(parts)}</body></html>\n"
    )


def _head(content: Mapping[str, Any]) -> str:
    if "dataset" not in content:
        return "<p>No scene could be prepared.</p>"
    digests = {name: value[:12] if len(value) == 64 else value for name, value in content["settings"].items()}
    settings = "".join(f", {name.replace('_', ' ')} {value}" for name, value in sorted(digests.items()))
    return (
        f"<p>Voxels of {content['voxel_size']:g} m{escape(settings)}. Hash of the content "
        f"{escape(content['hash'][:12])}.</p>\n"
    )


def _tiles(content: Mapping[str, Any]) -> str:
    scans, splits = content["scans"], content.get("splits", {}).values()
    failed = len(scans["failed"])
    tiles = [
        ("scenes", sum(split["scenes"] for split in splits), ""),
        ("made now", scans["made"], ""),
        ("kept", scans["kept"], ""),
        ("failed", failed, "bad" if failed else ""),
        ("vertices", sum(split["vertices"]["total"] for split in splits), ""),
        ("voxels", sum(split["voxels"]["total"] for split in splits), ""),
    ]
    shown = (f'<div class="{kind}"><b>{count:,}</b><span>{name}</span></div>' for name, count, kind in tiles)
    return f'<div class="tiles">{"".join(shown)}</div>\n'


def _problems(scans: Mapping[str, Any]) -> str:
    """What failed and what was left out."""
    parts = []
    if scans["failed"]:
        rows = ([cell(name), words(reason)] for name, reason in scans["failed"].items())
        parts.append(
            section("Failed", "Give the same command again once this is mended.")
            + table(["scan", "reason"], rows, text_columns=(1,))
        )
    left_out = []
    for split, count in scans["absent"].items():
        left_out.append(f"{count} scans of the {split} list are not there")
    if scans["unlisted"]:
        left_out.append(f"in no split list: {shortened(scans['unlisted'])}")
    if scans["leftover"]:
        left_out.append(f"prepared before, but without a scan now: {shortened(scans['leftover'])}")
    if left_out:
        parts.append(section("Skipped", "") + "".join(f"<p>{escape(line)}</p>" for line in left_out))
    return "".join(parts)


def _expected(expected: Mapping[str, Any] | None) -> str:
    if expected is None:
        return ""
    marked = expected["differences"]
    verdict = (
        f'<span class="bad">{marked} differences</span>'
        if marked
        else '<span class="good">all as expected</span>'
    )
    rows = []
    for split, found in expected["splits"].items():
        counts = [len(found[key]) for key in ("missing", "elsewhere", "other_vertices")]
        rows.append(
            [cell(split), cell(f"{found['found']:,}"), cell(f"{found['expected']:,}")]
            + [cell(f"{count:,}", "bad" if count else "") for count in counts]
        )
    head = ["split", "scans", "expected", "missing", "not of this split", "other vertices"]
    parts = [
        section(
            "Against ScanNet v2",
            "Scans and the vertices of each, one by one; classes where a split is whole.",
        ),
        f"<p>{verdict}</p>",
        table(head, rows),
    ]
    for split, found in expected["splits"].items():
        if found["missing"]:
            parts.append(f"<p>missing in {split}: {escape(shortened(found['missing']))}</p>")
        if found["elsewhere"]:
            parts.append(f"<p>not in the official {split} list: {escape(shortened(found['elsewhere']))}</p>")
        if found["other_vertices"]:
            named = [
                f"{n} {c['found']:,} instead of {c['expected']:,}" for n, c in found["other_vertices"].items()
            ]
            parts.append(f"<p>vertices, {split}: {escape(shortened(named))}</p>")
    for split, classes in expected["classes"].items():
        parts.append(_expected_classes(split, classes))
    return "".join(parts)


def _expected_classes(split: str, classes: Mapping[str, Any]) -> str:
    rows = []
    for name, row in classes.items():
        kind = "bad" if row["differs"] else ""
        cells = [cell(name), cell(f"{row['scans']:,}", kind), cell(f"{row['expected_scans']:,}")]
        if "share" in row:
            cells += [cell(f"{row['share']:.3%}", kind), cell(f"{row['expected_share']:.3%}")]
        rows.append(cells)
    head = ["class", "scans with it", "expected", "share of vertices", "expected"][: len(rows[0])]
    return f"<details><summary>classes in {escape(split)}</summary>{table(head, rows)}</details>"


def _sizes(content: Mapping[str, Any]) -> str:
    marks = ("total", "mean", "smallest", "p5", "median", "p95", "largest")
    parts = [section("Sizes", "")]
    for what in ("vertices", "voxels"):
        rows = (
            [cell(split), cell(f"{sizes['scenes']:,}"), cell(f"{sizes['labelled']:,}")]
            + [cell(f"{sizes[what][mark]:,}") for mark in marks]
            for split, sizes in content["splits"].items()
        )
        parts.append(table([f"{what} per scene", "scenes", "labelled", *marks], rows))
    charts = (
        f'<div class="card">{draw_histogram(what, content["histograms"][what])}</div>'
        for what in ("vertices", "voxels")
    )
    parts.append(f'<div class="charts">{"".join(charts)}</div>')
    return "".join(parts)


def _classes(content: Mapping[str, Any]) -> str:
    splits = content["classes"]
    if not splits:
        return ""
    titles = "".join(f'<th class="group" colspan="4">{escape(split)}</th>' for split in splits)
    largest = max(one["share"] for classes in splits.values() for one in classes.values()) or 1
    rows = []
    for name in next(iter(splits.values())):
        cells = [cell(name)]
        for split, classes in splits.items():
            one, labelled = classes[name], content["splits"][split]["labelled"]
            bar = f'class="share" style="--value: {one["share"] / largest:.3f}"'
            cells += [
                cell(f"{one['vertices']:,}", "" if one["vertices"] else "bad"),
                f"<td {bar}>{one['share']:.2%}</td>",
                cell(f"{one['scenes']:,}"),
                cell(f"{one['scenes'] / labelled:.0%}"),
            ]
        rows.append(cells)
    head = ["class", *(["vertices", "share", "scenes", "of all"] * len(splits))]
    note = (
        "Vertices per class, their share of all that are scored, and the labelled scenes that hold the class."
    )
    return section("Classes", note) + table(head, rows, above=f"<tr><th></th>{titles}</tr>")


def _co_occurrence(content: Mapping[str, Any]) -> str:
    if not content["classes"]:
        return ""
    names, counts = list(next(iter(content["classes"].values()))), content["co_occurrence"]
    chosen = [c for c in range(len(names)) if counts[c][c]]
    note = "Of the scenes with the class of the row, percent that hold the class of the column too."
    if len(chosen) > MOST_IN_HEAT_MAP:
        chosen = sorted(sorted(chosen, key=lambda c: -counts[c][c])[:MOST_IN_HEAT_MAP])
        note += f" The {MOST_IN_HEAT_MAP} classes that occur in most scenes; report.json has all."
    head = "".join(f"<th>{escape(names[c])}</th>" for c in chosen)
    lines = []
    for row in chosen:
        shares = (counts[row][column] / counts[row][row] for column in chosen)
        cells = "".join(
            f'<td class="cell" style="--value: {0.75 * s:.2f}">{100 * s:.0f}</td>' for s in shares
        )
        lines.append(f"<tr>{cell(names[row])}{cells}</tr>")
    return section("Classes that occur together", note) + (
        f'<div class="card"><table class="heat"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def _label_conflicts(content: Mapping[str, Any]) -> str:
    conflicts = content["label_conflicts"]
    if not conflicts["scenes"]:
        return ""
    rows = []
    for size in conflicts["sizes"]:
        prepared = " (prepared)" if size["voxel_size"] == content["voxel_size"] else ""
        shares = (
            percent(size["mixed_voxels"], size["voxels"]),
            percent(size["mixed_vertices"], size["vertices"]),
            percent(size["outvoted_vertices"], size["vertices"]),
        )
        rows.append([cell(f"{size['voxel_size']:g} m{prepared}"), *map(cell, shares)])
    note = (
        f"Counted in {len(conflicts['scenes'])} scenes, spread evenly. A voxel is mixed if its labelled "
        "vertices disagree; vertices with another label than their voxel's majority are out of reach for any "
        "network on such voxels."
    )
    head = ["voxel size", "mixed voxels", "vertices in them", "outvoted vertices"]
    return section("Labels within a voxel", note) + table(head, rows)


def _findings(content: Mapping[str, Any]) -> str:
    findings, unknown = content["findings"], content["unknown_ids"]
    if not findings:
        return section("Found in the scans", "Nothing odd.")
    rows = []
    for name, found in findings.items():
        share = percent(found["count"], found["vertices_of_scans"]) if _counts_vertices(found) else ""
        worst = sorted(found["scans"].items(), key=lambda item: (-item[1], item[0]))
        listed = [f"{scan} ({count:,})" for scan, count in worst]
        rows.append(
            [
                cell(name.replace("_", " ")),
                cell(f"{found['count']:,}"),
                cell(share),
                cell(f"{len(found['scans']):,}"),
                words(found["meaning"]),
                words(shortened(listed, 3)),
            ]
        )
    head = ["", "count", "of their vertices", "scans", "what it is and what was done", "most in"]
    parts = [section("Found in the scans", ""), table(head, rows, text_columns=(4, 5))]
    for number, scans in unknown.items():
        listed = [f"{scan} ({count:,} vertices)" for scan, count in scans.items()]
        parts.append(f"<p>unknown id {escape(number)}: {escape(shortened(listed))}</p>")
    return "".join(parts)


def _seconds(seconds: Mapping[str, Any]) -> str:
    if not seconds:
        return ""
    rows = (
        [
            cell(stage),
            *(cell(f"{1000 * times[k]:,.1f}") for k in ("mean", "median", "longest")),
            cell(f"{times['total']:,.1f}"),
            cell(percent(times["total"], seconds["all"]["total"])),
        ]
        for stage, times in seconds.items()
    )
    head = ["stage", "mean ms", "median ms", "longest ms", "total s", "share"]
    note = "Per scan that was made now; the totals are of all workers together."
    return section("Time", note) + table(head, rows)


def _scenes(content: Mapping[str, Any]) -> str:
    """Every scene with its findings, folded away."""
    scenes, findings = content.get("scenes", {}), content.get("findings", {})
    if not 0 < len(scenes) <= MOST_SCENES:
        return ""
    rows = []
    for name, scene in scenes.items():
        sizes = (scene["split"], f"{scene['vertices']:,}", f"{scene['voxels']:,}")
        rows.append([cell(name), *map(cell, sizes)])
        for found in findings.values():
            count = found["scans"].get(name, 0)
            share = f" ({count / scene['vertices']:.2%})" if count and _counts_vertices(found) else ""
            rows[-1].append(cell(f"{count:,}{share}" if count else ""))
    head = ["scene", "split", "vertices", "voxels", *(name.replace("_", " ") for name in findings)]
    return (
        f"{section('Scenes', '')}<details><summary>all {len(rows):,}</summary>{table(head, rows)}</details>"
    )


def _counts_vertices(found: Mapping[str, Any]) -> bool:
    return found["meaning"].startswith("vertices")
