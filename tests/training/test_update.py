"""One update by one batch: in parts as in whole, out of memory, not finite, degenerate scenes."""

import copy
import gc
import math
from dataclasses import dataclass, replace

import pytest
import torch

import baselines  # noqa: F401  registers the methods
from scannet_css.errors import InputError
from scannet_css.methods.method import Method, find_method
from scannet_css.network import build_network, frozen_copy, grow
from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest
from scannet_css.scenes.loader import BatchSet
from scannet_css.sparse import BatchNorm
from scannet_css.training.machine import Machine
from scannet_css.training.recipe import Recipe, make_optimizer, train_mode
from scannet_css.training.run import ContinualRun
from scannet_css.training.setting import Setting
from scannet_css.training.step.not_finite import MOST_SKIPS
from scannet_css.training.step.update import Updater

RECIPE = Recipe(network="minkunet14s", batch_norm="frozen", max_gradient_norm=1e9)
CPU = Machine(torch.device("cpu"))
INCREMENTAL = ("finetune", "lwf", "lgkd", "plop3d", "lgkd+plop3d")


@pytest.fixture
def make(small_set, three_steps, tmp_path):
    """`make(method)`: an updater of step 1 in float64, with a student that has moved away from its teacher,
    and a batch of four scenes."""
    setting = Setting(load_manifest(small_set), load_protocol(three_steps), RECIPE, seed=0)

    def build(method, recipe=RECIPE):
        method = find_method(method)() if isinstance(method, str) else method
        run = ContinualRun(setting, method, tmp_path / method.name, tmp_path / "bases", CPU)
        torch.manual_seed(0)
        network = build_network("minkunet14s", 3, setting.protocol.channels(0)).double()
        for module in network.modules():
            if isinstance(module, BatchNorm):
                module.bn.running_var.uniform_(0.5, 2)
        teacher = frozen_copy(network) if method.needs_teacher else None
        grow(network, len(setting.protocol.steps[1]))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        step = run._make_step(1, network, teacher)
        if method.name.endswith("plop3d"):
            method.state["thresholds"] = torch.full((step.old_channels,), 0.99, dtype=torch.float64)
        train_mode(network, recipe.batch_norm)
        table = setting.protocol.training_table(1, setting.manifest.classes)
        (batch,) = BatchSet(setting.manifest, [step.scenes[:4]], table, identity=(0, 1, 2))
        batch.features = batch.features.double()
        updater = Updater(step, method, recipe, CPU, make_optimizer(network, recipe, 0.01))
        return updater, batch

    return build


def gradients(updater):
    return torch.cat([parameter.grad.flatten() for parameter in updater.step.network.parameters()])


def everything(updater):
    """All that an update may change: name -> tensor."""
    values = dict(updater.step.network.state_dict())
    for number, state in updater.optimizer.state_dict()["state"].items():
        values |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    return copy.deepcopy(values)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def runs_out(updater, monkeypatch, when):
    """Memory runs out whenever `when(number of the call, voxels, scenes)` is true of what the student is
    shown; gives the scenes of every call that went well."""
    forward, calls, shown = updater._forward, [], []

    def limited(part):
        calls.append(part.names)
        if when(len(calls), part.voxels, len(part.names)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        shown.append(part.names)
        return forward(part)

    monkeypatch.setattr(updater, "_forward", limited)
    return shown


@pytest.mark.parametrize("name", INCREMENTAL)
@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_whole_batchs_loss_and_gradient(make, name, parts):
    updater, batch = make(name)
    whole = updater.run(batch, 0.01, seed=3)
    expected = gradients(updater)
    updater, batch = make(name)
    updater.memory.too_many_voxels = batch.voxels // parts + 1
    assert len(updater.memory.cut(batch)) > 1
    in_parts = updater.run(batch, 0.01, seed=3)
    precision = precision_of(name)
    assert in_parts == pytest.approx(whole, rel=precision)
    assert (gradients(updater) - expected).norm() <= precision * expected.norm()


def precision_of(name):
    """PLOP computes in float32 whatever it is given."""
    return 1e-6 if "plop" in name else 1e-9


@pytest.mark.parametrize("name", ["finetune", "lgkd+plop3d"])
def test_out_of_memory_goes_on_in_parts(make, name, monkeypatch, caplog):
    updater, batch = make(name)
    whole = updater.run(batch, 0.01, seed=3)
    expected, moved = gradients(updater), everything(updater)

    updater, batch = make(name)
    shown = runs_out(updater, monkeypatch, lambda call, voxels, scenes: scenes > 1)
    precision = precision_of(name)
    assert updater.run(batch, 0.01, seed=3) == pytest.approx(whole, rel=precision)
    assert (gradients(updater) - expected).norm() <= precision * expected.norm()
    for key, value in everything(updater).items():
        torch.testing.assert_close(value, moved[key], rtol=precision, atol=1e-9)
    # The last attempt: every scene alone, twice: for the counts and for the gradient.
    assert shown[-8:] == 2 * [[scene] for scene in batch.names]
    assert "warning: out of memory on 4 scenes" in caplog.text and updater.memory.too_many_voxels is not None

    caplog.clear()
    shown.clear()
    updater.run(batch, 0.01, seed=4)  # now it is known
    assert all(len(names) == 1 for names in shown) and not caplog.records


def test_out_of_memory_in_the_backward_pass(make, monkeypatch):
    updater, batch = make("lgkd")
    whole = updater.run(batch, 0.01, seed=3)
    expected = gradients(updater)
    updater, batch = make("lgkd")
    left = [2]

    def fail(gradient):
        left[0] -= 1
        if left[0] >= 0:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes")

    updater.step.network.conv0p1s1.kernel.register_hook(fail)
    assert updater.run(batch, 0.01, seed=3) == pytest.approx(whole, rel=1e-9)
    assert (gradients(updater) - expected).norm() <= 1e-9 * expected.norm()


def test_a_single_scene_is_tried_twice(make, monkeypatch):
    updater, batch = make("finetune")
    before = everything(updater)
    largest = max(batch.split(4), key=lambda part: part.voxels)
    runs_out(updater, monkeypatch, lambda call, voxels, scenes: voxels >= largest.voxels)
    with pytest.raises(InputError) as caught:
        updater.run(batch, 0.01, seed=3)
    assert str(caught.value).startswith(f"step 1, scenes {largest.names[0]}: out of memory twice with this ")
    assert_same(everything(updater), before)

    updater, batch = make("finetune")
    (alone, *_) = batch.split(4)
    runs_out(updater, monkeypatch, lambda call, voxels, scenes: call == 1)
    updater.run(alone, 0.01, seed=3)  # fits once memory has been freed


def test_nothing_of_an_attempt_that_ran_out_of_memory_stays(make, monkeypatch):
    updater, batch = make("lgkd")
    runs_out(updater, monkeypatch, lambda call, voxels, scenes: scenes > 2)
    tensors = []
    for _ in range(20):
        updater.memory.too_many_voxels = None
        updater.run(batch, 0.01, seed=3)
        gc.collect()
        tensors.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
    assert tensors[-1] <= tensors[1]


def test_another_error_is_not_taken_for_a_lack_of_memory(make, monkeypatch):
    updater, batch = make("finetune")
    monkeypatch.setattr(updater, "_forward", lambda part: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        updater.run(batch, 0.01, seed=3)


@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
def test_a_probe_of_the_memory_changes_nothing_but_what_it_learns(make, monkeypatch, batch_norm):
    updater, batch = make("lgkd", replace(RECIPE, batch_norm=batch_norm))
    before = everything(updater)
    updater.probe_memory(batch)
    assert_same(everything(updater), before)
    assert updater.memory.too_many_voxels is None
    assert all(parameter.grad is None for parameter in updater.step.network.parameters())
    runs_out(updater, monkeypatch, lambda call, voxels, scenes: scenes > 2)
    updater.probe_memory(batch)
    assert updater.memory.too_many_voxels == batch.voxels


@dataclass
class Wrong(Method):
    """Its term "wrong" is finite; its gradient is what is handed in."""

    name = "wrong"
    needs_teacher = False
    factor: float = 1.0

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        values = new.logits.sum() * 0
        terms["wrong"] = values.sqrt() if self.factor else new.logits.sum() * float("inf")
        return terms


@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
@pytest.mark.parametrize(
    "factor, message",
    [
        (1.0, "gradient norm is nan at step 1, scenes {}: loss term 'wrong'"),
        (0.0, "loss term 'wrong' is "),
    ],
)
def test_nothing_that_is_not_finite_reaches_the_weights(make, batch_norm, factor, message):
    updater, batch = make(Wrong(factor), replace(RECIPE, batch_norm=batch_norm))
    before = everything(updater)
    with pytest.raises(InputError) as caught:
        updater.run(batch, 0.01, seed=3)
    assert str(caught.value).startswith(message.format(", ".join(batch.names)))
    assert "at step 1, scenes " + ", ".join(batch.names) in str(caught.value)
    assert_same(everything(updater), before)


def test_float16_skips_updates_until_its_scale_fits_but_not_for_ever(make):
    updater, batch = make("finetune")
    updater.step.network.float()
    batch.features = batch.features.float()
    updater.step.network.final.kernel.register_hook(lambda gradient: gradient * 1000)
    updater.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-20)
    before = everything(updater)
    first = updater.run(batch, 0.01, seed=3)
    assert not math.isfinite(first["gradient_norm"]) and math.isfinite(first["ce"])
    assert_same(everything(updater), before)
    second = updater.run(batch, 0.01, seed=3)
    assert math.isfinite(second["gradient_norm"]) and second["ce"] == first["ce"]
    assert not torch.equal(everything(updater)["final.bias"], before["final.bias"])

    before = everything(updater)
    updater.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=0.999999)
    for _ in range(MOST_SKIPS):
        updater.run(batch, 0.01, seed=3)
    with pytest.raises(InputError, match="gradient norm is"):
        updater.run(batch, 0.01, seed=3)
    assert_same(everything(updater), before)


def test_a_batch_of_one_voxel_trains_with_the_running_statistics(make):
    updater, batch = make("lgkd+plop3d", replace(RECIPE, batch_norm="batch"))
    one = replace(
        batch,
        names=batch.names[:1],
        features=batch.features[:1],
        coordinates=batch.coordinates[:1],
        labels=torch.tensor([11]),
    )
    before = everything(updater)
    values = updater.run(one, 0.01, seed=3)
    after = everything(updater)
    assert all(value == value for value in values.values()) and values["gradient_norm"] > 0
    assert all(torch.equal(after[name], before[name]) for name in before if "running" in name)
    assert not torch.equal(after["final.kernel"], before["final.kernel"])


def test_a_batch_without_labels_moves_weights_by_their_decay_alone(make):
    updater, batch = make("finetune")
    batch.labels[:] = 255
    before = everything(updater)
    values = updater.run(batch, 0.01, seed=3)
    assert values == {"ce": 0.0, "gradient_norm": 0.0}
    after, rate = everything(updater)["final.kernel"], 0.01
    # Nesterov: the first step is (1 + momentum) times the decay
    expected = before["final.kernel"] * (1 - rate * RECIPE.weight_decay * 1.9)
    torch.testing.assert_close(after, expected, rtol=1e-12, atol=0)


def test_a_batch_without_the_steps_class_has_a_loss(make):
    updater, batch = make("lgkd")
    batch.labels[batch.labels > 0] = 0
    values = updater.run(batch, 0.01, seed=3)
    assert 0 < values["ce"] < 100 and values["lgkd"] > 0


def test_what_a_method_draws_depends_on_the_seed_alone(make):
    @dataclass
    class Drawing(Method):
        name = "drawing"
        needs_teacher = False

        def loss(self, step, batch, new, old):
            terms = super().loss(step, batch, new, old)
            terms["draw"] = torch.rand(()) + 0 * new.logits.sum()
            return terms

    updater, batch = make(Drawing())
    draws = [updater.run(batch, 0.01, seed)["draw"] for seed in (1, 2, 1)]
    assert draws[0] == draws[2] != draws[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_recovers_from_want_of_memory_again_and_again(make):
    """The real thing: the process may take no more than what half of the batch needs."""
    cuda = Machine(torch.device("cuda"))
    updater, batch = make("lgkd")
    step, recipe = updater.step, RECIPE
    for module in (step.network, step.teacher):
        module.to("cuda")
    step.device, batch = cuda.device, batch.to(cuda.device)
    updater = Updater(step, updater.method, recipe, cuda, make_optimizer(step.network, recipe, 0.0))
    torch.cuda.reset_peak_memory_stats()
    whole = updater.run(batch, 0.0, seed=3)
    least, most = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    share = (least + 0.7 * (most - least)) / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        allocated = []
        for _ in range(20):
            updater.memory.too_many_voxels = None
            assert updater.run(batch, 0.0, seed=3) == pytest.approx(whole, rel=1e-6)
            allocated.append(torch.cuda.memory_allocated())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert allocated[-1] <= 1.01 * allocated[0]


@dataclass
class Detached(Method):
    name = "detached"
    needs_teacher = False

    def classification(self, step, batch, new, old):
        return super().classification(step, batch, new, old).detach()


def test_a_loss_that_is_not_attached_to_the_network_is_refused(make):
    updater, batch = make(Detached())
    before = everything(updater)
    with pytest.raises(InputError) as caught:
        updater.run(batch, 0.01, seed=3)
    message = str(caught.value)
    assert message.startswith("method 'detached': no loss term is attached to the network at step 1, scenes ")
    assert message.endswith("expected terms computed from new.logits, new.features or new.levels")
    assert "\n" not in message
    assert_same(everything(updater), before)
