"""Network -> confusion matrices over the whole validation split, at raw vertices and at voxels."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scannet_css.learning.metrics import accumulate
from scannet_css.scenes.loader import Batch
from scannet_css.sparse import SparseTensor


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    channels: int,
    predicts_background: bool,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
    on_prediction: Callable[[str, Tensor], None] | None = None,
    title: str = "evaluation",
) -> tuple[Tensor, Tensor]:
    """Confusion matrices (C, C) int64 on the CPU: at raw vertices and at voxels. Rows are the ground truth.

    A vertex gets the prediction of its voxel through the stored inverse map. Where the protocol leaves no
    true background (`predicts_background` false), channel 0 is not a candidate. `on_prediction(scene name,
    (P,) uint8 channels)` is called for every scene if given. The network is put into eval mode and back.
    """
    was_training = network.training
    network.eval()
    at_vertices = torch.zeros(channels, channels, dtype=torch.int64, device=device)
    at_voxels = at_vertices.clone()
    for batch in tqdm(batches, desc=title, unit="batch", leave=False, disable=None):
        batch = batch.to(device)
        with autocast():
            logits = network(SparseTensor(batch.features, batch.coordinates)).logits
        prediction = logits.argmax(1) if predicts_background else logits[:, 1:].argmax(1) + 1
        at_voxels = accumulate(at_voxels, batch.labels, prediction, channels)
        scene_of_voxel = batch.coordinates[:, 0]
        for number, name in enumerate(batch.names):
            of_vertices = prediction[scene_of_voxel == number][batch.inverse[number]]
            at_vertices = accumulate(at_vertices, batch.vertex_labels[number], of_vertices, channels)
            if on_prediction is not None:
                on_prediction(name, of_vertices.to("cpu", torch.uint8))
    network.train(was_training)
    return at_vertices.cpu(), at_voxels.cpu()
