"""Lines of leaderboard.csv without records: what is refused, by column and rule, and what is accepted."""

import csv
import io
import re

import pytest

import baselines  # noqa: F401  registers the methods, whose settings are checked
from scannet_css.errors import InputError
from scannet_css.leaderboard.folder import Leaderboard
from scannet_css.leaderboard.reported import COLUMNS, RENDERED, check_line, new_lines, read_lines
from scannet_css.leaderboard.text import render_csv
from scannet_css.protocols import load_protocol

PROTOCOL = load_protocol("scannet/s0-15-5")


def good(**changes: str) -> dict[str, str]:
    """A line that may be sent in, as 15 old classes of 60 % and 5 new ones of 20 % give it."""
    cells = {
        **dict.fromkeys(COLUMNS, ""),
        **{"dataset": "scannet", "protocol": PROTOCOL.name, "method": "mine", "settings": '{"weight":2.0}'},
        **{"network": "minkunet34c", "old": "60.00", "old_std": "0.50", "new": "20.00", "new_std": "1.25"},
        **{"all": "50.00", "all_std": "0.71", "all_with_bg": "50.00", "all_with_bg_std": "0.71"},
        **{"average": "55.10", "average_std": "0.40", "hiou": "29.95", "hiou_std": "1.01"},
        **{"forgetting": "-1.30", "forgetting_std": "0.20", "voxel_all": "51.00", "n": "3"},
        **{"parameters": "37850000", "hours": "12.50", "peak_memory": "14.25", "device": "NVIDIA H100"},
        **{"manifest": "ab" * 32, "voxel_size": "0.02", "protocol_hash": PROTOCOL.hash},
        **{"name": "A. Author (University)", "paper": "https://arxiv.org/abs/2304.12345"},
        **{"contact": "a.author@example.org", "date": "2026-11-24"},
    }
    return {**cells, **changes}


def to_csv(*lines: dict[str, str], columns=COLUMNS, **options) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", **options)
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()


BAD_CELLS = [
    ({"all": "fifty"}, "all is 'fifty': expected percent from 0 to 100 as a plain number such as 12.34"),
    ({"all": "50.00%"}, "all is '50.00%': expected percent"),
    ({"all": "50,00"}, "all is '50,00': expected percent"),
    ({"all": "nan"}, "all is 'nan': expected percent"),
    ({"all": "inf"}, "all is 'inf': expected percent"),
    ({"all": "-0.1"}, "all is '-0.1': expected percent"),
    ({"all": "100.1"}, "all is '100.1': expected percent"),
    ({"all": "1e-400"}, "all is '1e-400': expected percent"),
    ({"all": "5e1"}, "all is '5e1': expected percent"),
    ({"all": " 50.00"}, "all is ' 50.00': expected percent"),
    ({"all": "٥٠"}, "all is '\\u0665\\u0660': expected percent"),
    ({"forgetting": "-100.5"}, "forgetting is '-100.5': expected percent from -100 to 100"),
    (
        {
            "old": "0.60",
            "new": "0.20",
            "all": "0.50",
            "all_with_bg": "0.50",
            "average": "0.55",
            "hiou": "0.30",
        },
        "all is '0.50': expected percent: all numbers of the row lie below 1, which looks like shares",
    ),
    ({"all": "51.00"}, "all is '51.00': expected 50.00 = (15 old + 5 new) / 20"),
    ({"new": "21.00"}, "all is '50.00': expected 50.25 = (15 old + 5 new) / 20"),
    ({"all_with_bg": "49.00"}, "all_with_bg is '49.00': expected 50.00 from bg and all"),
    ({"bg": "70.00", "bg_std": "1.00"}, "all_with_bg is '50.00': expected 50.95 from bg and all"),
    ({"hiou": "31.00"}, "hiou is '31.00': expected at most 30.00, the harmonic mean of old and new"),
    ({"forgetting": ""}, "forgetting is '': expected a number in scannet/s0-15-5"),
    ({"new": "", "new_std": ""}, "new is '': expected a number in scannet/s0-15-5"),
    ({"all": ""}, "all is '': expected a number"),
    ({"method": "joint", "settings": "{}"}, "forgetting is '-1.30': expected an empty cell"),
    ({"all_std": ""}, "all_std is '': expected a deviation"),
    ({"bg_std": "1.00"}, "bg_std is '1.00': expected a deviation"),
    ({"all_std": "-0.71"}, "all_std is '-0.71': expected percent from 0"),
    ({"all_std": "0.00"}, "all_std is '0.00': expected more than 0 over 3 different seeds"),
    ({"n": "2"}, "n is 2: expected at least 3 seeds in a row without records"),
    ({"n": ""}, "n is '': expected a whole number above 0"),
    ({"n": "3.0"}, "n is '3.0': expected a whole number above 0"),
    ({"n": "03"}, "n is '03': expected a whole number above 0"),
    ({"parameters": "38M"}, "parameters is '38M': expected a whole number above 0"),
    ({"hours": "-1"}, "hours is '-1': expected a number such as 1.25"),
    ({"voxel_size": "2 cm"}, "voxel_size is '2 cm': expected a number such as 1.25"),
    ({"settings": ""}, "settings is no JSON object"),
    ({"settings": "{'weight': 2}"}, "settings is no JSON object"),
    ({"settings": "[1]"}, "settings is [1]: expected an object"),
    ({"settings": '{"weight": 2.0}'}, 'expected the form {"weight":2.0}'),
    ({"settings": '{"a":NaN}'}, "settings.a is nan: expected a finite number"),
    ({"settings": '{"a":1,"a":2}'}, "a is '2 times in one object'"),
    ({"method": "lgkd"}, "method.settings.weight is 2.0"),
    ({"method": "lwf", "settings": '{"temper":1}'}, "method.settings.temper is 1: expected"),
    ({"method": "mib", "settings": '{"weight":-1.0}'}, "method 'mib': weight is -1.0; expected at least"),
    ({"protocol": "scannet/15-5"}, "protocol: a row without records needs one of the suite"),
    ({"protocol": "s0-15-5"}, "protocol is 's0-15-5': expected scannet/s0-15-5"),
    ({"protocol": "../own.json"}, "protocol: a row without records needs one of the suite"),
    ({"protocol_hash": "00" * 32}, "protocol_hash is '0000"),
    ({"manifest": "AB" * 32}, "manifest is 'ABAB"),
    ({"manifest": "ab"}, "manifest is 'ab': expected 64 hexadecimal digits"),
    ({"recipe": "latest"}, "recipe is 'latest': expected 8 hexadecimal digits"),
    ({"dataset": ""}, "dataset is '': expected 1 to 120"),
    ({"network": "=1+1"}, "network is '=1+1': expected 1 to 120"),
    ({"name": ""}, "name is '': expected 1 to 120"),
    ({"contact": ""}, "contact is '': expected an e-mail address"),
    ({"contact": "@author"}, "contact is '@author': expected an e-mail address"),
    (
        {"paper": "http://arxiv.org/abs/2304.12345"},
        "paper is 'http://arxiv.org/abs/2304.12345': expected https",
    ),
    ({"paper": "https://user@evil.example"}, "paper is 'https://user@evil.example': expected https://"),
    ({"code": "javascript:alert(1)"}, "code is 'javascript:alert(1)': expected https://"),
    ({"code": "https://127.0.0.1/x"}, "code is 'https://127.0.0.1/x': expected https://"),
    ({"date": "2999-01-01"}, "date is '2999-01-01': expected a day that is not in the future"),
    ({"date": "2026-02-30"}, "date is '2026-02-30': expected a day as 2026-11-22"),
    ({"date": "24.11.2026"}, "date is '24.11.2026': expected a day as 2026-11-22"),
    ({"status": "verified"}, "status is 'verified': expected an empty cell: it is rendered"),
    ({"flags": "none"}, "flags is 'none': expected an empty cell: it is rendered"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CELLS)
def test_a_bad_cell_is_refused_by_column_value_and_rule(changes, message):
    (line,) = read_lines(to_csv(good(**changes)))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        check_line(line)
    assert str(caught.value).isascii() and "\n" not in str(caught.value) and len(str(caught.value)) < 600


BAD_FILES = {
    "empty": (b"", "the file is 'empty': expected a header"),
    "byte order mark": (b"\xef\xbb\xbf" + to_csv(good()), "expected no byte order mark"),
    "UTF-16": (to_csv(good()).decode().encode("utf-16"), "not UTF-8 text"),
    "NUL": (to_csv(good(name="a\0b")), "a NUL character"),
    "CR only": (to_csv(good(), lineterminator="\r"), "a bare carriage return"),
    "semicolons": (to_csv(good(), delimiter=";"), "line 1 is 'separated by semicolons': expected commas"),
    "tabs": (to_csv(good(), delimiter="\t"), "line 1 is 'separated by tabs': expected commas"),
    "10 MB cell": (to_csv(good(name="x" * 10_000_000)), "a cell holds at most 1000 characters"),
    "open quote": (to_csv(good()) + b'"', "not a CSV file: unexpected end of data"),
    "missing column": (to_csv(good(), columns=COLUMNS[1:]), "column dataset is missing"),
    "unknown column": (to_csv(good(), columns=(*COLUMNS, "split")), "line 1 is 'split': unknown column"),
    "column twice": (
        to_csv(good(), columns=(*COLUMNS, "all")),
        "line 1 is 'all': expected every column once",
    ),
    "short line": (to_csv(good()) + b"a,b\r\n", "line 3 is '2 cells': expected 39"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_such_table_is_refused(name):
    content, message = BAD_FILES[name]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_lines(content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500


def without(*columns: str) -> dict[str, str]:
    return good(**dict.fromkeys(columns, ""))


GOOD = {
    "as it is": good(),
    "without what is optional": without("voxel_all", "peak_memory", "device", "recipe", "paper", "code"),
    "with bg": good(bg="71.00", bg_std="0.10", all_with_bg="51.00"),
    "rounded the other way": good(all="50.01"),
    "one of the suite's methods": good(method="mib", settings='{"weight":10.0}'),
    "joint": {
        **good(method="joint", settings="{}", forgetting="", forgetting_std=""),
    },
    "negative forgetting": good(forgetting="-99.99"),
    "nothing learnt": good(
        **{"old": "0.00", "new": "0.00", "all": "0.00", "all_with_bg": "0.00", "hiou": "0.00"},
        **{"all_std": "0.00", "average": "0.00"},
    ),
    "contact by address": good(contact="https://example.org/team"),
    "five seeds": good(n="5"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_line_is_accepted(name):
    content = to_csv(GOOD[name])
    row = check_line(read_lines(content)[0])
    assert row.cells == GOOD[name] and row.status == "self-reported"
    assert row.values["all"] == (float(GOOD[name]["all"]), float(GOOD[name]["all_std"]))
    assert read_lines(row.to_csv().encode()) == [GOOD[name]]


def test_columns_may_stand_in_any_order_and_without_the_rendered_ones():
    columns = [column for column in sorted(COLUMNS) if column not in RENDERED]
    assert read_lines(to_csv(good(), columns=columns)) == [good()]
    assert read_lines(to_csv(good(), lineterminator="\n")) == [good()]


@pytest.fixture
def board(tmp_path, record):
    """A leaderboard with two runs of one row and a reported one."""
    board = Leaderboard(tmp_path / "benchmarks")
    for seed in range(2):
        board.add(record(method="mine", seed=seed))
    (row,) = board.check_csv(to_csv(good()))
    board.add_row(row)
    return board


def test_a_row_sent_in_stands_apart_in_its_section(board):
    sections, problems = board.sections()
    assert problems == [] and [section.title for section in sections] == [
        "scannet, scannet/s0-15-5",
        "synthetic, small/3-2",
    ]
    (row,) = sections[0].reported
    assert sections[0].rows == [] and sections[0].cell(row, "forgetting") == "-1.3 ± 0.2"
    assert sections[0].steps == [list(step) for step in PROTOCOL.steps]
    assert row.links == [("paper", "https://arxiv.org/abs/2304.12345")]
    assert not sections[0].is_best(row, "all")


def test_a_copy_of_the_leaderboard_may_gain_rows(board):
    present = read_lines(render_csv(board.sections()[0]).encode())
    other = good(name="B. Other")
    (row,) = board.check_csv(to_csv(*present, other))
    assert row.cells == other
    assert board.check_csv(to_csv(*present)) == []


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda lines: [{**lines[0], "all": "99.00"}, *lines[1:]],
            "stands on the leaderboard with other numbers",
        ),
        (lambda lines: lines[1:], "was removed; send in new rows alone, or all"),
        (lambda lines: [good(all="50.01", name="A. Author (University)")], "with other numbers"),
        (lambda lines: [good(name="B"), good(name="B")], "expected every row once"),
    ],
)
def test_a_copy_of_the_leaderboard_may_not_be_edited(board, edit, message):
    present = read_lines(render_csv(board.sections()[0]).encode())
    with pytest.raises(InputError, match=message):
        new_lines(edit(present), present)
    with pytest.raises(InputError, match=message):
        board.check_csv(to_csv(*edit(present)))


def test_the_command_takes_a_csv(run, tmp_path):
    (tmp_path / "rows.csv").write_bytes(to_csv(good(), good(name="B. Other", n="1")))
    done = run(tmp_path, "tools/submit.py", "rows.csv")
    assert done.returncode == 1
    assert done.stderr == (
        "error: rows.csv: row of mine: n is 1: expected at least 3 seeds in a row without records\n"
    )
    (tmp_path / "rows.csv").write_bytes(to_csv(good()))
    done = run(tmp_path, "tools/submit.py", "rows.csv")
    assert done.returncode == 0 and "self-reported" in done.stdout
    assert ",self-reported," in (tmp_path / "benchmarks/leaderboard.csv").read_text()
    again = run(tmp_path, "tools/submit.py", "rows.csv")
    assert again.returncode == 0 and "0 new rows" in again.stdout


def test_the_tables_and_the_site_hold_rows_without_records(run, tmp_path):
    (tmp_path / "rows.csv").write_bytes(to_csv(good()))
    assert run(tmp_path, "tools/submit.py", "rows.csv").returncode == 0
    (tmp_path / "benchmarks" / "reported" / "bad.csv").write_bytes(to_csv(good(n="1")))
    done = run(tmp_path, "benchmarks/leaderboard.py", "--html", "site")
    assert done.returncode == 1
    assert done.stderr == (
        "error: benchmarks/reported/bad.csv: n is 1: expected at least 3 seeds in a row without records\n"
    )
    (row,) = csv.DictReader(io.StringIO((tmp_path / "results" / "leaderboard.csv").read_text()))
    assert (row["all"], row["status"], row["name"]) == ("50.00", "self-reported", "A. Author (University)")
    html = (tmp_path / "site" / "index.html").read_text()
    assert "A. Author (University)" in html and 'href="https://arxiv.org/abs/2304.12345"' in html
