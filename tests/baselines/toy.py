"""A continual run in small: random voxels of three scenes, a network of a few planes, and a protocol of
background and 3 + 2 + 1 classes."""

import contextlib
import functools
import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch

from scannet_css.methods.method import Step, find_method
from scannet_css.network import Output, frozen_copy, grow
from scannet_css.network.minkunet import Level, MinkUNet
from scannet_css.protocols import Protocol
from scannet_css.scenes.loader import Batch
from scannet_css.scenes.store import Scene, SceneEntry, SceneHeader, save_scene, scene_file
from scannet_css.sparse import BatchNorm, SparseTensor

K, C, F = 4, 6, 6  # channels of teacher and student in step 1, features before the classifier
PROTOCOL = Protocol(
    name="toy",
    version=1,
    description="for tests",
    steps=(("wall", "floor", "bed"), ("chair", "sofa"), ("desk",)),
    background=("lamp",),
    regime="overlapped",
    unannotated="ignore",
)
CLASSES = (*PROTOCOL.classes, *PROTOCOL.background)
ONLY = SimpleNamespace(name="scene0", class_counts=(1,) * len(CLASSES), voxels=1)


@functools.cache
def toy_scene():
    """Path of a stored scene with one instance."""
    points = torch.zeros(1, 3)
    one = torch.zeros(1, dtype=torch.int32)
    parts = (points, points.byte(), points, one.byte(), one, points.int(), one.byte(), one)
    scene = Scene("scene0", *(part.clone() for part in parts))
    counts = (1, *(0,) * (len(CLASSES) - 1))
    entry = SceneEntry("scene0", "train", scene_file("train", "scene0"), "", 1, 1, counts, 0, {}, True)
    path = Path(tempfile.mkdtemp()) / "scene0.safetensors"
    save_scene(path, scene, SceneHeader("a" * 64, {}, entry))
    return path


MANIFEST = SimpleNamespace(
    folder="toy", classes=CLASSES, split=lambda name: [ONLY], path=lambda entry: toy_scene()
)
# Settings that fit these data, and with which a method draws nothing.
QUIET = {
    "gua": {"dropout": 0.0},
    "cfsseg": {"width": 32, "dropout": 0.0},
    **{name: {"scenes_kept": 1} for name in ("replay", "mib-augm", "ssul-m", "climb3d")},
}


def toy_network(classes=K, seed=0):
    """In eval mode, with batch norms that have seen something."""
    torch.manual_seed(seed)
    network = MinkUNet(3, classes, (4, 4, 6, 6, 6, 6, 5, F), stem=4, stem_kernel_size=3)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.bn.running_mean.normal_(0, 0.1)
            module.bn.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.bn.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bn.bias, 0, 0.1)
    torch.nn.init.normal_(network.final.bias)
    return network.eval()


def toy_batch(labels, seed=1, scenes=3, side=5):
    """Scenes of about 60 voxels, whose labels are drawn from `labels`."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for scene in range(scenes):
        cells = torch.unique(torch.randint(-2, side, (60, 3), generator=generator), dim=0)
        parts.append(torch.nn.functional.pad(cells, (1, 0), value=scene))
    coordinates = torch.cat(parts).int()
    draw = torch.randint(0, len(labels), (len(coordinates),), generator=generator)
    features = torch.randn(len(coordinates), 3, generator=generator)
    names = [f"scene{scene}" for scene in range(scenes)]
    return Batch(names, features, coordinates, torch.tensor(labels)[draw], [], [])


BASE_LABELS, STEP_LABELS = (0, 1, 2, 3, 255), (0, 0, 4, 5, 255)


def toy_step(index, network, teacher=None, batches=()):
    """A Step whose `add_up` goes over `batches`."""

    def add_up(name, compute):
        total = {}
        for batch in batches:
            for key, value in compute(batch).items():
                total[key] = total[key] + value if key in total else value
        return total

    def tune(module, method, epochs):
        for _ in range(epochs):
            for batch in batches:
                output = module(SparseTensor(batch.features, batch.coordinates))
                module.zero_grad(set_to_none=True)
                sum(method.loss(step, batch, output, None).values()).backward()
                with torch.no_grad():
                    for parameter in module.parameters():
                        parameter -= 0.05 * parameter.grad

    device = torch.device("cpu")
    step = Step(index, PROTOCOL, [], network, teacher, device, contextlib.nullcontext, add_up, tune)
    step.batches = batches
    return step


def forward(step, batch):
    voxels = SparseTensor(batch.features, batch.coordinates)
    return step.network(voxels), step.old_output(voxels)


def toy_method(name):
    return find_method(name)(**QUIET.get(name, {}))


def at_step_1(method, batch=None, move=0.05):
    """The step as the loop brings it about: step 0 with a few updates, `end`, teacher, growth, `begin`; then
    a student that has moved by noise. Batch norms stay in eval mode."""
    network = toy_network()
    method.check(PROTOCOL, MANIFEST)
    method.prepare(network, PROTOCOL)
    first = toy_step(0, network, batches=[toy_batch(BASE_LABELS, seed) for seed in (11, 12)])
    if method.base:
        method.begin(first)
        descend(method, first, 3)
    method.begin(first)
    method.end(first)
    step = at_next_step(method, network, 1, [batch or toy_batch(STEP_LABELS)])
    with torch.no_grad():
        for parameter in step.network.parameters():
            if parameter.requires_grad:
                parameter += move * torch.randn_like(parameter)
    return step


def at_next_step(method, network, index, batches):
    teacher = frozen_copy(network) if method.needs_teacher else None
    grow(network, len(PROTOCOL.steps[index]), method.head_start)
    step = toy_step(index, network, teacher, batches)
    method.adapt(step)
    network.eval()
    method.begin(step)
    return step


def descend(method, step, updates, rate=0.05, seed=20, labels=None):
    """Plain gradient descent; what the loss is made of comes from the method."""
    labels = labels or (STEP_LABELS if step.index else BASE_LABELS)
    for number in range(updates):
        batch = toy_batch(labels, seed + number)
        method.before_batch(step)
        new, old = forward(step, batch)
        terms = method.loss(step, batch, new, old) if step.index else method.base_loss(step, batch, new)
        step.network.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        with torch.no_grad():
            for parameter in step.network.parameters():
                if parameter.grad is not None:
                    parameter -= rate * parameter.grad
        method.updated(step)


def outputs(seed=3, features=None, dtype=torch.float64):
    """Random outputs of student and teacher, C and K channels, at the voxels of a batch of three scenes with
    labels of step 1; the features are >= 0."""
    batch = toy_batch(STEP_LABELS, seed)
    generator = torch.Generator().manual_seed(seed)

    def draw(rows, width):
        return torch.randn(rows, width, generator=generator, dtype=dtype)

    coarse = torch.unique(batch.coordinates.long() // torch.tensor([1, 2, 2, 2]), dim=0)
    coarse = (coarse * torch.tensor([1, 2, 2, 2])).int()
    made = []
    for channels in (C, K):
        shape = len(batch.labels), len(coarse)
        fine, rough = draw(shape[0], F).abs().requires_grad_(), draw(shape[1], 5).requires_grad_()
        logits = (3 * draw(shape[0], channels)).requires_grad_()
        levels = [Level(coarse, rough, 2), Level(batch.coordinates, fine, 1)]
        made.append(Output(logits, fine, levels))
    new, old = made
    for tensor in (old.logits, old.features, old.levels[0].features):
        tensor.requires_grad_(False)
    return batch, new, old


def fake_step(**extra):
    """What losses of logits ask of a step 1."""
    return SimpleNamespace(index=1, channels=C, old_channels=K, **extra)


def slow_means(features, labels):
    """Class -> mean feature, of the classes that occur."""
    members = defaultdict(list)
    for row, label in zip(features.tolist(), labels.tolist(), strict=True):
        if label != 255:
            members[label].append(row)
    return {
        label: [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        for label, rows in members.items()
    }
