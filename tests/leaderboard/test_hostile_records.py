"""Hostile text in every text field: nothing of it reaches a table, a page or the terminal."""

import copy
import csv
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scannet_css.errors import InputError
from scannet_css.leaderboard.folder import Leaderboard
from scannet_css.leaderboard.html import render_tables_page
from scannet_css.leaderboard.published import read_published
from scannet_css.leaderboard.reported import OPTIONAL, TEXTS, check_line, read_lines
from scannet_css.leaderboard.text import latex_text
from scannet_css.records.record import Record
from tests.leaderboard.test_reported import good, to_csv
from tests.records.made_records import make_value
from tests.records.test_record import PAYLOADS

HOSTILE = [
    *PAYLOADS,
    "javascript:alert(1)//",
    "data:text/html,<b>",
    "](https://evil.example)",
    "<svg/onload=alert(1)>",
    "\\immediate\\write18{id}",
    "%0a=1",
    "&lt;script&gt;",
    "\u2028=1",
    "\u200b=1",
    "{{7*7}}",
    "'; DROP TABLE rows; --",
    "../../../etc/passwd//",
    "\x1b]8;;https://evil.example\x07link",
]


def text_fields(value, path=()):
    """The paths of all texts in a JSON value, and of one where an object's names are free."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from text_fields(item, (*path, name))
        if path in (("recipe",), ("method", "settings")):
            yield (*path, "name of a setting")
    elif isinstance(value, list):
        for index, item in enumerate(value[:1]):
            yield from text_fields(item, (*path, index))
    elif isinstance(value, str) or path[0] == "entry":
        yield path


def put(value, path, text):
    value = copy.deepcopy(value)
    target = value
    for name in path[:-1]:
        target = target[name]
    if path[-1] == "name of a setting":
        target[text] = 1
    else:
        target[path[-1]] = text
    return value


@pytest.fixture
def submitted() -> dict:
    value = make_value(method="mine", settings={"word": "text", "list": ["a"]})
    value["entry"] = {
        **{"name": "A. Author", "paper": "https://example.org/a", "code": "https://example.org/b"},
        **{"contact": "a@example.org", "date": "2026-11-24"},
    }
    return value


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("leaderboard.*")}


LINKS = ("paper", "code", "contact")


def is_link(text: str) -> bool:
    """The one payload that may stand in a field for links."""
    return text == "https://example.org"


def is_harmless(line: str) -> bool:
    return line.isascii() and line.isprintable() and len(line) < 2000


def test_hostile_records_reach_no_output_and_no_terminal(submitted, run, tmp_path):
    """Put straight into the folder, as somebody might who goes around tools/submit.py."""
    (tmp_path / "good.json").write_text(json.dumps(submitted))
    assert run(tmp_path, "tools/submit.py", "good.json").returncode == 0
    folder = tmp_path / "benchmarks"
    clean = outputs(folder)
    assert len(HOSTILE) >= 40 and set(clean) == {f"leaderboard.{end}" for end in ("csv", "md", "tex", "html")}
    fields = list(text_fields(submitted))
    assert len(fields) >= 29 and ("method", "settings", "name of a setting") in fields
    number = 0
    for path in fields:
        for text in HOSTILE:
            if is_link(text) and path[-1] in LINKS:
                continue
            bad = put(submitted, path, text)
            with pytest.raises(InputError):
                Record.from_json(bad)
            (folder / "records" / f"{number:016x}.json").write_text(json.dumps(bad))
            number += 1
    done = run(tmp_path, "tools/submit.py", "good.json")
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == number == len(fields) * len(HOSTILE) - len(LINKS)
    assert all(map(is_harmless, lines)) and is_harmless(done.stdout.replace("\n", ""))
    assert outputs(folder) == clean


def test_hostile_rows_reach_no_output_and_no_terminal(run, tmp_path):
    (tmp_path / "good.csv").write_bytes(to_csv(good()))
    assert run(tmp_path, "tools/submit.py", "good.csv").returncode == 0
    folder = tmp_path / "benchmarks"
    clean = outputs(folder)
    number = 0
    for column in (*TEXTS, "settings", "protocol", "all", "manifest", "recipe"):
        for text in HOSTILE:
            if (is_link(text) and column in LINKS) or (text == "" and column in OPTIONAL):
                continue
            content = to_csv(good(**{column: text}))
            with pytest.raises(InputError):
                check_line(*read_lines(content))
            (folder / "reported" / f"{number:016x}.csv").write_bytes(content)
            number += 1
    (tmp_path / "bad.csv").write_bytes(content)
    done = run(tmp_path, "tools/submit.py", "good.csv", "bad.csv")
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == number + 1 and number > 500
    assert all(map(is_harmless, lines)), [line for line in lines if not is_harmless(line)][:3]
    assert outputs(folder) == clean


def test_what_the_gate_lets_through_starts_no_formula_and_closes_no_tag(submitted, tmp_path):
    """The worst texts that are allowed, seen by the readers of the four files."""
    for path, text in (
        (("method", "name"), "javascript:alert(1)"),
        (("network", "name"), "(1+1) data:text/html,x"),
        (("entry", "name"), "1. a_b_ _c_, {}".replace("{}", "(/etc)")),
    ):
        submitted = put(submitted, path, text)
    board = Leaderboard(tmp_path)
    board.add(Record.from_json(submitted))
    assert board.render(render_tables_page) == []
    rows = list(csv.reader(io.StringIO((tmp_path / "leaderboard.csv").read_text(), newline="")))
    for name, cell in zip(*rows, strict=True):
        if name not in ("forgetting",):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), name
    html = (tmp_path / "leaderboard.html").read_text()
    assert "<script" not in html and "src=" not in html
    own = {"https://example.org/a", "https://example.org/b"}
    assert set(re.findall('href="([^"]*)"', html)) == own | {table.link for table in read_published()}
    assert html.count("href=") == html.count('href="https://')
    text = (tmp_path / "leaderboard.md").read_text()
    links = re.findall(r"(?<!\\)\]\(<?([^)>]*)", text)
    assert all(link.startswith("https://") for link in links) and "https://example.org/a" in links


def test_latex_sets_every_character_as_it_stands():
    assert latex_text("a_b & 50% #1 $x$ {y} ~^\\") == (
        "a\\_b \\& 50\\% \\#1 \\$x\\$ \\{y\\} \\textasciitilde{}\\textasciicircum{}\\textbackslash{}"
    )
    shown = latex_text("".join(map(chr, range(32, 127))))
    assert not re.search(r"(?<!\\)[&%#_]", shown)


@pytest.mark.skipif(
    shutil.which("pdflatex") is None and not os.environ.get("CI"), reason="no pdflatex on the PATH"
)
def test_latex_compiles_with_the_shell_switched_off(submitted, tmp_path):
    board = Leaderboard(tmp_path)
    for method, seed in (("mine", 0), ("mine", 1), ("a_b", 0), ("joint", 0)):
        value = {**submitted, **make_value(method=method, seed=seed), "entry": submitted["entry"]}
        board.add(Record.from_json(value))
    board.render(None)
    (tmp_path / "document.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{leaderboard.tex}\\end{document}"
    )
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "document.pdf").stat().st_size > 10_000
