"""The label table in all its copies, and both routes from a scan to labels."""

import re

import numpy as np
import pytest

from scannet_css.classes import CLASSES, NYU40_IDS, SCANNET20, SCANNET200
from scannet_css.errors import InputError
from scannet_css.raw.scannet_labels import labels_by_id, labels_by_object, read_label_map

HEADER = "id\traw_category\tcategory\tcount\tnyu40id\tnyu40class"
ROWS = (
    "1\twall\twall\t8277\t1\twall",
    "2\tchair\tchair\t4646\t5\tchair",
    "22\tbooks\tbook\t1678\t23\tbooks",
    "27\trefrigerator\trefrigerator\t154\t24\trefridgerator",
    "2\tstack of chairs\tchair\t35\t5\tchair",
    "1163\tobject\tobject\t1313\t40\totherprop",
    "500\trug of v1\trug\t1\t\t",
)


def write(path, rows=ROWS, header=HEADER, end="\n"):
    path.write_bytes("".join(row + end for row in (header, *rows)).encode())
    return path


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "labels.tsv")


def test_values(table):
    found = read_label_map(table)
    assert found.categories["stack of chairs"] == {"id": 2, "nyu40id": 5}
    assert found.categories["rug of v1"] == {"id": 500, "nyu40id": None} and len(found.categories) == 7
    assert found.findings == {"repeated_rows": 0, "blank_ids": 1}
    in_20, in_200 = found.labels(SCANNET20), found.labels(SCANNET200)
    assert in_20 == {
        "wall": 0,
        "chair": 4,
        "books": 255,
        "refrigerator": 14,
        "stack of chairs": 4,
        "object": 255,
    }
    assert (
        SCANNET200.names[in_200["books"]] == "book" and SCANNET200.names[in_200["stack of chairs"]] == "chair"
    )
    assert in_200["rug of v1"] == 255 and SCANNET200.names[in_200["object"]] == "object"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n", "\r"])
def test_line_ends_do_not_matter(tmp_path, table, end):
    found = read_label_map(write(tmp_path / "other.tsv", end=end))
    assert found.digest == read_label_map(table).digest and found.findings == read_label_map(table).findings


def test_what_the_digest_names(tmp_path, table):
    digest = read_label_map(table).digest

    def of(rows, header=HEADER):
        return read_label_map(write(tmp_path / "other.tsv", rows, header)).digest

    assert of(ROWS[::-1]) == digest and of((*ROWS, ROWS[1])) == digest
    assert of([row.replace("\t4646\t", "\t1\t") for row in ROWS]) == digest  # a column nobody reads
    columns = [4, 0, 1]  # other columns in another order
    moved = ["\t".join(row.split("\t")[c] for c in columns) for row in (HEADER, *ROWS)]
    assert of(moved[1:], moved[0]) == digest
    assert of(ROWS[1:]) != digest and of([row.replace("\t24\t", "\t23\t") for row in ROWS]) != digest


def test_repeated_rows_count_and_contradictions_are_refused(tmp_path):
    path = tmp_path / "labels.tsv"
    assert read_label_map(write(path, (*ROWS, ROWS[0], ROWS[5]))).findings["repeated_rows"] == 2
    stick = "1163\tobject\tstick\t1\t40\totherprop"  # as in one of the copies: the same ids
    assert read_label_map(write(path, (*ROWS, stick))).findings["repeated_rows"] == 1
    with pytest.raises(InputError, match=r"labels.tsv:9: 'chair' has the ids .*7.* in a row before"):
        read_label_map(write(path, (*ROWS, "2\tchair\tchair\t1\t7\ttable")))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the label table is empty"),
        (b"\r\n\n", "the label table is empty"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"1\twall\n", "column raw_category is there 0 times"),
        (b"id\traw_category\tnyu40id\tid\n", "column id is there 2 times"),
        (b"id\traw_category\tnyu40id\n1\twall\n", "labels.tsv:2: 2 cells; expected 3"),
        (b"id\traw_category\tnyu40id\n1\twall\t1\t1\n", "labels.tsv:2: 4 cells; expected 3"),
        (
            b"id\traw_category\tnyu40id\n\n1\twall\tx\n",
            "labels.tsv:3: id 'x'; expected a whole number from 1 to 40",
        ),
        (b"id\traw_category\tnyu40id\n1\twall\t41\n", "id '41'; expected a whole number from 1 to 40"),
        (b"id\traw_category\tnyu40id\n0\twall\t1\n", "id '0'; expected"),
        (b"id\traw_category\tnyu40id\n-1\twall\t1\n", "id '-1'; expected"),
        (b"id\traw_category\tnyu40id\n" + b"9" * 5000 + b"\twall\t1\n", "expected a whole number"),
    ],
)
def test_tables_that_are_none(tmp_path, content, reason):
    path = tmp_path / "labels.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_label_map(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and reason in message and "\n" not in message and len(message) < 300
    path.unlink()
    with pytest.raises(InputError, match=re.escape(f"{path}: no such file")):
        read_label_map(path)


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path, table):
    path = tmp_path / "marked.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert read_label_map(path).digest == read_label_map(table).digest


def test_labels_by_id():
    ids = np.arange(-1, 200, dtype=np.int32)
    labels, unknown = labels_by_id(ids)
    expected = [NYU40_IDS.index(i) if i in NYU40_IDS else 255 for i in ids.tolist()]
    assert labels.dtype == np.uint8 and labels.tolist() == expected
    assert unknown == {-1: 1, **dict.fromkeys(range(41, 200), 1)}
    assert CLASSES[labels_by_id(np.array([4]))[0][0]] == "bed"  # not the table of ScanNet's own ids


def test_labels_by_object():
    owners = np.array([0, 1, -1, 1, 2, 3], np.int32)
    categories = ["wall", "chair", "spaceship", "books"]
    labels, unmapped = labels_by_object(owners, categories, {"wall": 0, "chair": 4, "books": 255})
    assert labels.dtype == np.uint8 and labels.tolist() == [0, 4, 255, 4, 255, 255] and unmapped == 1
    labels, unmapped = labels_by_object(np.full(3, -1, np.int32), [], {})
    assert labels.tolist() == [255] * 3 and unmapped == 0
