"""Renders the pictures of docs/synthetic_scans.md: five rooms by colour and by label.

python docs/render/synthetic_pictures.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from scannet_css.synthetic.scans import label_palette, make_scan
from scannet_css.viewer.drawing import render

ROOMS = {"bedroom": 0, "meeting_room": 1, "office": 2, "kitchen": 3, "bathroom": 4}
SEED = 3


def main() -> None:
    for name, index in ROOMS.items():
        scan = make_scan(SEED, "train", index)
        points = scan.points @ scan.alignment[:3, :3].T
        colours = (scan.colours, label_palette()[scan.nyu40()])
        halves = [render(points, colour, (560, 420), 35, 48, scan.faces) for colour in colours]
        path = Path(__file__).parents[1] / "pictures" / f"synthetic_{name}.jpg"
        Image.fromarray(np.concatenate(halves, axis=1)).save(path, quality=88, optimize=True)


if __name__ == "__main__":
    main()
