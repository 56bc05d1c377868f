"""How long the 3D viewer takes to load and to draw a large room: what `speed.py viewer` measures.

In a headless Chromium with software rendering. A whole frame has all points in all four panels and is waited
for by reading a pixel back. While the camera moves, the viewer draws as many points as it can in time: the
second line says how often and how many.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from scannet_css.classes import CLASSES, IGNORE, NYU40_IDS
from scannet_css.errors import InputError
from scannet_css.scenes import Scene
from scannet_css.scenes.convert import vertex_normals
from scannet_css.synthetic.scans import make_scan
from scannet_css.viewer.browser import room_script, write_viewer_page
from scannet_css.viewer.predictions import Prediction, RoomRun
from speed_lib.measure import check_sizes

OPTIONS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
WATCH = "Boolean(document.querySelector('.room-viewer').viewer.shownSteps)"
DRAW = """(frames) => {
  const { panels } = document.querySelector('.room-viewer').viewer, gl = panels.renderer.getContext();
  const times = [], pixel = new Uint8Array(4);
  for (let frame = 0; frame < frames; frame++) {
    const start = performance.now();
    panels.turn(0.03, 0);
    panels.isMoving = false; // all points
    panels.draw();
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    times.push(performance.now() - start);
  }
  return times;
}"""
MOVE = """async (frames) => {
  const { panels } = document.querySelector('.room-viewer').viewer, times = [], counts = [];
  let last = performance.now();
  for (let frame = 0; frame < frames; frame++) {
    panels.turn(0.03, 0);
    await new Promise((done) => requestAnimationFrame(done));
    counts.push(panels.points.geometry.drawRange.count);
    times.push(performance.now() - last);
    last = performance.now();
  }
  return [times, counts];
}"""


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--vertices", type=int, default=150_000, metavar="N", help="of the room (%(default)s)")
    add("--frames", type=int, default=20, metavar="N", help="how many to time (%(default)s)")


def measure_viewer(options: argparse.Namespace) -> None:
    """Measures and prints. Raises InputError for wrong options and where there is no browser."""
    check_sizes(options, {"vertices": 1000, "frames": 1})
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise InputError("no chromium and no google-chrome on the PATH; expected one of them")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("playwright is not installed; pip install playwright") from None
    room = make_room(options.vertices)
    runs = [make_run(room, title) for title in ("one", "two")]
    size = len(room_script(room, runs, CLASSES))
    print(f"{len(room.points)} vertices, 2 runs of 2 steps: {size / 1e6:.2f} MB")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "room.html"
        write_viewer_page(path, [(room, runs)], CLASSES)
        page = playwright.chromium.launch(executable_path=browser, args=OPTIONS).new_page(
            viewport={"width": 1280, "height": 900}
        )
        start = time.perf_counter()
        page.goto(path.as_uri())
        while not page.evaluate(WATCH):
            time.sleep(0.02)
        print(f"from opening the page to the room on it: {time.perf_counter() - start:.2f} s")
        times = page.evaluate(DRAW, options.frames)
        moving, counts = page.evaluate(MOVE, options.frames)
    middle = median(times)
    print(f"a whole frame: median {middle:.0f} ms, {1000 / middle:.1f} a second; worst {max(times):.0f} ms")
    middle = median(moving)
    print(
        f"a frame while the camera moves: median {middle:.0f} ms, {1000 / middle:.1f} a second; worst "
        f"{max(moving):.0f} ms; {median(counts):.0f} points"
    )


def make_room(vertices: int) -> Scene:
    """A synthetic room of ScanNet's size."""
    scan = make_scan(0, "val", 0, vertices)
    ids = scan.nyu40()
    labels = np.full(len(ids), IGNORE, dtype=np.uint8)
    for label, number in enumerate(NYU40_IDS):
        labels[ids == number] = label
    none = torch.zeros(0, dtype=torch.int32)
    normals = vertex_normals(scan.points, scan.faces)
    return Scene(
        name="scene0000_00",
        points=torch.as_tensor(np.asarray(scan.points, dtype=np.float32)),
        colours=torch.as_tensor(np.asarray(scan.colours, dtype=np.uint8)),
        normals=torch.as_tensor(np.asarray(normals, dtype=np.float32)),
        labels=torch.as_tensor(labels),
        instances=none,
        voxel_coordinates=none.reshape(0, 3),
        voxel_labels=none.to(torch.uint8),
        inverse=none,
    )


def make_run(room: Scene, title: str) -> RoomRun:
    """Every tenth piece of a thousand vertices is wrong."""
    labels = room.labels.numpy()
    right = np.where(labels == IGNORE, 0, labels + 1).astype(np.uint8)
    pieces = np.arange(len(right)) // 1000 % 10 == 0
    channels = ["background", *CLASSES]
    steps = [
        Prediction(step, channels, np.where(pieces, 1 + step, right).astype(np.uint8)) for step in (0, 1)
    ]
    return RoomRun(title, steps)
