"""What every command shares: a parser made of its docstring, options from the fields of a dataclass.

And how it fails: one clear line for bad input, a traceback only with --debug.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from scannet_css.errors import InputError, Stop, did_you_mean, one_line

_LOST_WORKER = "DataLoader worker"  # torch raises it wherever the program is when the system kills one


class Parser(argparse.ArgumentParser):
    """Options, described by the docstring `doc`: its first paragraph, and the rest behind the options.

    Wrong ones are an InputError, one line without the usage; a misspelt one gets a suggestion.
    """

    def __init__(self, doc: str | None = None, **settings: Any) -> None:
        description, _, rest = (doc or "").partition("\n\n")
        super().__init__(
            description=description,
            epilog=rest,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **settings,
        )
        self.add_argument("--debug", action="store_true", help="show tracebacks")

    def parse_known_args(self, args=None, namespace=None):
        """Nothing that is not known is left over, not by a subcommand either."""
        options, rest = super().parse_known_args(args, namespace)
        if rest:
            word = next((word for word in rest if word.startswith("-")), rest[0])
            near = did_you_mean(word.partition("=")[0], self._option_string_actions, alike=0.75)
            self.error(f"unrecognized arguments: {' '.join(rest)}{near}")
        return options, rest

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def run_command(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None = None) -> int:
    """Runs `main(arguments)` and returns its exit code; 2 for bad input, 130 for Ctrl-C, its own for a Stop.

    `--debug` may stand anywhere on the command line and lets exceptions through. InputError and OSError (no
    permission, no space, no such file) become one line on stderr.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    shows_tracebacks = "--debug" in words
    try:
        return main([word for word in words if word != "--debug"]) or 0
    except (InputError, OSError) as error:
        if shows_tracebacks:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if shows_tracebacks or not str(error).startswith(_LOST_WORKER):
            raise
        for worker in multiprocessing.active_children():
            worker.kill()  # it may wait for ever for what the lost one had locked
        reason = one_line(error).rstrip(".")
        print(f"error: {reason}; fewer --workers take less memory, 0 take none", file=sys.stderr)
        return 2
    except Stop as stop:
        print(one_line(stop), file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        if shows_tracebacks:
            raise
        print("interrupted", file=sys.stderr)
        return 130


def add_device_option(parser: argparse._ActionsContainer) -> None:
    """--device, what `training.machine.find_device` takes."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")


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
