"""Options: fields of a method or of the recipe that a user may set, with their limits.

An option becomes an option of the command line, a key of suite.toml and a value in the record.
"""

import math
from dataclasses import MISSING, Field, field, fields
from typing import Any

from scannet_css.errors import InputError, did_you_mean


def option(
    default: Any,
    help: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    since: str = "",
) -> Any:
    """A dataclass field that is an option. `check_options` refuses values below `least`, up to `above`,
    beyond `most` or not among `choices`. `since`: the version that an option came with, which records of
    earlier ones lack."""
    limits = {"least": least, "above": above, "most": most, "choices": choices, "since": since}
    return field(default=default, metadata={"help": help, **limits})


def options_of(owner: Any) -> list[Field]:
    """The options of a dataclass, in order."""
    return [one for one in fields(owner) if one.init and one.default is not MISSING]


def check_options(owner: Any, where: str = "") -> None:
    """Raises InputError, beginning with `where`, for an option of another type than its default, for a number
    that is not finite, and for a value out of its limits."""
    for one in options_of(owner):
        reason = _fault(one, getattr(owner, one.name))
        if reason:
            raise InputError(f"{where}{one.name} is {getattr(owner, one.name)!r}{reason}")


def _fault(one: Field, value: Any) -> str:
    """What is wrong with a value; nothing if it is right."""
    kind, limits = type(one.default), one.metadata
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        return f"; expected {'a finite number' if kind is float else kind.__name__}"
    if limits.get("choices") and value not in limits["choices"]:
        return f"{did_you_mean(str(value), limits['choices'])}; expected {', '.join(limits['choices'])}"
    if limits.get("least") is not None and value < limits["least"]:
        return f"; expected at least {limits['least']}"
    if limits.get("above") is not None and value <= limits["above"]:
        return f"; expected more than {limits['above']}"
    if limits.get("most") is not None and value > limits["most"]:
        return f"; expected at most {limits['most']}"
    return ""
