"""PLY files, by plyfile: anybody's as they come, ScanNet's strictly, and what we write.

Strict means that the file's size is exactly what its header says, so a cut download, a doubled file or a
payload shifted by a byte never passes for a mesh. plyfile reads lists one by one, so what is known to be
triangles is read, and written, as one block.
"""

import io
import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from plyfile import PlyData, PlyElement, PlyElementParseError, PlyListProperty

from scannet_css.errors import InputError

_LONGEST_HEADER = 1 << 16  # bytes
_HEADER = re.compile(
    rb"(?:\xef\xbb\xbf)?ply[ \t]*(?P<end>\r\n|\n|\r).*?(?P=end)[ \t]*end_header[ \t]*(?:(?P=end)|\r\n)",
    re.DOTALL,
)
_COUNT = re.compile(rb"^([ \t]*element[ \t]+\S+[ \t]+)(\S+)", re.MULTILINE)
_MESH = "expected a binary PLY mesh of triangles"
# The lists of most files: what has them in these lengths is read as one block.
_USUAL_LENGTHS = {"face": {"vertex_indices": 3, "vertex_index": 3, "texcoord": 6}}


def read_scan_ply(path: Path) -> dict[str, np.ndarray]:
    """The elements of a PLY file as ScanNet ships them, binary, as structured arrays: {"vertex": ...}.

    A list property `name` is a triangle: field `name` of shape (3,), and field `name length` with the stored
    length, 3. Raises InputError with the reason if the file is anything else.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    start = _header(path, data).end()
    if not data[:start].isascii():
        raise InputError(f"{path}: the PLY header is not plain text")
    arrays, end = {}, start
    for name, count, dtype in _fixed_elements(path, data[:start]):
        end += count * dtype.itemsize
        arrays[name] = (count, dtype)
    if len(data) != end:
        raise InputError(f"{path}: {len(data)} bytes, but its header asks for {end}; cut off or damaged")
    for name, (count, dtype) in arrays.items():
        arrays[name] = array = np.frombuffer(data, dtype, count, start)
        start += array.nbytes
        for field in dtype.names:
            # only a list's field has a space in its name; lists unused by the caller betray damage too
            if field.endswith(" length") and (array[field] != 3).any():
                bad = int(np.flatnonzero(array[field] != 3)[0])
                raise InputError(f"{path}: {name} {bad} is not a triangle")
    return arrays


def _fixed_elements(path: Path, header: bytes) -> list[tuple[str, int, np.dtype]]:
    """Name, rows and the type of a row of each element; lists are triangles with a count of one byte."""
    counts = [found[2] for found in _COUNT.finditer(header)]
    try:
        content = PlyData.read(io.BytesIO(_COUNT.sub(rb"\g<1>0", header)))
    except Exception as error:  # plyfile's own, and whatever a damaged line makes of it
        raise InputError(f"{path}: PLY header, {error}; {_MESH}") from None
    if content.text or len(counts) != len(content.elements):
        raise InputError(f"{path}: {'a text' if content.text else 'no'} PLY file; {_MESH}")
    elements = []
    for element, count in zip(content.elements, counts, strict=True):
        fields = []
        for one in element.properties:
            if isinstance(one, PlyListProperty):
                length, value = one.list_dtype(content.byte_order)
                fields += [(f"{one.name} length", length), (one.name, value, (3,))]
            else:
                fields.append((one.name, one.dtype(content.byte_order)))
        dtype = np.dtype(fields)
        lists = [dtype[name] for name in dtype.names if name.endswith(" length")]
        if not (fields and count.isdigit() and len(count) < 16 and all(one == "u1" for one in lists)):
            raise InputError(f"{path}: element {element.name} of {count.decode()} rows; {_MESH}")
        elements.append((element.name, int(count), dtype))
    return elements


def read_ply(path: Path) -> PlyData:
    """Any PLY file, binary or text, with lists of any kind, as plyfile gives it.

    Its header may begin with a byte order mark, and hold blanks at line ends and comments in any encoding.
    Raises InputError if the file is cut off, damaged, or has more than blanks behind its last row.
    """
    with open(path, "rb") as file, tempfile.TemporaryFile() as copy:
        beginning = file.read(_LONGEST_HEADER)
        header = beginning[: _header(path, beginning).end()]
        rows = sum(int(found[2]) for found in _COUNT.finditer(header) if found[2].isdigit())
        if rows > path.stat().st_size:
            raise InputError(f"{path}: its header asks for {rows} rows; cut off or damaged")
        plain = _plain(header)
        stream: IO = file
        file.seek(len(header))
        try:
            if re.search(rb"^format[ \t]+ascii", plain, re.MULTILINE):
                stream = io.StringIO((plain + file.read()).decode("ascii"))
            elif plain != header:
                copy.write(plain)
                shutil.copyfileobj(file, copy)
                stream = copy
            content = _read_rows(stream)
        except OSError:
            raise
        except Exception as error:  # plyfile's own, and whatever a damaged row makes of it
            raise InputError(f"{path}: {error}; cut off or damaged") from None
        if stream.read().strip():
            raise InputError(f"{path}: goes on behind what its header asks for; damaged")
    return content


def _header(path: Path, data: bytes) -> re.Match:
    found = _HEADER.match(data, 0, _LONGEST_HEADER)
    if found is None:
        raise InputError(f"{path}: no PLY header")
    return found


def _plain(header: bytes) -> bytes:
    """The header as plyfile takes it: plain text, without obj_info, which it refuses behind an element."""
    lines = [line.strip() for line in re.split(rb"\r\n|\n|\r", header.removeprefix(b"\xef\xbb\xbf"))]
    kept = [
        line
        for line in lines
        if line and not line.startswith(b"obj_info") and (line.isascii() or not line.startswith(b"comment"))
    ]
    return "\n".join(line.decode("ascii", "backslashreplace") for line in [*kept, b""]).encode()


def _read_rows(stream: IO) -> PlyData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of empty lists in text
        warnings.simplefilter("error", DeprecationWarning)  # numpy 1 takes 256 for a byte, with a warning
        try:
            stream.seek(0)
            return PlyData.read(stream, known_list_len=_USUAL_LENGTHS)
        except PlyElementParseError:
            stream.seek(0)
            return PlyData.read(stream)


def ply_bytes(vertices: np.ndarray, corners: np.ndarray | None = None, comments: Sequence[str] = ()) -> bytes:
    """A binary PLY file, little endian: vertices (P,), a structured array, and triangles (T, 3)."""
    elements = [PlyElement.describe(vertices, "vertex")]
    blocks = [vertices.astype(vertices.dtype.newbyteorder("<"), copy=False)]
    if corners is not None:
        triangles = np.empty(len(corners), [("vertex_indices", "<i4", (3,))])
        elements.append(PlyElement.describe(triangles, "face"))
        faces = np.empty(len(corners), [("length", "u1"), *triangles.dtype.descr])
        faces["length"], faces["vertex_indices"] = 3, corners
        blocks.append(faces)
    header = PlyData(elements, byte_order="<", comments=comments).header
    return b"".join([header.encode("ascii"), b"\n", *(block.tobytes() for block in blocks)])
