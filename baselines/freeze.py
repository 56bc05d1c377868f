"""Freeze and add: only the outputs of the step's classes are trained, with cross-entropy; network, batch norm
statistics and old outputs stay as they are (the baseline "F&A" of Y. Yang et al., "Geometry and
Uncertainty-Aware 3D Point Cloud Class-Incremental Semantic Segmentation", CVPR 2023).

Against the original: with `head` separate, as in the official runs of its two-step protocols, the
cross-entropy over the step's classes and a background of their own is exact to 1e-9 (golden file), and so
are the joined rows. The default trains the new outputs against the old ones, which 3DPC-CISS does not."""

from dataclasses import dataclass

from scannet_css.methods.separate_head import SeparateHead
from scannet_css.network.head import freeze_body, put_back_outputs


@dataclass
class Freeze(SeparateHead):
    name = "freeze"
    head_start = "plain"
    freezes_norms = True

    def adapt(self, step):
        super().adapt(step)
        freeze_body(step.network)

    def updated(self, step):
        super().updated(step)
        put_back_outputs(step.network, step.teacher, range(step.old_channels))
