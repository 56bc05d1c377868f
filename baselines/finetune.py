"""Fine-tuning: cross-entropy on what a step shows, nothing against forgetting. The lower bound.

Against the original: there is none. 3DPC-CISS (Y. Yang et al., CVPR 2023) trains a separate head for the
step's classes: `head` separate, whose cross-entropy is exact to 1e-9 (golden file)."""

from dataclasses import dataclass

from scannet_css.methods.separate_head import SeparateHead


@dataclass
class Finetune(SeparateHead):
    name = "finetune"
    needs_teacher = False
    head_start = "plain"
