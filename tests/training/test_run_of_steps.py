"""The loop over the steps of a protocol: shared base, resume, exactness, guards."""

import json
import shutil
from dataclasses import dataclass, replace

import pytest
import torch

import baselines  # noqa: F401  registers the methods
from baselines.finetune import Finetune
from scannet_css.errors import InputError
from scannet_css.methods.method import LossTerms, Method, find_method
from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest
from scannet_css.training.checkpoint import load_checkpoint
from scannet_css.training.epochs import StepTrainer
from scannet_css.training.machine import Machine
from scannet_css.training.recipe import Recipe, schedule
from scannet_css.training.run import ContinualRun
from scannet_css.training.setting import Setting

RECIPE = Recipe(
    network="minkunet14s",
    base_epochs=2,
    epochs=2,
    base_learning_rate=0.02,
    learning_rate=0.01,
    batch_voxels=4000,
    elastic=False,
)
CPU = Machine(torch.device("cpu"))
INCREMENTAL = ("finetune", "lwf", "lgkd", "plop3d", "lgkd+plop3d")


@pytest.fixture(scope="module")
def setting(small_set, three_steps):
    return Setting(load_manifest(small_set), load_protocol(three_steps), RECIPE, seed=3)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return tmp_path_factory.mktemp("bases")


def make_run(setting, method, folder, bases, machine=CPU):
    return ContinualRun(setting, method, folder, bases, machine)


def weights(path):
    return load_checkpoint(path)["network"]


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def finished(setting, bases, tmp_path_factory):
    """Every incremental method, run to the end: name -> (folder, results)."""
    runs = {}
    for name in INCREMENTAL:
        folder = tmp_path_factory.mktemp("runs") / name
        runs[name] = (folder, make_run(setting, find_method(name)(), folder, bases).run().steps)
    return runs


def test_every_scored_point_is_counted_once_after_every_step(finished, setting):
    validation = setting.manifest.split("val")
    for _, results in finished.values():
        assert [len(step.classes) for step in results] == [10, 15, 18]
        for index, step in enumerate(results):
            counts = torch.tensor(step.vertices).sum(1)
            for channel, name in enumerate(step.classes[1:], start=1):
                label = setting.manifest.classes.index(name)
                assert counts[channel] == sum(entry.class_counts[label] for entry in validation)
            assert counts.sum() == sum(sum(entry.class_counts) for entry in validation)
            labelled_voxels = sum(entry.voxels for entry in validation)
            assert 0 < sum(map(sum, step.voxels)) <= labelled_voxels
            assert step.scenes == len(setting.protocol.scenes(index, setting.manifest))


def test_all_methods_share_one_base_step(finished, setting, bases):
    base_steps = [results[0] for _, results in finished.values()]
    assert all(step == base_steps[0] for step in base_steps)
    folders = {
        make_run(setting, find_method(name)(), run[0], bases).base.folder for name, run in finished.items()
    }
    assert len(folders) == 1
    (folder,) = folders
    assert (folder / "finished.pt").exists()


def test_methods_differ_from_each_other_after_the_base(finished):
    digests = {
        name: tuple(weights(folder / "step2" / "finished.pt")["final.kernel"].flatten().tolist())
        for name, (folder, _) in finished.items()
    }
    assert len(set(digests.values())) == len(INCREMENTAL)


def test_what_plop_remembers_travels_with_the_checkpoint(finished):
    content = load_checkpoint(finished["plop3d"][0] / "step2" / "finished.pt")
    thresholds = content["method"]["thresholds"]
    assert thresholds.shape == (15,)
    assert 0.001 <= thresholds.min() and thresholds.max() <= 1  # noqa: SIM300


def test_a_finished_run_is_not_run_again(finished, setting, bases, monkeypatch):
    folder, results = finished["lgkd"]
    monkeypatch.setattr(StepTrainer, "run", lambda self: pytest.fail("trained again"))
    assert make_run(setting, find_method("lgkd")(), folder, bases).run().steps == results


def test_another_seed_gives_another_network(finished, setting, tmp_path, bases):
    other = replace(
        setting, seed=4, protocol=setting.protocol.offline(), recipe=replace(RECIPE, base_epochs=1)
    )
    first = make_run(other, Finetune(), tmp_path / "a", bases)
    second = make_run(replace(other, seed=5), Finetune(), tmp_path / "b", bases)
    first.run(), second.run()
    first, second = (weights(run.base.folder / "finished.pt")["conv0p1s1.kernel"] for run in (first, second))
    assert not torch.equal(first, second)


def test_joint_is_one_step_with_all_classes(setting, bases, tmp_path):
    results = make_run(setting, find_method("joint")(), tmp_path / "joint", bases).run().steps
    assert [step.classes for step in results] == [["background", *setting.protocol.classes]]
    assert results[0].scenes == len(setting.manifest.split("train"))


def test_the_log_has_every_iteration_and_the_loss_falls(finished, setting, bases):
    base = make_run(setting, Finetune(), finished["finetune"][0], bases).base.folder
    rows = [json.loads(line) for line in (base / "metrics.jsonl").read_text().splitlines()]
    result = finished["finetune"][1][0]
    assert [row["iteration"] for row in rows] == list(range(result.iterations))
    for epoch in (0, 1):
        of_epoch = [row for row in rows if row["epoch"] == epoch]
        assert [row["batch"] for row in of_epoch] == list(range(len(of_epoch)))
        assert sum(row["scenes"] for row in of_epoch) == result.scenes  # each exactly once
    first, last = (sum(r["loss"]["ce"] for r in rows if r["epoch"] == epoch) for epoch in (0, 1))
    assert last < first
    assert rows[0]["learning_rate"] == RECIPE.base_learning_rate > rows[-1]["learning_rate"] > 0
    for row in rows:
        assert row["loss"]["total"] == row["loss"]["ce"] and row["gradient_norm"] > 0
        assert row["speed"].keys() == {"scenes_per_second", "voxels_per_second", "memory_gib"}


def test_curves_are_those_of_the_log(finished):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = finished["lgkd+plop3d"][0] / "step1"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curves = events.EventAccumulator(str(folder / "tensorboard"))
    curves.Reload()
    for name in ("ce", "pod", "lgkd", "total"):
        curve = curves.Scalars(f"loss/{name}")
        assert [point.step for point in curve] == [row["iteration"] for row in rows]
        assert [point.value for point in curve] == pytest.approx([row["loss"][name] for row in rows])
    assert len(curves.Scalars("learning_rate")) == len(curves.Scalars("speed/voxels_per_second")) == len(rows)


def test_a_folder_of_other_settings_is_refused(finished, setting, bases):
    folder = finished["lgkd"][0]
    other = find_method("lgkd")(novel_weight=7.0)
    with pytest.raises(InputError, match=r"settings\.novel_weight 1\.0, now 7\.0"):
        make_run(setting, other, folder, bases).run()
    with pytest.raises(InputError, match=r"seed 3, now 9"):
        make_run(replace(setting, seed=9), find_method("lgkd")(), folder, bases).run()


def test_a_damaged_checkpoint_is_named(finished, setting, bases, tmp_path):
    folder = tmp_path / "run"
    method = find_method("finetune")
    make_run(setting, method(), folder, bases).run()
    (folder / "step1" / "finished.pt").write_bytes(b"PK\x03\x04 torn")
    assert not list((folder / "step1").glob("checkpoint-*"))  # step 2 is behind it
    with pytest.raises(InputError, match=r"finished\.pt: not a checkpoint of this suite"):
        make_run(setting, method(), folder, bases).run()


@dataclass
class Poisoned(Method):
    name = "poisoned"
    needs_teacher = False

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        terms["poison"] = new.logits.sum() * float("nan")
        return terms


def test_a_loss_that_is_not_finite_stops_before_the_weights_move(setting, bases, tmp_path):
    run = make_run(setting, Poisoned(), tmp_path / "run", bases)
    with pytest.raises(InputError, match=r"loss term 'poison' is nan at step 1, scenes scene"):
        run.run()
    (path,) = (tmp_path / "run" / "step1").glob("checkpoint-*.pt")  # from before the first iteration
    content = load_checkpoint(path)
    assert content["progress"]["iterations"] == 0
    before = run.base.folder / "finished.pt"
    inner = {name: value for name, value in weights(before).items() if not name.startswith("final.")}
    assert all(torch.equal(content["network"][name], value) for name, value in inner.items())


@dataclass
class Looking(Method):
    name = "looking"
    needs_teacher = False

    def begin(self, step):
        self.look(step, "begin")

    def end(self, step):
        self.look(step, "end")

    def look(self, step, when):
        drawn = torch.rand(()).item()
        self.state.setdefault("seen", []).append((step.index, when, step.network.training, drawn))


def test_methods_look_at_a_network_in_eval_mode_also_when_they_are_resumed(setting, bases, tmp_path):
    folder, whole = tmp_path / "run", Looking()
    make_run(setting, whole, folder, bases).run()
    expected = [(index, when, False) for index in range(3) for when in ("begin", "end")]
    assert [tuple(seen[:3]) for seen in whole.state["seen"]] == expected
    shutil.rmtree(folder / "step2")
    resumed = Looking()
    make_run(setting, resumed, folder, bases).run()
    assert list(map(tuple, resumed.state["seen"])) == list(map(tuple, whole.state["seen"]))


def test_a_loss_term_can_be_set_only_once():
    terms = LossTerms()
    terms["kd"] = torch.tensor(1.0)
    with pytest.raises(ValueError, match="'kd' is set twice"):
        terms["kd"] = torch.tensor(2.0)


def test_schedules_start_at_one_and_end_at_zero():
    for name, middle in (("poly", 0.5**0.9), ("cosine", 0.5)):
        assert schedule(name, 0) == 1
        assert schedule(name, 0.5) == pytest.approx(middle)
        assert schedule(name, 1) == pytest.approx(0)


@pytest.mark.parametrize(
    "change", [{"optimizer": "adam"}, {"schedule": "step"}, {"precision": "int8"}, {"epochs": 0}]
)
def test_a_recipe_with_an_impossible_value_is_refused(change):
    ((name, value),) = change.items()
    with pytest.raises(InputError, match=rf"{name} is {value!r}.*; expected"):
        replace(RECIPE, **change)


def test_unknown_methods_get_a_suggestion(tmp_path):
    with pytest.raises(InputError, match="did you mean 'lgkd'"):
        find_method("lgdk")
    with pytest.raises(InputError, match="no such file"):
        find_method("nowhere.py:Mine")
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n")
    with pytest.raises(InputError, match="no subclass of Method named 'Mine'"):
        find_method(f"{path}:Mine")
