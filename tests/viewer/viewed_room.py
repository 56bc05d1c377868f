"""A room whose pictures are known: floor in stripes of four classes, and a ceiling that looks down."""

import numpy as np
import torch

from scannet_css.classes import CLASSES
from scannet_css.scenes.store import Scene
from scannet_css.viewer.predictions import Prediction, RoomRun

FLOOR, CHAIR, TABLE, CEILING, UNLABELLED = 1, 4, 6, 0, 255
CEILING_RGB, FLOOR_RGB = (10, 200, 10), (90, 60, 30)
HOSTILE = "<img src=x onerror='window.hacked=1'></script><script>window.hacked=1</script>\u2028\"'"


def make_room(name: str = "scene0000_00", columns: int = 80, rows: int = 60) -> Scene:
    """2 x columns x rows vertices: a floor of 8 x 6 m (normals up) and a ceiling above (normals down)."""
    x, y = (part.ravel() for part in np.meshgrid(np.arange(columns), np.arange(rows), indexing="ij"))
    flat = np.stack([8 * x / columns, 6 * y / rows, 0 * x], axis=1)
    stripes = np.array([FLOOR, CHAIR, TABLE, UNLABELLED], dtype=np.uint8)[4 * x // columns]
    count = len(flat)
    normals = np.repeat([[0, 0, 1], [0, 0, -1]], count, axis=0)
    labels = np.concatenate([stripes, np.full(count, CEILING, dtype=np.uint8)])
    none = torch.zeros(0, dtype=torch.int32)
    return Scene(
        name=name,
        points=torch.tensor(np.concatenate([flat, flat + [0, 0, 2.5]]), dtype=torch.float32),
        colours=torch.tensor(np.repeat([FLOOR_RGB, CEILING_RGB], count, axis=0), dtype=torch.uint8),
        normals=torch.tensor(normals, dtype=torch.float32),
        labels=torch.tensor(labels),
        instances=none,
        voxel_coordinates=none.reshape(0, 3),
        voxel_labels=none.to(torch.uint8),
        inverse=none,
    )


def make_run(scene: Scene, title: str, share_wrong: tuple[float, ...], joint: bool = False) -> RoomRun:
    """Step 0 knows wall, floor and chair, step 1 also table. Of all vertices the first `share_wrong` of each
    step are predicted as the class that came last, the others are right."""
    base = ["background", "wall", "floor", "chair"]
    steps = []
    for step, share in enumerate(share_wrong):
        channels = [*base, "table"] if step or joint else base
        table = np.zeros(256, dtype=np.uint8)
        for channel, name in enumerate(channels[1:], start=1):
            table[CLASSES.index(name)] = channel
        values = table[scene.labels.numpy()]
        values[: int(share * len(values))] = len(channels) - 1
        steps.append(Prediction(step, channels, values))
    return RoomRun(title, steps)
