"""Freeze and add: only the outputs of the step's classes are trained, with cross-entropy; network, batch norm
statistics and old outputs stay as they are (the baseline "F&A" of Y. Yang et al., "Geometry and
Uncertainty-Aware 3D Point Cloud Class-Incremental Semantic Segmentation", CVPR 2023). Deviations: none.
"""

from dataclasses import dataclass

from scannet_css.methods.method import Method
from scannet_css.network.head import freeze_body, put_back_outputs


@dataclass
class Freeze(Method):
    name = "freeze"
    head_start = "plain"
    freezes_norms = True

    def adapt(self, step):
        freeze_body(step.network)

    def updated(self, step):
        put_back_outputs(step.network, step.teacher, range(step.old_channels))
