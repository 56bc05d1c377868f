"""Scans written by plyfile, an implementation that knows nothing of ours, in the layout ScanNet ships."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from scannet_css.errors import run_command

TOOL = Path(__file__).parents[2] / "tools" / "prepare_scannet.py"


@pytest.fixture
def prepare_scannet(capfd):
    """Runs tools/prepare_scannet.py in this process; gives exit code, standard output and standard error."""
    spec = importlib.util.spec_from_file_location("prepare_scannet", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        code = run_command(tool.main, [str(argument) for argument in arguments])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def write_scan():
    return _write_scan


def _write_scan(
    folder,
    points,
    faces=(),
    colours=None,
    nyu40=None,
    segments=None,
    objects=None,
    byte_order="<",
    categories=None,
) -> Path:
    """Writes one scan folder; `objects` is {objectId: segments} and `categories` {objectId: raw category},
    "chair" where missing; what is None is left out."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    points = np.asarray(points, np.float32)
    vertices = np.zeros(
        len(points),
        [(axis, "f4") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue", "alpha")],
    )
    for axis, name in enumerate("xyz"):
        vertices[name] = points[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = 0 if colours is None else np.asarray(colours)[:, channel]
    vertices["alpha"] = 255
    triangles = np.zeros(len(faces), [("vertex_indices", "i4", (3,))])
    triangles["vertex_indices"] = np.asarray(faces, np.int32).reshape(-1, 3)
    _write_ply(folder / f"{folder.name}_vh_clean_2.ply", vertices, triangles, byte_order)
    if nyu40 is not None:
        labelled = np.zeros(len(points), [*vertices.dtype.descr, ("label", "u2")])
        for name in vertices.dtype.names:
            labelled[name] = vertices[name]
        labelled["label"] = nyu40
        _write_ply(folder / f"{folder.name}_vh_clean_2.labels.ply", labelled, triangles, byte_order)
    if segments is not None:
        content = {"sceneId": folder.name, "segIndices": np.asarray(segments).tolist()}
        (folder / f"{folder.name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(content))
    if objects is not None:
        groups = [
            {
                "id": i,
                "objectId": i,
                "segments": list(owned),
                "label": (categories or {}).get(i, "chair"),
            }
            for i, owned in objects.items()
        ]
        content = {"sceneId": f"scannet.{folder.name}", "segGroups": groups}
        (folder / f"{folder.name}.aggregation.json").write_text(json.dumps(content))
    return folder


def _write_ply(path, vertices, triangles, byte_order):
    elements = [PlyElement.describe(vertices, "vertex"), PlyElement.describe(triangles, "face")]
    PlyData(elements, byte_order=byte_order).write(str(path))
