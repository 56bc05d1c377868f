"""One image and its label as they lie on disk: read whole or refused, never quietly as something else.

A photo is kept as the bytes that were found, JPEG or PNG. A label is a PNG of class ids. Decoders stretch
greys of 1, 2 or 4 bits (1 becomes 255, which is ignored) and give the place in a palette instead of its
colour; both are undone here.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from scannet_css.classes import IGNORE
from scannet_css.errors import InputError
from scannet_css.raw.scan import Source

SUFFIXES = (".jpg", ".jpeg", ".png")
MOST_PIXELS = 1 << 26  # 67 million; a header is not trusted with more memory
LOOKED_AT = 8  # labels of a folder, before it is read
_RGB = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr")  # what Pillow turns into RGB without loss
_ORIENTATION = 0x0112  # the EXIF tag
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
Colour = tuple[int, int, int]
Size = tuple[int, int]  # H, W


@dataclass
class RawImage:
    """One image of H x W pixels as it is seen, in the classes of its reader."""

    name: str
    photo: bytes  # the file
    size: Size
    labels: np.ndarray | None  # (H, W) uint8: position in the reader's classes, 255 ignored; None: none there
    findings: dict[str, int] = field(default_factory=dict)  # by the names of FINDINGS; zeros are dropped
    unknown_ids: dict[int, int] = field(default_factory=dict)  # id the data set does not have -> pixels


def read_photo(path: Path) -> tuple[bytes, Size, Size, bool]:
    """The bytes of a photo that is whole, its H and W as stored and as EXIF says to show it, and whether EXIF
    says to turn or mirror it."""
    data = _bytes(path)
    with _refused(path):
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        _check_kind(path, image)
        stored = image.size[::-1]
        orientation = image.getexif().get(_ORIENTATION, 1)
        image.draft("L", (1, 1))  # a JPEG at an eighth of its size: cut or damaged all the same
        image.load()
    shown = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    return data, stored, shown, orientation in range(2, 9)


def open_photo(photo: bytes, size: Size) -> Image.Image:
    """The photo as an RGB image of H x W = `size`: turned as EXIF says where it has that size only so."""
    image = Image.open(io.BytesIO(photo), formats=("JPEG", "PNG"))
    if image.size[::-1] != tuple(size):
        image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def read_label_ids(path: Path, colours: Mapping[Colour, int] | None = None) -> np.ndarray:
    """The ids (H, W) uint8 of a label. `colours` -> id: for labels that are coloured pictures.

    Raises InputError for anything but a whole PNG of ids of at most 8 bits.
    """
    data = _bytes(path)
    with _refused(path):
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        _check_size(path, image)
        depth, kind = data[24], data[25]  # of IHDR, which comes first
        if depth == 16:
            raise InputError(f"{path}: a label of 16 bits; expected ids of 8 bits")
        values = np.asarray(image)
    if kind == 0:
        return values.astype(np.uint8) // {1: 1, 2: 85, 4: 17, 8: 1}[depth]
    if kind == 4:
        return np.ascontiguousarray(values[..., 0])  # grey, and how opaque
    if kind == 3:
        return _of_palette(path, values, image, colours or {})
    pixels, places = np.unique(_packed(values[..., :3]), return_inverse=True)
    found = [(p >> 16, p >> 8 & 255, p & 255) for p in pixels.tolist()]
    return _of_colours(path, found, colours or {})[places.reshape(values.shape[:2])]


@dataclass(frozen=True)
class LabelIds:
    """How the labels of a data set are read, and how their ids lead to its classes."""

    ids: tuple[int, ...]  # of the classes, in order
    ignored: tuple[int, ...]  # ids that are no class
    colours: Mapping[Colour, int] = field(default_factory=dict)  # of labels that are coloured pictures -> id
    most_unknown: int = 0  # different other ids in one label that are ignored and counted; more: refused
    decode: Callable[[Path, Mapping[Colour, int]], np.ndarray] = read_label_ids

    def read(self, path: Path) -> tuple[np.ndarray, dict[int, int]]:
        """Labels (H, W) uint8, positions in the classes, and the pixels of unknown ids, which are ignored.

        Raises InputError for what is no whole label, and for too many unknown ids.
        """
        ids = self.decode(path, self.colours)
        table = np.full(256, IGNORE, np.uint8)
        table[list(self.ids)] = np.arange(len(self.ids))
        counts = np.bincount(ids.ravel(), minlength=256)
        known = {*self.ids, *self.ignored}
        unknown = {i: int(counts[i]) for i in np.flatnonzero(counts).tolist() if i not in known}
        if len(unknown) > self.most_unknown:
            first = min(unknown)
            ignored = f", and {', '.join(map(str, self.ignored))} ignored" if self.ignored else ""
            raise InputError(
                f"{path}: id {first} at {unknown[first]} pixels; expected ids from {min(self.ids)} to "
                f"{max(self.ids)}{ignored}"
            )
        return table[ids], unknown


def check_labels(paths: Sequence[Path], known: LabelIds) -> None:
    """Raises InputError, the first one's, if none of some labels among `paths` can be read: then the folder
    holds labels of another kind."""
    chosen = (
        [paths[k * len(paths) // LOOKED_AT] for k in range(LOOKED_AT)] if len(paths) > LOOKED_AT else paths
    )
    failures = []
    for path in chosen:
        try:
            known.read(path)
            return
        except (InputError, OSError) as error:
            failures.append(error)
    if failures:
        raise failures[0]


def read_image(source: Source, known: LabelIds) -> RawImage:
    """The image whose photo and, where there is one, label are the files of `source`.

    Raises InputError for what is missing, damaged, of different sizes or has ids beyond the classes.
    """
    photo_file, *label_file = source.files
    photo, stored, shown, turned = read_photo(photo_file)
    if not label_file:
        return RawImage(source.name, photo, shown, None)
    labels, unknown = known.read(label_file[0])
    if labels.shape not in (stored, shown):
        raise InputError(
            f"{label_file[0]}: {_times(labels.shape)} pixels, but {photo_file.name} has {_times(stored)}"
        )
    findings = {
        "turned_photos": int(labels.shape != stored),
        "photos_left_as_stored": int(turned and labels.shape == stored),
    }
    return RawImage(source.name, photo, labels.shape, labels, findings, unknown)


def images_in(folder: Path) -> dict[str, Path]:
    """Name without suffix -> file, of the images in `folder`; what other systems leave among them is none.

    Raises InputError for two of one name.
    """
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = folder / entry.name
        if entry.name.startswith(".") or path.suffix.lower() not in SUFFIXES or not entry.is_file():
            continue
        if path.stem in found:
            raise InputError(f"{path}: is there as {found[path.stem].name} too; expected one image of a name")
        found[path.stem] = path
    return found


def _of_palette(
    path: Path, places: np.ndarray, image: Image.Image, colours: Mapping[Colour, int]
) -> np.ndarray:
    """Ids of a label with a palette: its colours must say the same as the places, or be known."""
    palette = np.zeros((256, 3), np.uint8)
    given = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette[: len(given)] = given
    used = np.unique(places).tolist()
    found = [tuple(palette[i].tolist()) for i in used]
    table = np.zeros(256, np.uint8)
    table[used] = _of_colours(path, found, colours)
    return table[places]


def _of_colours(path: Path, found: Sequence[Colour], colours: Mapping[Colour, int]) -> np.ndarray:
    """An id for each colour: all known, or else all greys, which are ids."""
    if all(colour in colours for colour in found):
        return np.array([colours[colour] for colour in found], np.uint8)
    if all(len(set(colour)) == 1 for colour in found):
        return np.array([colour[0] for colour in found], np.uint8)
    odd = next(colour for colour in found if colour not in colours and len(set(colour)) > 1)
    raise InputError(f"{path}: a coloured label, {odd} is no class's colour; expected ids in grey, 8 bits")


def _packed(values: np.ndarray) -> np.ndarray:
    red, green, blue = (values[..., c].astype(np.uint32) for c in range(3))
    return red << 16 | green << 8 | blue


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    if not data:
        raise InputError(f"{path}: empty")
    return data


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """What a decoder raises for a damaged file becomes one line."""
    try:
        yield
    except InputError:
        raise
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: not an image of its kind; expected a JPEG, or a PNG") from None
    except _DAMAGED as error:
        raise InputError(f"{path}: damaged ({error})") from None


def _check_kind(path: Path, image: Image.Image) -> None:
    _check_size(path, image)
    if image.mode not in _RGB:
        raise InputError(f"{path}: a photo of mode {image.mode}; expected 8 bits a channel")


def _check_size(path: Path, image: Image.Image) -> None:
    if image.size[0] * image.size[1] > MOST_PIXELS:
        raise InputError(f"{path}: {_times(image.size[::-1])} pixels; expected at most {MOST_PIXELS} in all")


def _times(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"
