"""Strict reading of JSON into dataclasses: the type hints are the schema, and one rule holds for every text.

What a third party writes ends up in spreadsheets, pages and terminals, so text that could act there is
refused rather than escaped: no formula, markup, web address, control or bidirectional character passes
TEXT_RULE.
"""

import json
import re
from collections import Counter
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from scannet_css.errors import InputError

LONGEST_TEXT = 120
TEXT_RULE = (
    f"expected 1 to {LONGEST_TEXT} of the characters A-Z a-z 0-9 space . _ - + ( ) / , : neither starting "
    "with + - or space, nor ending with space, nor holding // or www."
)
_TEXT = re.compile(r"(?!.*(//|www\.))(?![+\- ])[A-Z0-9 ._\-+()/,:]+(?<! )", re.IGNORECASE | re.ASCII)
_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    type(None): "null",
    list: "a list",
}


def as_text(name: str) -> str:
    """A machine's own name made to follow TEXT_RULE."""
    kept = re.sub(r"[^A-Za-z0-9 ._\-+()/,:]+", "", name).replace("//", "/")
    return kept.strip(" +-")[:LONGEST_TEXT].strip() or "unknown"


def require(holds: bool, field: str, value: Any, rule: str) -> None:
    """Raises InputError naming field, value and rule unless `holds`; nothing in it can act on a terminal."""
    if not holds:
        raise InputError(f"{_short(ascii(field)[1:-1])} is {_short(ascii(value))}: {rule}")


def parse(content: bytes) -> Any:
    """JSON from bytes. Raises InputError for anything else, also for a name twice in one object."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_object)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a JSON file: {error}") from None


def read(kind: Any, value: Any, field: str) -> Any:
    """`value` as `kind`: a dataclass, list[...] (a tuple too), dict[str, ...], a union, or JSON's own types.

    `field` names the place in messages ("" at the top). Raises InputError for a missing, unknown or
    ill-typed field.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _read_dataclass(kind, value, field)
    if origin is list:
        require(isinstance(value, (list, tuple)), field, value, "expected a list")
        return [read(inner[0], item, f"{field}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        require(isinstance(value, dict), field, value, "expected an object")
        return {
            read(str, name, field): read(inner[1], item, f"{field}.{name}") for name, item in value.items()
        }
    fitting = [one for one in (inner if origin is UnionType else (kind,)) if _fits(one, value)]
    require(bool(fitting), field, value, f"expected {_described(kind)}")
    if get_origin(fitting[0]) is list:
        return read(fitting[0], value, field)
    if fitting[0] is str:
        require(len(value) <= LONGEST_TEXT and bool(_TEXT.fullmatch(value)), field, value, TEXT_RULE)
    if fitting[0] in (int, float):
        # false for NaN and infinity too, and the bound keeps every sum of counts inside int64
        require(abs(value) < 2**53, field, value, "expected a finite number below 2**53")
    return float(value) if fitting[0] is float else value


def _read_dataclass(kind: type, value: Any, field: str) -> Any:
    hints = get_type_hints(kind)
    require(
        isinstance(value, dict), field or "the file", value, f"expected an object with {', '.join(hints)}"
    )
    prefix = f"{field}." if field else ""
    for name in value:
        require(name in hints, f"{prefix}{name}", value[name], f"unknown field, expected {', '.join(hints)}")
    for name in hints:
        require(name in value, f"{prefix}{name}", None, "missing")
    return kind(**{name: read(hint, value[name], f"{prefix}{name}") for name, hint in hints.items()})


def _fits(kind: Any, value: Any) -> bool:
    if kind is float:
        return type(value) in (int, float)
    if get_origin(kind) is list:
        return type(value) in (list, tuple)
    return type(value) is kind  # exact: true and false are no integers


def _described(kind: Any) -> str:
    kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    return " or ".join(_NAMES[get_origin(one) or one] for one in kinds)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, count in Counter(name for name, _ in pairs).items():
        require(count == 1, name, f"{count} times in one object", "a field stands once")
    return dict(pairs)


def _short(shown: str) -> str:
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
