"""What every command shares: options from the fields of a dataclass."""

import argparse
from collections.abc import Sequence
from typing import Any


def add_options(group, parameters: Sequence, prefix: str) -> None:
    """One option for each field, without a default, so that only what is given overrides the recipe."""
    for parameter in parameters:
        kind = parse_bool if isinstance(parameter.default, bool) else type(parameter.default)
        group.add_argument(
            f"--{parameter.name.replace('_', '-')}",
            dest=prefix + parameter.name,
            type=kind,
            metavar="true|false" if kind is parse_bool else kind.__name__.upper(),
            help=f"{parameter.metadata['help']} ({parameter.default})",
        )


def parse_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected true or false")
    return text == "true"


def given(options: argparse.Namespace, parameters: Sequence, prefix: str = "") -> dict[str, Any]:
    """The values that stand on the command line, by field name."""
    values = {parameter.name: getattr(options, prefix + parameter.name) for parameter in parameters}
    return {name: value for name, value in values.items() if value is not None}
