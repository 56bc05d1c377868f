"""Strict reading of JSON and TOML into dataclasses: the type hints are the schema.

A field with a default may be left out, every other one may not, and there are no others.

What a third party writes ends up in spreadsheets, pages and terminals, so text that could act there is
refused rather than escaped: no formula, markup, web address, control or bidirectional character passes
TEXT_RULE, which holds for `str`. Web addresses stand in fields of their own kind, Link, and contacts in
Contact. Own files, which nobody else is shown, may say what they like: Prose, and Name where it must not be
empty.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

from scannet_css.errors import InputError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LONGEST_TEXT = 120
TEXT_RULE = (
    f"expected 1 to {LONGEST_TEXT} of the characters A-Z a-z 0-9 space . _ - + ( ) / , : neither starting "
    "with + - or space, nor ending with space, nor holding // or www."
)
Link = NewType("Link", str)
Contact = NewType("Contact", str)
Day = NewType("Day", str)
Time = NewType("Time", str)
Name = NewType("Name", str)
Prose = NewType("Prose", str)
Scalar = bool | int | float | str | None
OptionValue = Scalar | list[Scalar]  # of an option of a method or recipe

_HOST = r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,24}"
_LINK = rf"https://(?!xn--){_HOST}(/[A-Za-z0-9._~/+=?-]*)?"
# The kinds of text: a pattern for the whole of it (without flags, for JSON Schema) and the rule in words.
TEXTS: dict[Any, tuple[str, str]] = {
    str: (rf"(?!.*(//|[wW]{{3}}\.))(?![+\- ])[A-Za-z0-9 ._\-+()/,:]{{1,{LONGEST_TEXT}}}(?<! )", TEXT_RULE),
    Link: (
        rf"(?=.{{1,200}}$){_LINK}",
        "expected https://, a host's name in small letters and a path of the characters "
        "A-Z a-z 0-9 . _ ~ / + = ? -, at most 200 in all",
    ),
    Contact: (
        rf"(?=.{{1,200}}$)([A-Za-z0-9][A-Za-z0-9._+-]*@{_HOST}|{_LINK})",
        "expected an e-mail address or a web address that starts with https://",
    ),
    Day: (r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "expected a day as 2026-11-22"),
    Time: (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
        "expected UTC time as 2026-11-22T18:00:00Z",
    ),
    Name: (r"[\s\S]+", "expected a text that is not empty"),
    Prose: (r"[\s\S]*", "expected a text"),
}
_UNIONS = (UnionType, Union)  # a NewType in it makes it the latter
_PATTERNS = {kind: re.compile(pattern, re.ASCII) for kind, (pattern, _) in TEXTS.items()}
_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    Link: "text",
    Contact: "text",
    Day: "text",
    Time: "text",
    Name: "text",
    Prose: "text",
    type(None): "null",
    list: "a list",
    tuple: "a list",
}


def as_text(name: str) -> str:
    """A machine's own name made to follow TEXT_RULE."""
    kept = re.sub(r"[^A-Za-z0-9 ._\-+()/,:]+", "", name)
    kept = re.sub(r"/{2,}", "/", re.sub(r"[wW]{3,}\.", "w.", kept))
    return kept.strip(" +-")[:LONGEST_TEXT].strip() or "unknown"


def require(holds: bool, field: str, value: Any, rule: str) -> None:
    """Raises InputError naming field, value and rule unless `holds`; nothing in it can act on a terminal."""
    if not holds:
        raise InputError(f"{_short(ascii(field)[1:-1])} is {_short(ascii(value))}: {rule}")


@contextmanager
def named(place: object) -> Iterator[None]:
    """Puts a file's name, or another place, before the message of an InputError that is raised inside."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def read_file(kind: Any, path: Path, absent: str) -> Any:
    """A JSON file, or TOML by its name, as `kind`; see `read`. Raises InputError, one line that begins with
    the path; `absent` is what it says of a file that is not there."""
    with named(path):
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(absent) from None
        return read(kind, parse_toml(content) if path.suffix == ".toml" else parse(content), "")


def parse(content: bytes) -> Any:
    """JSON from bytes. Raises InputError for anything else, also for a name twice in one object."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_object)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a JSON file: {error}") from None


def parse_toml(content: bytes) -> dict[str, Any]:
    """TOML from bytes. Raises InputError for anything else."""
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a TOML file: {error}") from None


def read(kind: Any, value: Any, field: str) -> Any:
    """`value` as `kind`: a dataclass, list[...], tuple[..., ...], dict[str, ...] (of any text, or of whole
    numbers as text), a union, JSON's own types, or Any.

    `field` names the place in messages ("" at the top). Raises InputError for a missing, unknown or
    ill-typed field.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _read_dataclass(kind, value, field)
    if origin in (list, tuple):
        require(isinstance(value, (list, tuple)), field, value, "expected a list")
        if inner[0] is int and all(type(item) is int and abs(item) < 2**53 for item in value):
            return origin(value)  # rows of confusion matrices are most of a record
        return origin(read(inner[0], item, f"{field}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        require(isinstance(value, dict), field, value, "expected an object")
        return {
            _read_name(inner[0], name, field): read(inner[1], item, f"{field}.{name}" if field else name)
            for name, item in value.items()
        }
    fitting = [one for one in (inner if origin in _UNIONS else (kind,)) if _fits(one, value)]
    require(bool(fitting), field, value, f"expected {_described(kind)}")
    if get_origin(fitting[0]) in (list, tuple, dict) or is_dataclass(fitting[0]):
        return read(fitting[0], value, field)
    if fitting[0] in TEXTS:
        require(_follows(fitting[0], value), field, value, TEXTS[fitting[0]][1])
    if fitting[0] in (int, float):
        # false for NaN and infinity too, and the bound keeps every sum of counts inside int64
        require(abs(value) < 2**53, field, value, "expected a finite number below 2**53")
    return float(value) if fitting[0] is float else value


def _read_name(kind: Any, name: str, field: str) -> Any:
    """A name in an object; JSON has whole numbers as text there."""
    if kind is int:
        require(bool(re.fullmatch("-?[0-9]{1,15}", name)), field, name, "expected a whole number as a name")
        return int(name)
    return read(kind, name, field)


def _read_dataclass(kind: type, value: Any, field: str) -> Any:
    hints = _hints(kind)
    require(
        isinstance(value, dict), field or "the file", value, f"expected an object with {', '.join(hints)}"
    )
    prefix = f"{field}." if field else ""
    for name in value:
        rule = f"unknown field{did_you_mean(name, hints)}, expected {', '.join(hints)}"
        require(name in hints, f"{prefix}{name}", value[name], rule)
    for name in required_fields(kind):
        require(name in value, f"{prefix}{name}", None, "missing")
    return kind(**{name: read(hints[name], item, f"{prefix}{name}") for name, item in value.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of the fields that are given."""
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind) if one.init}


def required_fields(kind: type) -> list[str]:
    """The fields of a dataclass that have no default."""
    return [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]


def _follows(kind: Any, text: str) -> bool:
    # the length first: a lookahead over a megabyte takes its time
    if (kind not in (Name, Prose) and len(text) > 200) or not _PATTERNS[kind].fullmatch(text):
        return False
    try:
        if kind is Day:
            date.fromisoformat(text)
        if kind is Time:
            datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:  # the 31st of February
        return False
    return True


def _fits(kind: Any, value: Any) -> bool:
    if kind in TEXTS:
        return type(value) is str
    if kind is float:
        return type(value) in (int, float)
    if get_origin(kind) in (list, tuple):
        return type(value) in (list, tuple)
    if is_dataclass(kind) or get_origin(kind) is dict:
        return isinstance(value, dict)
    return type(value) is kind  # exact: true and false are no integers


def _described(kind: Any) -> str:
    kinds = get_args(kind) if get_origin(kind) in _UNIONS else (kind,)
    return " or ".join(_NAMES.get(get_origin(one) or one, "an object") for one in kinds)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, count in Counter(name for name, _ in pairs).items():
        require(count == 1, name, f"{count} times in one object", "a field stands once")
    return dict(pairs)


def json_schema(kind: type, title: str) -> dict[str, Any]:
    """The dataclass `kind` as JSON Schema (2020-12): types, names and texts as `read` demands them."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **_schema_of(kind)}


def _schema_of(kind: Any) -> dict[str, Any]:
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return {
            "type": "object",
            "properties": {name: _schema_of(hint) for name, hint in hints.items()},
            "required": required_fields(kind),
            "additionalProperties": False,
        }
    if origin is list:
        return {"type": "array", "items": _schema_of(inner[0])}
    if origin is dict:
        names = {"pattern": f"^(?:{TEXTS[str][0]})$"}
        return {"type": "object", "propertyNames": names, "additionalProperties": _schema_of(inner[1])}
    if origin in _UNIONS:
        return {"anyOf": [_schema_of(one) for one in inner]}
    if kind in TEXTS:
        return {"type": "string", "pattern": f"^(?:{TEXTS[kind][0]})$", "description": TEXTS[kind][1]}
    limits = {"minimum": 1 - 2**53, "maximum": 2**53 - 1}
    return {
        bool: {"type": "boolean"},
        int: {"type": "integer", **limits},
        float: {"type": "number", **limits},
        type(None): {"type": "null"},
    }[kind]


def _short(shown: str) -> str:
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
