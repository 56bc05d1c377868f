"""Joint training: all classes of the protocol in a single step, all labels visible. The upper bound.

Trained from scratch with the recipe of step 0 on every scene that holds one of the classes, with as many
updates as all steps of the sequence that it bounds have together, to the nearest epoch.
"""

from dataclasses import dataclass

from scannet_css.methods.method import Method


@dataclass
class Joint(Method):
    name = "joint"
    needs_teacher = False
    offline = True
