"""Sections -> leaderboard.csv, .md and .tex: the same rows, whatever the form."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from scannet_css.files import write_atomic
from scannet_css.leaderboard.published import PublishedTable
from scannet_css.leaderboard.reported import COLUMNS, ReportedRow, to_csv
from scannet_css.leaderboard.rows import VALUES, Row, number
from scannet_css.leaderboard.sections import Section
from scannet_css.metrics import METRICS

TABLE = (
    *("method", "network", *VALUES, "n", "orders", "parameters", "hours", "peak_memory", "device"),
    *("status", "name"),
)
PAPER_TABLE = ("method", *METRICS, "n")
NAMES = {"peak_memory": "memory", "name": "submitted by"}
REFERENCE = "trained on all classes at once:"
REPORTED = "self-reported, without records:"
INTRO = "IoU in percent at raw vertices after the last step, mean ± deviation over n seeds."
PUBLISHED = "Published numbers"
PUBLISHED_INTRO = (
    "Copied from papers as they stand there: other data preparation, network and evaluation. They are "
    "neither recomputed nor comparable with the tables above."
)


def cells_of(row: Row | ReportedRow) -> dict[str, str]:
    """The line of leaderboard.csv: numbers with two decimals, a missing value is an empty cell."""
    cells = {**row.facts, "status": row.status, "orders": str(row.orders), "flags": "; ".join(row.flags)}
    for name, (mean, deviation) in row.values.items():
        cells |= {name: number(mean), f"{name}_std": number(deviation)}
    return {column: cells[column] for column in COLUMNS}


def render_csv(sections: Sequence[Section]) -> str:
    """leaderboard.csv (RFC 4180), also the form in which rows without a record are sent in."""
    return to_csv([cells_of(row) for section in sections for row in section.all_rows])


def groups_of(section: Section) -> list[tuple[str | None, list[Row | ReportedRow]]]:
    """The rows as every table shows them, each group under its heading (None: no heading)."""
    groups = [(None, section.methods), (REFERENCE, section.references), (REPORTED, section.reported)]
    return [(heading, rows) for heading, rows in groups if rows]


def render_markdown(
    sections: Sequence[Section],
    columns: Sequence[str] = TABLE,
    published: Sequence[PublishedTable] = (),
) -> str:
    """leaderboard.md: one table for each data set and protocol; readable as plain text too."""
    parts = [f"# Leaderboard\n\n{INTRO}\n"]
    for section in sections:
        parts.append(f"## {_escape(section.title)}\n\n{_escape(section.description)}\n")
        parts.append(markdown_table(_markdown_rows(section, columns)))
        notes = [(section.label(row), flag) for row in section.all_rows for flag in row.flags]
        if notes:
            parts.append("".join(f"- {_escape(label)}: {_escape(flag)}\n" for label, flag in notes))
        links = [(section.label(row), row.links) for row in section.all_rows if row.links]
        if links:
            parts.append("".join(f"- {_escape(label)}: {_markdown_links(found)}\n" for label, found in links))
    if published:
        parts.append(f"## {PUBLISHED}\n\n{PUBLISHED_INTRO}\n")
    for table in published:
        caveats = "".join(f"- {_escape(caveat)}\n" for caveat in table.caveats)
        parts.append(f"### {_escape(table.title)}\n\n{_escape(table.source)}, <{table.link}>\n\n{caveats}")
        lines = [[name, *(number(value) for value in values)] for name, values in table.rows]
        parts.append(markdown_table([["method", *table.columns], *lines]))
    return "\n".join(parts)


def _markdown_links(links: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"[{name}](<{address}>)" for name, address in links)


def _markdown_rows(section: Section, columns: Sequence[str]) -> list[list[str]]:
    lines = [[_escape(NAMES.get(column, column)) for column in columns]]
    for heading, rows in groups_of(section):
        if heading and len(groups_of(section)) > 1:
            lines.append([f"*{heading}*", *[""] * (len(columns) - 1)])
        lines += [[_markdown_cell(section, row, column) for column in columns] for row in rows]
    return lines


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown that reads as plain text too; the first line is its head."""
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "".join("| " + " | ".join(map(str.ljust, line, widths)) + " |\n" for line in lines)


def _markdown_cell(section: Section, row: Row | ReportedRow, column: str) -> str:
    text = _escape(section.cell(row, column))
    return f"**{text}**" if section.is_best(row, column) else text


def _escape(text: str) -> str:
    return re.sub(r"[\\`*\[\]<>|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)


def render_latex(sections: Sequence[Section], published: Sequence[PublishedTable] = ()) -> str:
    """leaderboard.tex: a table environment for each section, for \\input in a paper that loads booktabs.

    The best number of a column is bold, the second underlined.
    """
    parts = ["% \\usepackage{booktabs} in the preamble; rendered from the records of the leaderboard\n"]
    for section in sections:
        parts.append(_latex_section(section))
    for table in published:
        lines = [_latex_line([name, *(number(value) for value in values)]) for name, values in table.rows]
        caption = f"Published, not recomputed and not comparable: {table.title} ({table.source}). "
        caption += " ".join(f"{caveat}." for caveat in table.caveats)
        parts.append(_latex_table(latex_text(caption), ["method", *table.columns], lines))
    return "\n".join(parts)


def _latex_section(section: Section) -> str:
    columns = [column for column in PAPER_TABLE if any(section.cell(row, column) for row in section.all_rows)]
    lines, width = [], len(columns)
    for heading, rows in groups_of(section):
        if heading and len(groups_of(section)) > 1:
            lines += ["\\midrule\n", f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{heading}}}}} \\\\\n"]
        lines += [_latex_line([_latex_cell(section, row, column) for column in columns]) for row in rows]
    caption = f"{section.title} ({section.description}). {INTRO}"
    return _latex_table(latex_text(caption), [latex_text(column) for column in columns], lines)


def _latex_table(caption: str, head: Sequence[str], lines: Sequence[str]) -> str:
    return (
        f"\\begin{{table}}\n\\centering\n\\small\n\\setlength{{\\tabcolsep}}{{4pt}}\n\\caption{{{caption}}}\n"
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}\n\\toprule\n{_latex_line(head)}\\midrule\n"
        f"{''.join(lines)}\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + " \\\\\n"


def _latex_cell(section: Section, row: Row | ReportedRow, column: str) -> str:
    mean, separator, deviation = section.cell(row, column).partition(" ± ")
    text, mark = latex_text(mean), _latex_mark(section, row, column)
    if column in VALUES:
        text = text.replace("-", "$-$")
    text = f"{mark}{{{text}}}" if mark else text
    return f"{text} {{\\scriptsize$\\pm$ {deviation}}}" if separator else text


def _latex_mark(section: Section, row: Row | ReportedRow, column: str) -> str:
    if section.is_best(row, column):
        return "\\textbf"
    return "\\underline" if section.is_second(row, column) else ""


_LATEX = {
    "\\": "\\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
}


def latex_text(text: str) -> str:
    """`text` so that LaTeX sets it as it stands."""
    return "".join(_LATEX.get(character, character) for character in text)


def write_leaderboard(
    sections: Sequence[Section],
    folder: str | Path,
    published: Sequence[PublishedTable] = (),
    html: Callable[[Sequence[Section], Sequence[PublishedTable]], str] | None = None,
) -> list[str]:
    """Writes leaderboard.csv, .md, .tex (and .html) into `folder`, each atomically; returns their names."""
    contents = {
        "leaderboard.csv": render_csv(sections),
        "leaderboard.md": render_markdown(sections, published=published),
        "leaderboard.tex": render_latex(sections, published),
    }
    if html is not None:
        contents["leaderboard.html"] = html(sections, published)
    for name, content in contents.items():
        write_atomic(Path(folder) / name, content)
    return list(contents)
