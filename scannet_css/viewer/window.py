"""A room in a window of rerun or open3d, whichever is installed."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scannet_css.classes import BACKGROUND_NAME
from scannet_css.errors import InputError
from scannet_css.scenes import Scene
from scannet_css.viewer.picture import error_colours, paint
from scannet_css.viewer.predictions import RoomRun, channel_table

GAP = 1.2  # rooms' lengths between open3d's panels
NEITHER = "--window: neither rerun nor open3d is installed; pip install rerun-sdk (or open3d)"


def open_window(scene: Scene, runs: Sequence[RoomRun], classes: Sequence[str]) -> None:
    """Shows the room in rerun, with a timeline of steps, or in open3d. Raises InputError without either."""
    try:
        import rerun
    except ImportError:
        pass
    else:
        # its viewer is a program, which lies beside this Python and not always on the PATH
        places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        rerun.init("scannet-css")
        rerun.spawn(executable_path=shutil.which("rerun", path=places))
        log_to_rerun(scene, runs, classes)
        return
    try:
        import open3d
    except ImportError:
        raise InputError(NEITHER) from None
    open3d.visualization.draw_geometries(clouds(scene, runs, classes), window_name=scene.name)


def log_to_rerun(scene: Scene, runs: Sequence[RoomRun], classes: Sequence[str]) -> None:
    """Entities of the current recording: `rgb`, and `<run>/truth`, `prediction` and `errors` at each step."""
    import rerun
    import rerun.blueprint

    points = scene.points.numpy()
    views = ["rgb"]
    rerun.log("rgb", rerun.Points3D(points, colors=scene.colours.numpy()), static=True)
    if not runs:
        views.append("truth")
        rerun.log("truth", rerun.Points3D(points, colors=_truth(scene, None, classes)), static=True)
    for number, run in enumerate(runs):
        names = {kind: f"run{number}/{kind}" for kind in ("truth", "prediction", "errors")}
        views += names.values()
        for one in run.steps:
            rerun.set_time("step", sequence=one.step)
            colours = {
                "truth": _truth(scene, one.channels, classes),
                "prediction": paint(one.values, one.channels, classes),
                "errors": error_colours(one, scene, classes),
            }
            for kind, name in names.items():
                rerun.log(name, rerun.Points3D(points, colors=colours[kind]))
    titles = ["RGB", *(f"{run.title}: {kind}" for run in runs for kind in ("truth", "prediction", "errors"))]
    titles += ["ground truth"] if not runs else []
    panels = [
        rerun.blueprint.Spatial3DView(origin=view, name=title)
        for view, title in zip(views, titles, strict=True)
    ]
    rerun.send_blueprint(rerun.blueprint.Blueprint(rerun.blueprint.Grid(*panels)))


def clouds(scene: Scene, runs: Sequence[RoomRun], classes: Sequence[str]) -> list:
    """open3d point clouds beside each other: RGB, ground truth, then prediction and errors of each run after
    its last step."""
    import open3d

    last = [run.steps[-1] for run in runs]
    panels = [scene.colours.numpy(), _truth(scene, last[0].channels if last else None, classes)]
    for one in last:
        panels += [paint(one.values, one.channels, classes), error_colours(one, scene, classes)]
    points = scene.points.numpy().astype(np.float64)
    width = GAP * float(np.ptp(points[:, 0])) if len(points) else 1.0
    found = []
    for place, colours in enumerate(panels):
        cloud = open3d.geometry.PointCloud()
        cloud.points = open3d.utility.Vector3dVector(points + [place * width, 0, 0])
        cloud.colors = open3d.utility.Vector3dVector(colours / 255)
        found.append(cloud)
    return found


def _truth(scene: Scene, channels: Sequence[str] | None, classes: Sequence[str]) -> np.ndarray:
    channels = channels or [BACKGROUND_NAME, *classes]
    return paint(channel_table(channels, classes)[scene.labels.numpy()], channels, classes)
