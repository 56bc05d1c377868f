"""What is raised where the user gave something wrong, and how its message is written: one clear line."""

import difflib
from collections.abc import Iterable

_LONGEST = 1000  # characters of a message


class InputError(ValueError):
    """Something the user gave is wrong. The message is one line: the file, the value, what was expected."""


class Stop(BaseException):
    """The command was told to stop and has left everything as it has to be. Not an error: nobody may catch it
    as one."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def did_you_mean(word: str, words: Iterable[str], alike: float = 0.6) -> str:
    """ " (did you mean ...?)" with the nearest of `words`, or nothing where none is near."""
    near = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=alike)
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
