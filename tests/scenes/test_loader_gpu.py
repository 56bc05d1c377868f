"""Batches made on a GPU: the same whoever reads them, the same twice, and the CPU's where nothing is random.

The order of streams and events is tested with stand-ins, without a GPU, too.
"""

import contextlib
import threading

import pytest
import torch

from scannet_css.protocols import load_protocol
from scannet_css.scenes import augment, load_manifest, loader
from scannet_css.scenes.loader import BatchSet, batches_of, plan_batches, point_features
from scannet_css.scenes.voxelize import majority_labels, voxel_mean, voxelize

CPU, DEVICE = torch.device("cpu"), torch.device("cuda")
INPUTS = "colour+normal+height"
FIELDS = ("features", "coordinates", "labels")


def on_gpu(test):
    without = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
    return pytest.mark.gpu(without(test))


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def sets(small_set):
    """Batches of a few scenes and one of none: for training with all augmentation, and for evaluation."""
    manifest = load_manifest(small_set)
    batches = [*plan_batches(manifest.split("train"), 3000), []]
    assert any(len(batch) > 1 for batch in batches)
    table = load_protocol("offline").training_table(0, manifest.classes)
    training = BatchSet(manifest, batches, table, INPUTS, (1, 2, 3), with_elastic=True)
    return training, BatchSet(manifest, batches, table, INPUTS)


def assert_same(batch, other):
    assert batch.names == other.names and len(batch.tensors) == len(other.tensors)
    for one, two in zip(batch.tensors, other.tensors, strict=True):
        assert one.dtype == two.dtype and torch.equal(one, two)


def test_the_consumer_waits_for_a_batch_and_keeps_its_memory(sets, monkeypatch):
    calls = []

    class Stream:
        def __init__(self, device):
            self.used_by = None

        def record_event(self):
            assert self.used_by is threading.current_thread() is not threading.main_thread()
            calls.append("made")
            return len([call for call in calls if call == "made"])

        def wait_event(self, event):
            calls.append(f"waits for {event}")

    @contextlib.contextmanager
    def use(stream):
        stream.used_by = threading.current_thread()
        yield
        stream.used_by = None

    kept = []
    consumer = Stream(CPU)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", use)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: consumer)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: kept.append((tensor, stream)))
    for batch_set in sets:
        calls.clear()
        raw = [batch_set.read(batch) for batch in batch_set.batches]
        batches = loader._made_on_gpu(batch_set, iter(raw), CPU)
        for number, batch in enumerate(batches, start=1):
            assert_same(batch, batch_set[number - 1])
            assert [call for call in calls if call != "made"][-1] == f"waits for {number}"
            for tensor, (kept_tensor, stream) in zip(batch.tensors, kept, strict=True):
                assert tensor is kept_tensor and stream is consumer
            kept.clear()
        assert number == len(batch_set)


@on_gpu
@pytest.mark.parametrize("kind", [0, 1])
def test_the_same_with_and_without_workers_and_twice(sets, deterministic, kind):
    results = [list(batches_of(sets[kind], workers, DEVICE)) for workers in (0, 2, 2)]
    assert all(tensor.device.type == "cuda" for batch in results[0] for tensor in batch.tensors)
    for first, *others in zip(*results, strict=True):
        for other in others:
            assert_same(first, other)


@on_gpu
def test_an_evaluation_batch_is_the_cpus(sets):
    for batch, expected in zip(batches_of(sets[1], 0, DEVICE), batches_of(sets[1], 0), strict=True):
        batch = batch.to(CPU)
        assert torch.allclose(batch.features, expected.features, rtol=0, atol=1e-6)
        batch.features = expected.features
        assert_same(batch, expected)


@on_gpu
def test_a_training_batch_is_the_cpus_but_for_what_is_random(sets, monkeypatch):
    monkeypatch.setattr(
        loader, "augment", lambda points, normals, colours, generator, elastic: (points, normals, colours)
    )
    for batch, expected in zip(batches_of(sets[0], 0, DEVICE), batches_of(sets[0], 0), strict=True):
        batch = batch.to(CPU)
        assert torch.allclose(batch.features, expected.features, rtol=0, atol=1e-6)
        batch.features = expected.features
        assert_same(batch, expected)


@on_gpu
def test_every_stage_is_the_same_twice_in_deterministic_mode(deterministic):
    generator = torch.Generator(DEVICE).manual_seed(0)
    points = torch.rand(100_000, 3, generator=generator, device=DEVICE) * torch.tensor([6.0, 5.0, 2.5]).to(
        DEVICE
    )
    labels = torch.randint(0, 20, (len(points),), generator=generator, device=DEVICE).to(torch.uint8)

    def everything():
        generator = torch.Generator(DEVICE).manual_seed(1)
        moved, normals, colours = augment.augment(points, points, points * 40, generator, with_elastic=True)
        coordinates, inverse = voxelize(moved, 0.05)
        majority = majority_labels(labels, inverse, len(coordinates))
        features = point_features(INPUTS, moved, normals, colours)
        return moved, coordinates, inverse, majority, voxel_mean(features, inverse, len(coordinates))

    first = everything()
    coordinates, inverse = voxelize(first[0].cpu(), 0.05)
    assert torch.equal(first[1].cpu(), coordinates) and torch.equal(first[2].cpu(), inverse)
    assert torch.equal(first[3].cpu(), majority_labels(labels.cpu(), inverse, len(coordinates)))
    for _ in range(5):
        assert all(torch.equal(one, two) for one, two in zip(first, everything(), strict=True))


def augmented(device, with_elastic):
    """A scene augmented on `device` with random numbers that are the same for all devices."""
    drawn = torch.Generator().manual_seed(5)

    def on_cpu(draw):
        return lambda *shape, generator, device: draw(*shape, generator=drawn).to(device)

    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)).to(device) * 3
    with pytest.MonkeyPatch.context() as patch:
        for name in ("rand", "randn"):
            patch.setattr(torch, name, on_cpu(getattr(torch, name)))
        return augment.augment(points, points, points * 80, torch.Generator(device), with_elastic)


@on_gpu
@pytest.mark.parametrize("with_elastic", [False, True])
def test_the_same_random_numbers_augment_alike_on_both(with_elastic):
    for here, there in zip(augmented(CPU, with_elastic), augmented(DEVICE, with_elastic), strict=True):
        assert torch.allclose(here, there.cpu(), rtol=0, atol=1e-3)
