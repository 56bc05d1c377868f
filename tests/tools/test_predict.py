"""tools/predict.py as a user calls it, on what a run leaves, against what the run itself predicted."""

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from plyfile import PlyData, PlyElement
from safetensors import safe_open

from scannet_css.classes import CLASSES, COLOURS, NYU40_IDS, SCANNET200, class_list
from scannet_css.errors import InputError
from scannet_css.network.weights import HEADER
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.training.checkpoint import load_checkpoint, save_checkpoint
from scannet_css.training.predictor import Predictor
from scannet_css.training.trained import load_trained


@pytest.fixture(scope="session")
def tool(load_tool):
    return load_tool("predict")


@pytest.fixture
def predict(tool, call):
    return lambda *arguments: call(tool, *arguments)


@pytest.mark.parametrize(
    ("method", "place", "step", "expected"),
    [
        ("lwf", "", None, 1),
        ("lwf", "", 0, 0),
        ("lwf", "step1", 1, 1),
        ("lwf", "step1/finished.pt", None, 1),
        ("lwf", "weights/step0.safetensors", None, 0),
        ("lwf", "weights/step1.safetensors", None, 1),
        ("cfsseg", "", None, 1),
        ("cfsseg", "", 0, 0),
        ("cfsseg", "weights/step1.safetensors", 1, 1),
    ],
)
def test_every_vertex_gets_what_the_run_predicted(predict, trained, tmp_path, method, place, step, expected):
    run, files = trained.runs[method], [trained.scan(name) for name in trained.names]
    options = () if step is None else ("--step", step)
    code, out, error = predict("--checkpoint", run / place, *options, "--scan", *files, "--out", tmp_path)
    assert code == 0, error
    assert "minkunet14s" in out and "4 scans labelled" in out
    seen = set()
    for name, file in zip(trained.names, files, strict=True):
        lines = (tmp_path / f"{file.stem}.predicted.txt").read_text().splitlines()
        assert [int(line) for line in lines] == trained.stored(run, expected, name).tolist()
        seen |= set(lines)
    assert len(seen) > 2 and ("0" in seen) == (expected == 0)


def test_methods_answer_by_their_own_read_out(trained):
    """The classifier of cfsseg lies in what it remembers; the network's own would say something else."""
    one = load_trained(trained.runs["cfsseg"])
    scene = load_scene(trained.data / "val" / f"{trained.names[0]}.safetensors")
    answer = Predictor(one, torch.device("cpu")).predict(scene)
    assert answer.dtype == torch.uint8 and len(answer) == len(scene.points)
    plain = Predictor(
        type(one)(one.path, one.about, one.network, lambda output: output.logits), torch.device("cpu")
    )
    assert not torch.equal(answer, plain.predict(scene))


def test_what_is_written_is_the_scan_in_the_classes_colours(predict, trained, tmp_path):
    run, name = trained.runs["lwf"], trained.names[1]
    code, _, error = predict(
        "--checkpoint", run, "--step", 0, "--scan", trained.scan(name), "--out", tmp_path
    )
    assert code == 0, error
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{name}_vh_clean_2.predicted.{suffix}" for suffix in ("ply", "txt")
    ]
    written = PlyData.read(str(tmp_path / f"{name}_vh_clean_2.predicted.ply"))
    raw = PlyData.read(str(trained.scan(name)))
    for axis in "xyz":
        assert written["vertex"][axis].tolist() == raw["vertex"][axis].tolist()
    assert [list(f) for f in written["face"]["vertex_indices"]] == [
        list(f) for f in raw["face"]["vertex_indices"]
    ]
    ids = trained.stored(run, 0, name)
    assert written["vertex"]["label"].tolist() == ids.tolist()
    palette = {0: (150, 150, 150), **dict(zip(NYU40_IDS, COLOURS, strict=True))}
    colours = zip(*(written["vertex"][channel].tolist() for channel in ("red", "green", "blue")), strict=True)
    assert list(colours) == [palette[number] for number in ids.tolist()]
    assert written.comments[:2] == ["label 0 background", "label 2 floor"]


def test_a_scan_in_text_form_with_a_strange_name(predict, trained, tmp_path, command_line):
    name = trained.names[0]
    raw = PlyData.read(str(trained.scan(name)))
    raw.text = True
    raw.write(str(tmp_path / "my room (1).ply"))
    arguments = ("--checkpoint", trained.runs["lwf"], "--scan", tmp_path / "my room (1).ply")
    done = command_line("tools/predict.py", *arguments, "--out", tmp_path / "new" / "folder")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "new" / "folder" / "my_room_1_.predicted.txt").read_text().splitlines()
    assert list(map(int, lines)) == trained.stored(trained.runs["lwf"], 1, name).tolist()


def changed(path, out, change):
    """A finished step with something else in it."""
    content = load_checkpoint(path)
    change(content)
    save_checkpoint(out, content)
    return out


OWN = """
from dataclasses import dataclass
from scannet_css.methods.method import Method, option

@dataclass
class Mine(Method):
    name = "mine"
    weight: float = option(1.0, "unused")

    def predict(self, output):
        return output.logits + self.state["bonus"].to(output.logits)
"""


def test_a_method_of_ones_own_answers_from_its_file(predict, trained, tmp_path):
    def make(content):
        content["about"] |= {"method": "mine", "settings": {"weight": 2.0}}
        bonus = torch.zeros(len(content["about"]["channels"]))
        bonus[7] = 1e6
        content["method"] = {"bonus": bonus}

    file = changed(trained.runs["lwf"] / "step1" / "finished.pt", tmp_path / "finished.pt", make)
    (tmp_path / "mine.py").write_text(OWN)
    fixed = ("--checkpoint", file, "--scan", trained.scan(trained.names[0]), "--out", tmp_path / "out")
    code, _, error = predict(*fixed)
    assert (code, error) == (
        2,
        f"error: {file}: made by method 'mine', which is unknown; give --method path/to/file.py:Class\n",
    )
    assert predict(*fixed, "--method", f"{tmp_path}/mine.py:Mine")[0] == 0
    lines = set((tmp_path / "out" / f"{trained.names[0]}_vh_clean_2.predicted.txt").read_text().split())
    about = load_checkpoint(file)["about"]
    assert lines == {str(NYU40_IDS[CLASSES.index(about["channels"][7])])}
    named = changed(
        file, tmp_path / "named.pt", lambda c: c["about"].update(method=f"{tmp_path}/mine.py:Mine")
    )
    code, _, error = predict("--checkpoint", named, *fixed[2:])
    assert code == 2 and "mine.py:Mine', which is unknown" in error  # a file names no code to be run
    code, _, error = predict(*fixed, "--method", "lwf")
    assert code == 2 and error == f"error: {file}: made by method 'mine', not by 'lwf'\n"
    forgotten = changed(file, tmp_path / "forgotten.pt", lambda content: content["method"].clear())
    code, _, error = predict("--checkpoint", forgotten, *fixed[2:], "--method", f"{tmp_path}/mine.py:Mine")
    assert code == 2 and "forgotten.pt: lacks 'bonus', which method 'mine' remembers" in error


def test_what_older_versions_left_says_what_is_missing_and_is_completed_by_its_run(
    predict, trained, tmp_path, command_line
):
    shutil.copytree(trained.folder, tmp_path / "runs", ignore=shutil.ignore_patterns("cfsseg", "tensorboard"))
    run = tmp_path / "runs" / trained.runs["lwf"].relative_to(trained.folder)
    (base,) = (tmp_path / "runs" / "base").iterdir()
    for folder in (base, run / "step1"):
        changed(folder / "finished.pt", folder / "finished.pt", lambda content: content.pop("about"))
    (run / "step0" / "base.json").unlink()
    fixed = ("--checkpoint", run, "--scan", trained.scan(trained.names[0]), "--out", tmp_path / "out")
    code, _, error = predict(*fixed)
    assert code == 2 and f"{run}/step1/finished.pt: does not say network, inputs, precision, voxel" in error
    code, _, error = predict(*fixed, "--step", 0)
    assert code == 2 and "base.json: no such file, which leads to the shared step 0" in error
    assert not (tmp_path / "out").exists()

    again = [tmp_path / "runs" if word == trained.folder else word for word in trained.commands["lwf"]]
    done = command_line(*again)
    assert done.returncode == 0 and "step 1: already done" in done.stderr, done.stderr
    for step in (0, 1):
        assert predict(*fixed, "--step", step)[0] == 0
        lines = (tmp_path / "out" / f"{trained.names[0]}_vh_clean_2.predicted.txt").read_text().split()
        assert list(map(int, lines)) == trained.stored(run, step, trained.names[0]).tolist()


@pytest.fixture
def wrong(trained, tmp_path):
    """Files that are not what they should be, by name."""
    run, scan = trained.runs["lwf"], trained.scan(trained.names[0])
    exported = run / "weights" / "step1.safetensors"
    tensors = safetensors.torch.load_file(exported)
    with safe_open(exported, framework="pt") as file:
        about = json.loads(file.metadata()[HEADER])

    def export(name, content=tensors, **changes):
        metadata = {HEADER: json.dumps({**about, **changes})}
        safetensors.torch.save_file(content, tmp_path / name, metadata=metadata)

    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").write_text("")
    (tmp_path / "notes.pt").write_text("not a checkpoint")
    torch.save(tensors, tmp_path / "theirs.pt")
    safetensors.torch.save_file(tensors, tmp_path / "theirs.safetensors")
    export("network.safetensors", network="minkunet14a")
    export("unknown.safetensors", network="minkunet99")
    export("size.safetensors", voxel_size=0.0)
    export("kind.safetensors", channels="wall")
    export("channels.safetensors", channels=["background", "rock"])
    export("twice.safetensors", channels=[*about["channels"][:-1], about["channels"][1]])
    export("step.safetensors", step=-1)
    export("setting.safetensors", settings={"strength": 1.0})
    export("value.safetensors", settings={"weight": -1.0, "temperature": 2.0})
    export("cfsseg.safetensors", method="cfsseg", settings={})
    damaged = (run / "step1" / "finished.pt").read_bytes()
    (tmp_path / "damaged.pt").write_bytes(damaged[:-3])
    (tmp_path / "cut.ply").write_bytes(scan.read_bytes()[:-5])
    points = PlyData.read(str(scan))["vertex"].data[["x", "y", "z"]].astype([(axis, "f4") for axis in "xyz"])
    PlyData([PlyElement.describe(points, "vertex")]).write(str(tmp_path / "grey.ply"))
    shutil.copy(scan, tmp_path / "room.ply")
    shutil.copy(scan, tmp_path / "empty" / "room.ply")
    return tmp_path


@pytest.mark.parametrize(
    ("checkpoint", "scans", "options", "message"),
    [
        ("none", ["room.ply"], (), "none: no such file or folder; expected a run's folder"),
        ("empty", ["room.ply"], (), "empty: no run here; expected a run's folder"),
        ("notes.pt", ["room.ply"], (), "notes.pt: not a checkpoint of this suite; expected a run's folder"),
        ("theirs.pt", ["room.ply"], (), "theirs.pt: not a checkpoint of this suite"),
        (
            "theirs.safetensors",
            ["room.ply"],
            (),
            "theirs.safetensors: weights, but not exported by this suite",
        ),
        ("damaged.pt", ["room.ply"], (), "damaged.pt: damaged (its sha256"),
        ("network.safetensors", ["room.ply"], (), "not the weights of minkunet14a that it names"),
        (
            "unknown.safetensors",
            ["room.ply"],
            (),
            "unknown.safetensors: network is 'minkunet99'",
        ),
        ("size.safetensors", ["room.ply"], (), "voxel_size is 0.0, expected 0.001 to 1 metre"),
        ("kind.safetensors", ["room.ply"], (), "channels is 'wall': expected a list"),
        ("channels.safetensors", ["room.ply"], (), "channels are ['background', 'rock'], expected"),
        ("twice.safetensors", ["room.ply"], (), "expected background and classes"),
        ("step.safetensors", ["room.ply"], (), "step is -1, expected at least 0"),
        ("setting.safetensors", ["room.ply"], (), "method 'lwf' has no setting 'strength' in this version"),
        ("value.safetensors", ["room.ply"], (), "value.safetensors: method 'lwf': weight is -1.0; expected"),
        ("cfsseg.safetensors", ["room.ply"], (), "lacks 'expansion', which method 'cfsseg' remembers"),
        ("RUN", ["room.ply"], ("--step", 2), "step 2 is not finished here; finished are 0, 1"),
        ("RUN/step1", ["room.ply"], ("--step", 0), "finished.pt: holds step 1, not 0"),
        ("RUN/step0/method.pt", ["room.ply"], (), "method.pt: not a finished step"),
        ("RUN", ["none.ply"], (), "none.ply: no such file; expected a scan as .ply or .pcd"),
        ("RUN", ["empty"], (), "empty: a folder; expected a scan as .ply"),
        ("RUN", ["notes.pt"], (), "notes.pt: no scan; expected a scan as .ply"),
        ("RUN", ["cut.ply"], (), "cut off or damaged"),
        ("RUN", ["grey.ply"], (), "grey.ply: vertices lack the colours red, green, blue"),
        ("RUN", ["room.ply", "empty/room.ply"], (), "its predictions would have the name of"),
        ("RUN", ["room.ply"], ("--out", "taken"), "taken: a file; expected a folder for the predictions"),
        ("RUN", ["room.ply"], ("--device", "gpu"), "--device 'gpu': expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_bad_input_is_one_line(predict, trained, wrong, checkpoint, scans, options, message):
    first, _, rest = checkpoint.partition("/")
    checkpoint = trained.runs["lwf"] / rest if first == "RUN" else wrong / checkpoint
    options = [wrong / word if word == "taken" else word for word in options]
    options = ["--out", wrong / "out", *options]
    scans = [wrong / scan for scan in scans]
    code, _, error = predict("--checkpoint", checkpoint, "--scan", *scans, *options)
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert not (wrong / "out").exists()


def test_training_checkpoints_are_told_from_finished_steps(trained):
    (path,) = (trained.runs["lwf"] / "step1").glob("checkpoint-*.pt")
    with pytest.raises(InputError, match=r"checkpoint-\d+\.pt: not a finished step; expected the finished"):
        load_trained(path)


def test_ids_and_colours_of_other_class_lists():
    channels = ["background", SCANNET200.names[150], SCANNET200.names[0]]
    found = class_list(list(SCANNET200.names))
    assert found.channel_ids(channels).tolist() == [0, SCANNET200.ids[150], SCANNET200.ids[0]]
    colours = [(150, 150, 150), SCANNET200.colours[150], SCANNET200.colours[0]]
    assert found.channel_colours(channels).tolist() == list(map(list, colours))
    own = class_list(["rock", "tree", "lake"])
    assert own.channel_ids(["background", "lake", "rock"]).tolist() == [0, 3, 1]
    assert own.channel_colours(["background", "lake"]).tolist() == [
        [150, 150, 150],
        list(SCANNET200.colours[2]),
    ]


def test_the_manifest_and_the_scans_agree_on_the_order_of_vertices(trained):
    """What makes the answers comparable vertex by vertex."""
    manifest = load_manifest(trained.data)
    for entry in manifest.split("val"):
        raw = PlyData.read(str(trained.scan(entry.name)))["vertex"]
        points = np.stack([raw[axis] for axis in "xyz"], axis=1)
        assert np.array_equal(load_scene(manifest.path(entry)).points.numpy(), points)
