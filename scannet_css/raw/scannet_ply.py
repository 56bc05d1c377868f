"""Reads the binary PLY files ScanNet ships: fixed-size vertices and triangles, whole arrays at once; writes
such files, and reads their text form where that is asked for.

Strict on purpose: the size of the file must be exactly what its header says, so a cut download, a doubled
file or a payload shifted by a byte never passes for a mesh.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scannet_css.errors import InputError

_HEADER_LIMIT = 1 << 16
_TEXT = "="
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": _TEXT}
_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2"},
    **{"int": "i4", "uint": "u4", "float": "f4", "double": "f8"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}


def read_ply(path: str | Path, text: bool = False) -> dict[str, np.ndarray]:
    """The elements of a PLY file as structured arrays, for instance {"vertex": ..., "face": ...}.

    The file is binary, or with `text` perhaps in text form. A list property `name` is a triangle: field
    `name` of shape (3,), and field `name length` with the stored length, 3. Raises InputError with the reason
    if the file is anything else.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    end = re.search(rb"\nend_header\r?\n", data[:_HEADER_LIMIT])
    if not data.startswith(b"ply") or end is None:
        raise InputError(f"{path}: no PLY header")
    order, elements = _parse_header(path, data[: end.start()], text)
    read = _read_text if order == _TEXT else _read_binary
    arrays = read(
        path, data, end.end(), [(name, n, np.dtype(f).newbyteorder(order)) for name, n, f in elements]
    )
    for name, array in arrays.items():
        for field in array.dtype.names:
            # only a list's field has a space in its name; lists unused by the caller betray damage too
            if field.endswith(" length") and (array[field] != 3).any():
                bad = int(np.flatnonzero(array[field] != 3)[0])
                raise InputError(f"{path}: {name} {bad} is not a triangle")
    return arrays


def ply_bytes(elements: dict[str, np.ndarray], comments: Sequence[str] = ()) -> bytes:
    """A binary PLY file of structured arrays in little endian order, as `read_ply` gives them: a field `name`
    of shape (3,) behind a field `name length` is a list property."""
    words = {np.dtype(kind): word for word, kind in _TYPES.items() if word[-1].isalpha()}
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {comment}" for comment in comments)]
    body = b""
    for name, array in elements.items():
        lines.append(f"element {name} {len(array)}")
        for field in array.dtype.names:
            word = words[array.dtype[field].base.newbyteorder("=")]
            if array.dtype[field].shape:
                lines.append(f"property list uchar {word} {field}")
            elif not field.endswith(" length"):
                lines.append(f"property {word} {field}")
        body += array.astype(array.dtype.newbyteorder("<")).tobytes()
    return "\n".join([*lines, "end_header\n"]).encode("ascii") + body


def triangles(corners: np.ndarray) -> np.ndarray:
    """Corners (T, 3) as the element of faces that `ply_bytes` takes."""
    faces = np.empty(len(corners), [("vertex_indices length", "u1"), ("vertex_indices", "<i4", (3,))])
    faces["vertex_indices length"], faces["vertex_indices"] = 3, corners
    return faces


_Elements = list[tuple[str, int, np.dtype]]


def _read_binary(path: Path, data: bytes, start: int, elements: _Elements) -> dict[str, np.ndarray]:
    expected = start + sum(count * dtype.itemsize for _, count, dtype in elements)
    if len(data) != expected:
        raise InputError(f"{path}: {len(data)} bytes, but its header asks for {expected}; cut off or damaged")
    arrays = {}
    for name, count, dtype in elements:
        arrays[name] = np.frombuffer(data, dtype, count, start)
        start += count * dtype.itemsize
    return arrays


def _read_text(path: Path, data: bytes, start: int, elements: _Elements) -> dict[str, np.ndarray]:
    """A row is a line, as everybody writes it."""
    try:
        lines = data[start:].decode("ascii").rstrip().splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not plain text, which its header announces") from None
    expected = sum(count for _, count, _ in elements)
    if len(lines) != expected:
        raise InputError(
            f"{path}: {len(lines)} lines, but its header asks for {expected}; cut off or damaged"
        )
    arrays, first = {}, 0
    for name, count, dtype in elements:
        rows, first = lines[first : first + count], first + count
        try:
            arrays[name] = np.loadtxt(rows, dtype, comments=None, ndmin=1) if rows else np.empty(0, dtype)
        except ValueError as error:
            reason = str(error).partition(";")[0]
            raise InputError(f"{path}: {name}: not the numbers of its header ({reason})") from None
        if len(arrays[name]) != count:
            raise InputError(f"{path}: {name} has blank lines")
    return arrays


def _parse_header(path: Path, header: bytes, text: bool) -> tuple[str, list[tuple[str, int, list]]]:
    """Byte order and (name, count, numpy fields) of each element."""
    try:
        lines = header.decode("ascii").splitlines()[1:]
    except UnicodeDecodeError:
        raise InputError(f"{path}: the PLY header is not plain text") from None
    order, elements = None, []
    for line in lines:
        match line.split():
            case ["comment" | "obj_info", *_] | []:
                pass
            case ["format", word, "1.0"] if word in _ORDERS and order is None and (text or word != "ascii"):
                order = _ORDERS[word]
            case ["element", name, count] if _is_count(count) and name not in [e[0] for e in elements]:
                elements.append((name, int(count), []))
            case ["property", kind, name] if kind in _TYPES and _is_new(elements, name):
                elements[-1][2].append((name, _TYPES[kind]))
            case ["property", "list", "uchar" | "uint8", kind, name] if kind in _TYPES and _is_new(
                elements, name
            ):
                elements[-1][2].extend([(f"{name} length", "u1"), (name, _TYPES[kind], (3,))])
            case _:
                kind = "a" if text else "a binary"
                raise InputError(
                    f"{path}: header line {line.strip()!r}; expected {kind} PLY mesh of triangles"
                )
    if order is None or any(not fields for _, _, fields in elements):
        raise InputError(f"{path}: the PLY header lacks a format or an element's properties")
    return order, elements


def _is_count(word: str) -> bool:
    return word.isdecimal() and len(word) < 16


def _is_new(elements: list, name: str) -> bool:
    return bool(elements) and name not in [field[0] for field in elements[-1][2]]
