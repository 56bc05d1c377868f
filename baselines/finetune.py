"""Fine-tuning: cross-entropy on what a step shows, nothing against forgetting. The lower bound."""

from dataclasses import dataclass

from scannet_css.methods.method import Method


@dataclass
class Finetune(Method):
    name = "finetune"
    needs_teacher = False
    head_start = "plain"
