"""How every command fails: one clear line for bad input, a traceback only with --debug."""

import argparse
import difflib
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence

_LONGEST = 1000  # characters of a message
_LOST_WORKER = "DataLoader worker"  # torch raises it wherever the program is when the system kills one


class InputError(ValueError):
    """Something the user gave is wrong. The message is one line: the file, the value, what was expected."""


class Stop(BaseException):
    """The command was told to stop and has left everything as it has to be. Not an error: nobody may catch it
    as one."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def run_command(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None = None) -> int:
    """Runs `main(arguments)` and returns its exit code; 2 for bad input, 130 for Ctrl-C, its own for a Stop.

    `--debug` may stand anywhere on the command line and lets exceptions through. InputError and OSError (no
    permission, no space, no such file) become one line on stderr.
    """
    debug_option = argparse.ArgumentParser(add_help=False)
    debug_option.add_argument("--debug", action="store_true")
    options, rest = debug_option.parse_known_args(sys.argv[1:] if arguments is None else list(arguments))
    try:
        return main(rest) or 0
    except (InputError, OSError) as error:
        if options.debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if options.debug or not str(error).startswith(_LOST_WORKER):
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
        if options.debug:
            raise
        print("interrupted", file=sys.stderr)
        return 130


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """ " (did you mean ...?)" with the nearest of `words`, or nothing where none is near."""
    near = difflib.get_close_matches(word.lower(), list(words), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def one_line(error: BaseException) -> str:
    """The message of an exception as a single line; for an OSError the path and what the system said."""
    if isinstance(error, OSError) and error.strerror:
        path = error.filename2 or error.filename
        return printable(f"{path}: {error.strerror}" if path else error.strerror)
    text = printable(" ".join(str(error).split())) or type(error).__name__
    if len(text) > _LONGEST:  # a value from a damaged file may be as long as the file
        text = f"{text[: _LONGEST * 3 // 4]} ... {text[-_LONGEST // 4 :]}"
    return text


def printable(text: str) -> str:
    """`text` with control, bidirectional and undecodable characters as escapes: a file may be called
    anything, and its name must not steer the terminal that it is printed on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
