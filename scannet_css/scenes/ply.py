"""Reads the binary PLY files ScanNet ships: fixed-size vertices and triangles, whole arrays at once.

Strict on purpose: the size of the file must be exactly what its header says, so a cut download, a doubled
file or a payload shifted by a byte never passes for a mesh.
"""

import re
from pathlib import Path

import numpy as np

from scannet_css.errors import InputError

_HEADER_LIMIT = 1 << 16
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2"},
    **{"int": "i4", "uint": "u4", "float": "f4", "double": "f8"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}


def read_ply(path: str | Path) -> dict[str, np.ndarray]:
    """The elements of a binary PLY file as structured arrays, for instance {"vertex": ..., "face": ...}.

    A list property `name` is a triangle: field `name` of shape (3,), and field `name length` with the stored
    length, 3. Raises InputError with the reason if the file is anything else.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    end = re.search(rb"\nend_header\r?\n", data[:_HEADER_LIMIT])
    if not data.startswith(b"ply") or end is None:
        raise InputError(f"{path}: no PLY header")
    order, elements = _parse_header(path, data[: end.start()])
    start, expected = end.end(), end.end()
    for _, count, fields in elements:
        expected += count * np.dtype(fields).itemsize
    if len(data) != expected:
        raise InputError(f"{path}: {len(data)} bytes, but its header asks for {expected}; cut off or damaged")
    arrays = {}
    for name, count, fields in elements:
        dtype = np.dtype(fields).newbyteorder(order)
        arrays[name] = np.frombuffer(data, dtype, count, start)
        for field in dtype.names:
            # only a list's field has a space in its name; lists unused by the caller betray damage too
            if field.endswith(" length") and (arrays[name][field] != 3).any():
                bad = int(np.flatnonzero(arrays[name][field] != 3)[0])
                raise InputError(f"{path}: {name} {bad} is not a triangle")
        start += count * dtype.itemsize
    return arrays


def _parse_header(path: Path, header: bytes) -> tuple[str, list[tuple[str, int, list]]]:
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
            case ["format", word, "1.0"] if word in _ORDERS and order is None:
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
                raise InputError(
                    f"{path}: header line {line.strip()!r}; expected a binary PLY mesh of triangles"
                )
    if order is None or any(not fields for _, _, fields in elements):
        raise InputError(f"{path}: the PLY header lacks a format or an element's properties")
    return order, elements


def _is_count(word: str) -> bool:
    return word.isdecimal() and len(word) < 16


def _is_new(elements: list, name: str) -> bool:
    return bool(elements) and name not in [field[0] for field in elements[-1][2]]
