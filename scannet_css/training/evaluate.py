"""Network -> confusion matrices over the whole validation split, at raw vertices and at voxels."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from scannet_css import distributed
from scannet_css.files import write_atomic
from scannet_css.methods.method import Method, Step
from scannet_css.metrics import accumulate
from scannet_css.network import Output
from scannet_css.scenes import SceneEntry
from scannet_css.scenes.loader import Batch
from scannet_css.sparse import SparseTensor
from scannet_css.training.setting import Setting
from scannet_css.training.sums import forget_sums

Sums = dict[str, Tensor]
Pass = Callable[[list[SceneEntry], Tensor, Callable[[Batch], Sums]], Sums]  # (scenes, label table, compute)


def evaluate(
    step: Step,
    method: Method,
    setting: Setting,
    add_up: Pass,
    on_prediction: Callable[[str, Tensor], None] | None = None,
) -> Sums:
    """Confusion matrices over the validation split, on the CPU; see count_batch. `add_up` goes over it."""
    protocol, channels = setting.protocol, setting.protocol.channels(step.index)
    background = protocol.predicts_background(step.index)
    table = protocol.evaluation_table(step.index, setting.manifest.classes)
    step.network.eval()

    def count(batch: Batch) -> Sums:
        return count_batch(
            step.network, method.predict, batch, channels, background, step.autocast, on_prediction
        )

    found = add_up(setting.validation_scenes(), table, count)
    return {key: value.cpu() for key, value in found.items()}


def save_predictions(step: Step, method: Method, setting: Setting, folder: Path, add_up: Pass) -> None:
    """FOLDER/<scene>.safetensors for each validation scene, unless all are there."""
    channels = json.dumps(setting.protocol.channel_names(step.index))

    def save(name: str, prediction: Tensor) -> None:
        metadata = {"channels": channels, "scene": name}
        content = safetensors.torch.save({"prediction": prediction.contiguous()}, metadata)
        write_atomic(folder / f"{name}.safetensors", content)

    paths = [folder / f"{entry.name}.safetensors" for entry in setting.validation_scenes() if entry.voxels]
    if distributed.first_process_first(lambda: all(path.exists() for path in paths)):
        return
    evaluate(step, method, setting, add_up, save)
    if distributed.is_first():
        forget_sums(folder)


def answers(
    network: nn.Module,
    predict: Callable[[Output], Tensor],
    features: Tensor,
    coordinates: Tensor,
    predicts_background: bool,
    autocast: Callable[[], AbstractContextManager],
) -> Tensor:
    """The channel of each voxel (N,) int64, by its features (N, channels) and coordinates (N, 4).

    `predict` gives the channels' scores (N, C) by the network's output. Where the protocol leaves no true
    background (`predicts_background` false), channel 0 is not a candidate. The network has to be in eval
    mode.
    """
    with torch.inference_mode(), autocast():
        scores = predict(network(SparseTensor(features, coordinates)))
    return scores.argmax(1) if predicts_background else scores[:, 1:].argmax(1) + 1


def count_batch(
    network: nn.Module,
    predict: Callable[[Output], Tensor],
    batch: Batch,
    channels: int,
    predicts_background: bool,
    autocast: Callable[[], AbstractContextManager],
    on_prediction: Callable[[str, Tensor], None] | None = None,
) -> dict[str, Tensor]:
    """The confusion matrices of a batch, (C, C) int64: at raw "vertices" and at "voxels". Rows are the ground
    truth.

    See `answers`; a vertex gets that of its voxel through the stored inverse map. `on_prediction(scene name,
    (P,) uint8 channels)` is called for every scene if given.
    """
    prediction = answers(network, predict, batch.features, batch.coordinates, predicts_background, autocast)
    at_voxels = accumulate(None, batch.labels, prediction, channels)
    at_vertices = torch.zeros_like(at_voxels)
    scene_of_voxel = batch.coordinates[:, 0]
    for number, name in enumerate(batch.names):
        of_vertices = prediction[scene_of_voxel == number][batch.inverse[number]]
        at_vertices = accumulate(at_vertices, batch.vertex_labels[number], of_vertices, channels)
        if on_prediction is not None:
            on_prediction(name, of_vertices.to("cpu", torch.uint8))
    return {"vertices": at_vertices, "voxels": at_voxels}
