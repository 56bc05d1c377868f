"""The smallest parts of the preparation report's page; every text in them is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

MOST_NAMES = 12  # of scans in one cell or sentence; report.json has them all


def section(title: str, note: str) -> str:
    return f"<h2>{escape(title)}</h2>\n" + (f"<p>{escape(note)}</p>\n" if note else "")


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], above: str = "", text_columns: Sequence[int] = ()
) -> str:
    """A table of cells that are HTML already; `text_columns` are columns of text."""
    titles = "".join(
        f"<th{' class=words' if column in text_columns else ''}>{escape(title)}</th>"
        for column, title in enumerate(head)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        f'<div class="card"><table><thead>{above}<tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def words(text: str) -> str:
    return cell(text, "words")


def shortened(listed: Sequence[str], most: int = MOST_NAMES) -> str:
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def percent(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else ""
