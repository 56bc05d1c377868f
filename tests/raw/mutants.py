"""Damaged copies of good files, each one of the ways in which files get damaged. Same dice, same mutants."""

import json
import random
import re

PLY_OPERATORS = (
    "truncate",
    "flip a bit",
    "flip a bit of the header",
    "delete",
    "insert",
    "zero a page",
    "wrong count",
    "rename a property",
    "repeat a header line",
    "line ends of two bytes",
    "swap the byte order",
    "change a type",
    "empty",
    "twice",
)
JSON_OPERATORS = (
    "truncate",
    "flip a bit",
    "missing key",
    "wrong type",
    "deep nesting",
    "repeat a key",
    "not a number",
    "huge index",
    "too short",
    "too long",
    "empty",
    "twice",
)
TSV_OPERATORS = (
    "truncate",
    "flip a bit",
    "missing column",
    "repeat a column",
    "column moved",
    "row cut short",
    "row repeated",
    "blank id",
    "id that is none",
    "id out of range",
    "wrong encoding",
    "empty",
    "twice",
)
_TYPES = (b"float", b"uchar", b"int", b"double", b"list uchar int", b"list float int", b"ushort")
_COUNTS = (b"-1", b"0", b"2147483648", b"1" + b"0" * 30)


def ply_mutant(content: bytes, operator: str, dice: random.Random) -> bytes:
    """A binary PLY file after one of PLY_OPERATORS."""
    body = content.index(b"end_header\n") + len(b"end_header\n")
    header, at = content[:body], dice.randrange(len(content))
    lines = header.splitlines(keepends=True)
    match operator:
        case "flip a bit of the header":
            return _flip(header, dice) + content[body:]
        case "delete":
            return content[:at] + content[at + dice.randrange(1, 64) :]
        case "insert":
            return content[:at] + dice.randbytes(dice.randrange(1, 64)) + content[at:]
        case "zero a page":
            return content[:at] + bytes(min(4096, len(content) - at)) + content[at + 4096 :]
        case "wrong count":
            return re.sub(
                rb"(element \w+) \d+", rb"\1 " + dice.choice(_COUNTS), content, count=dice.randint(1, 2)
            )
        case "rename a property":
            return content.replace(dice.choice([b" x\n", b" red\n", b"vertex_indices"]), b" other\n", 1)
        case "repeat a header line":
            line = dice.randrange(len(lines))
            return b"".join(lines[: line + 1] + lines[line:]) + content[body:]
        case "line ends of two bytes":
            return header.replace(b"\n", b"\r\n") + content[body:]
        case "swap the byte order":
            return content.replace(b"binary_little", b"binary_big")
        case "change a type":
            before = dice.choice([b"float", b"uchar", b"list uchar int"])
            return header.replace(before, dice.choice(_TYPES), 1) + content[body:]
    return _any_file(content, operator, dice)


def json_mutant(content: bytes, operator: str, dice: random.Random) -> bytes:
    """A JSON object with a list of numbers or objects after one of JSON_OPERATORS."""
    value = json.loads(content)
    long = next(key for key, found in value.items() if isinstance(found, list))
    group = dice.choice(value[long]) if isinstance(value[long][0], dict) else value
    key = dice.choice(list(group))
    entries = next((found for found in group.values() if isinstance(found, list)), None)
    match operator:
        case "missing key":
            del group[key]
        case "wrong type":
            group[key] = dice.choice([None, True, 1.5, "1", {}, [[]], [1, "2"], -7, 2**70])
        case "deep nesting":
            return content.replace(f'"{key}":'.encode(), f'"{key}":'.encode() + b"[" * 100_000, 1)
        case "repeat a key":
            return content[:-1] + f',"{long}":[]'.encode() + b"}"
        case "not a number":
            entries[dice.randrange(len(entries))] = dice.choice([float("nan"), "NaN", True, 2.0])
        case "huge index":
            entries[dice.randrange(len(entries))] = dice.choice([10**9, -1, 2**31, 2**63, 10**400])
        case "too short":
            del value[long][dice.randrange(len(value[long])) :]
        case "too long":
            value[long].extend(value[long][: dice.randrange(1, len(value[long]))])
        case _:
            return _any_file(content, operator, dice)
    return json.dumps(value, separators=(",", ":")).encode()


def tsv_mutant(content: bytes, operator: str, dice: random.Random) -> bytes:
    """ScanNet's label map after one of TSV_OPERATORS."""
    rows = [line.split("\t") for line in content.decode().splitlines()]
    columns = [rows[0].index(name) for name in ("id", "raw_category", "nyu40id")]
    column, row = dice.choice(columns), dice.randrange(1, len(rows))
    match operator:
        case "missing column":
            rows = [cells[:column] + cells[column + 1 :] for cells in rows]
        case "repeat a column":
            rows = [[*cells, cells[column]] for cells in rows]
        case "column moved":
            rows = [[cells[column], *cells[:column], *cells[column + 1 :]] for cells in rows]
        case "row cut short":
            rows[row] = rows[row][: dice.randrange(len(rows[row]))]
        case "row repeated":
            rows.append([*rows[row]])
        case "blank id":
            rows[row][columns[dice.choice((0, 2))]] = ""
        case "id that is none":
            rows[row][columns[dice.choice((0, 2))]] = dice.choice(["x", "1.5", "NaN", "\u0663", "1e3", " 7"])
        case "id out of range":
            rows[row][columns[dice.choice((0, 2))]] = dice.choice(["-1", "41", "255", "9" * 30, "9" * 5000])
        case "wrong encoding":
            return content.decode().encode(dice.choice(["utf-16", "utf-32", "cp500"]))
        case _:
            return _any_file(content, operator, dice)
    return "".join("\t".join(cells) + "\n" for cells in rows).encode()


def _any_file(content: bytes, operator: str, dice: random.Random) -> bytes:
    """The operators that need not know the format."""
    match operator:
        case "truncate":
            return content[: dice.randrange(len(content))]
        case "flip a bit":
            return _flip(content, dice)
        case "empty":
            return b""
        case "twice":
            return content + content
    raise ValueError(operator)


def _flip(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]
