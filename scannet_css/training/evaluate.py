"""Network -> confusion matrices over the whole validation split, at raw vertices and at voxels."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from scannet_css.metrics import accumulate
from scannet_css.network import Output
from scannet_css.scenes.loader import Batch
from scannet_css.sparse import SparseTensor


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
