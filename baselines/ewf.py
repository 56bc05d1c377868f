"""EWF: J.-W. Xiao et al., "Endpoints Weight Fusion for Class Incremental Semantic Segmentation", CVPR 2023.

The step is trained as the method it stands on says (`ewf`: MiB, `ewf+plop3d`: PLOP), the outputs of the old
classes and of background frozen; then every tensor that the network had before the step, batch norm
statistics included, becomes (1 - a) * before + a * after with a = sqrt(n / (n + K)) for n new classes. New
outputs stay. The fused network is scored and is the next teacher; nothing is remembered.

`moved_share` is an option of the released code that its paper does not describe: only the entries that moved
most are fused, the others keep their new value (0.45 there). Deviations: whole numbers, as the batches that a
batch norm has counted, are not fused.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.mib import MiB
from baselines.plop3d import PLOP3D
from scannet_css.methods.method import Method, option


@dataclass
class FusedMethod(Method):
    """The fusion, for any method whose outputs grow by columns."""

    fusion_weight: float = option(
        0.0, "weight of the trained network in the fusion, 0..1; 0: sqrt(n / (n + K))", least=0, most=1
    )
    moved_share: float = option(
        1.0, "share of the entries that are fused, those that moved most", above=0, most=1
    )

    def adapt(self, step):
        super().adapt(step)
        old, final = step.teacher.final, step.network.final
        before = {name: value.clone() for name, value in step.network.state_dict().items()}
        # Not as they were started: background's bias may have been shared out.
        before["final.kernel"], before["final.bias"] = old.kernel.clone(), old.bias.clone()
        self._before = before
        self._rows = [each.detach()[:, : step.old_channels].clone() for each in (final.kernel, final.bias)]

    def updated(self, step):
        super().updated(step)
        if step.index:
            final = step.network.final
            with torch.no_grad():
                for parameter, rows in zip((final.kernel, final.bias), self._rows, strict=True):
                    parameter[:, : step.old_channels] = rows

    def end(self, step):
        if step.index:
            weight = self.fusion_weight or balanced_weight(step.channels, step.old_channels)
            after = step.network.state_dict()
            step.network.load_state_dict(fused(self._before, after, weight, self.moved_share))
        super().end(step)


def balanced_weight(channels: int, old_channels: int) -> float:
    """sqrt(n / (n + K)): the more classes are new, the more counts what was learnt last."""
    return math.sqrt((channels - old_channels) / channels)


def fused(
    before: dict[str, Tensor], after: dict[str, Tensor], weight: float, moved_share: float = 1.0
) -> dict[str, Tensor]:
    """`after` with the tensors of `before` fused into it; one that has grown by its last dimension is fused
    where it was. Entries that moved less than the `moved_share` that moved most keep their new value."""
    names = [name for name, value in before.items() if value.is_floating_point()]
    moved = {name: after[name][..., : before[name].shape[-1]] - before[name] for name in names}
    every = torch.cat([move.abs().flatten() for move in moved.values()])
    cut = every.topk(max(1, int(moved_share * len(every)))).values[-1]
    result = {name: value.clone() for name, value in after.items()}
    for name in names:
        mix = (1 - weight) * before[name] + weight * (before[name] + moved[name])
        kept = result[name][..., : before[name].shape[-1]]
        kept.copy_(torch.where(moved[name].abs() < cut, kept, mix))
    return result


@dataclass
class EWF(FusedMethod, MiB):
    name = "ewf"


@dataclass
class EWFPLOP3D(FusedMethod, PLOP3D):
    name = "ewf+plop3d"
