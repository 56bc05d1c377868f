"""The 20 classes of the ScanNet benchmark: names, NYU40 ids and the official colours.

A dataset label is the position in CLASSES (0..19); IGNORE (255) marks vertices that are not scored. Facts
from ScanNet's benchmark scripts. Always map by NYU40 id, never by NYU40 name: id 24 is spelt two ways.
"""

IGNORE = 255

_TABLE = (
    ("wall", 1, (174, 199, 232)),
    ("floor", 2, (152, 223, 138)),
    ("cabinet", 3, (31, 119, 180)),
    ("bed", 4, (255, 187, 120)),
    ("chair", 5, (188, 189, 34)),
    ("sofa", 6, (140, 86, 75)),
    ("table", 7, (255, 152, 150)),
    ("door", 8, (214, 39, 40)),
    ("window", 9, (197, 176, 213)),
    ("bookshelf", 10, (148, 103, 189)),
    ("picture", 11, (196, 156, 148)),
    ("counter", 12, (23, 190, 207)),
    ("desk", 14, (247, 182, 210)),
    ("curtain", 16, (219, 219, 141)),
    ("refrigerator", 24, (255, 127, 14)),
    ("shower curtain", 28, (158, 218, 229)),
    ("toilet", 33, (44, 160, 44)),
    ("sink", 34, (112, 128, 144)),
    ("bathtub", 36, (227, 119, 194)),
    ("otherfurniture", 39, (82, 84, 163)),
)

CLASSES: tuple[str, ...] = tuple(name for name, _, _ in _TABLE)
NYU40_IDS: tuple[int, ...] = tuple(nyu40 for _, nyu40, _ in _TABLE)
COLOURS: tuple[tuple[int, int, int], ...] = tuple(colour for _, _, colour in _TABLE)
UNLABELLED_COLOUR = (0, 0, 0)
