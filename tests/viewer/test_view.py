"""tools/view.py as a user runs it, on a small room."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from scannet_css.scenes.store import Scene, SceneEntry, SceneHeader, save_scene, scene_file

CHANNELS = ["background", "floor", "wall"]
WRONG, GREEN = (230, 0, 100), (152, 223, 138)  # an error, and the benchmark's colour of floor


@pytest.fixture
def scene(tmp_path) -> Path:
    """A floor of 60 x 60 points: a third floor, a third chair, a third unlabelled."""
    x, y = torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij")
    points = torch.stack([x.flatten(), y.flatten(), torch.zeros(3600)], dim=1).float() * 0.05
    labels = torch.tensor([1, 4, 255], dtype=torch.uint8).repeat_interleave(1200)
    count = len(points)
    room = Scene(
        name="scene0000_00",
        points=points,
        colours=torch.full((count, 3), 90, dtype=torch.uint8),
        normals=torch.tensor([[0.0, 0.0, 1.0]]).repeat(count, 1),
        labels=labels,
        instances=torch.zeros(count, dtype=torch.int32),
        voxel_coordinates=torch.stack([x.flatten(), y.flatten(), x.flatten() * 0], dim=1).int(),
        voxel_labels=labels.clone(),
        inverse=torch.arange(count, dtype=torch.int32),
    )
    path = tmp_path / "scene0000_00.safetensors"
    entry = SceneEntry(
        name=room.name,
        split="val",
        file=scene_file("val", room.name),
        sha256="",
        vertices=count,
        voxels=count,
        class_counts=tuple(1200 * (label in (1, 4)) for label in range(20)),
        ignored=1200,
        unknown_ids={},
        labelled=True,
    )
    save_scene(path, room, SceneHeader(settings="test", raw={}, entry=entry))
    return path


def predict(path: Path, values, channels=CHANNELS, scene="scene0000_00") -> str:
    path.parent.mkdir(exist_ok=True)
    metadata = {"channels": json.dumps(channels), "scene": scene}
    save_file({"prediction": torch.as_tensor(values, dtype=torch.uint8)}, path, metadata)
    return str(path)


@pytest.fixture
def view(run, tmp_path):
    return lambda *arguments: run(tmp_path, "tools/view.py", *arguments)


def share(image: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((image == colour).all(axis=-1).mean())


def test_panels_show_truth_and_errors(view, scene, tmp_path):
    right = np.repeat([1, 0, 2], 1200)  # chair is not among the channels: background is right there
    for name, values in (("right", right), ("wrong", np.full(3600, 2))):
        prediction = predict(tmp_path / name / "p.safetensors", values)
        done = view(scene, "--run", prediction, "--out", tmp_path / f"{name}.png")
        assert done.returncode == 0, done.stderr
    right, wrong = (np.array(Image.open(tmp_path / f"{name}.png")) for name in ("right", "wrong"))
    panel = right.shape[1] // 4
    assert share(right[:480, 3 * panel :], WRONG) == 0
    assert share(wrong[:480, 3 * panel :], WRONG) > 0.15
    assert share(right[:480, 2 * panel : 3 * panel], GREEN) > 0.05  # predicted
    assert share(wrong[:480, 2 * panel : 3 * panel], GREEN) == 0
    assert np.array_equal(right[:480, : 2 * panel], wrong[:480, : 2 * panel])  # RGB and truth


def test_several_predictions_stand_in_columns(view, scene, tmp_path):
    paths = [predict(tmp_path / name / "p.safetensors", np.zeros(3600)) for name in ("a", "b")]
    options = [item for path in paths for item in ("--run", path)]
    assert view(scene, *options, "--out", tmp_path / "two.png").returncode == 0
    assert view(scene, "--out", tmp_path / "none.png").returncode == 0
    two, none = Image.open(tmp_path / "two.png"), Image.open(tmp_path / "none.png")
    assert two.width > none.width and two.height > 1.7 * none.height
    done = view(scene, *options, "--title", "a", "--out", tmp_path / "three.png")
    assert done.returncode == 2 and done.stderr.startswith(
        "error: --title: 1 given, expected one for each of 2"
    )


BROKEN = {
    "short": (
        {"values": np.zeros(10)},
        "prediction is uint8 (10,), largest 0; expected uint8 (3600,) below 3",
    ),
    "channel": ({"values": np.full(3600, 3)}, "largest 3; expected uint8 (3600,) below 3"),
    "scene": ({"values": np.zeros(3600), "scene": "scene9"}, "predicts scene scene9, expected scene0000_00"),
    "name": (
        {"values": np.zeros(3600), "channels": ["background", "ghost"]},
        "channels are ['background', 'ghost']",
    ),
    "order": ({"values": np.zeros(3600), "channels": ["wall", "background"]}, "expected background and"),
    "type": ({"values": np.zeros(3600), "channels": {"a": 1}}, "channels are {'a': 1}"),
    "nested": ({"values": np.zeros(3600), "channels": ["background", ["wall"]]}, "expected background and"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_prediction_that_does_not_fit_is_refused_in_one_line(view, scene, tmp_path, name):
    options, message = BROKEN[name]
    prediction = predict(tmp_path / "run" / "p.safetensors", **options)
    done = view(scene, "--run", prediction, "--out", tmp_path / "out.png")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {prediction}: ") and message in done.stderr
    assert not (tmp_path / "out.png").exists()


def test_a_file_that_is_no_prediction_is_refused_in_one_line(view, scene, tmp_path):
    (tmp_path / "p.safetensors").write_bytes(b"nothing")
    for path, message in ((tmp_path / "p.safetensors", "expected a prediction file"), (scene, "prediction")):
        done = view(scene, "--run", path, "--out", tmp_path / "out.png")
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr
    done = view(scene, "--run", tmp_path / "nowhere", "--out", tmp_path / "out.png")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "nowhere" in done.stderr
