"""The partitioned regime: every scene belongs to one step (T. Park et al., arXiv 2405.09858).

In overlapped data a scene comes back in several steps with other labels, which replays old classes for free.
The paper gives each training image to one of its foreground classes at random, and with it to that class's
step; a step of many classes then has most of them. Here steps share the scenes instead.
"""

import hashlib
from collections.abc import Sequence


def partition(steps_of_scene: dict[str, Sequence[int]]) -> dict[str, int]:
    """Scene name -> its step, of those whose classes it has.

    The scenes that fit the fewest steps come first, among these in the order of the SHA-256 of their names;
    each goes to the step, of its own, that has the fewest scenes so far, the first of several. So the result
    depends on the set of names and what is in them, on no seed and no order of files. A scene that fits no
    step is left out.
    """
    fitting = {name: sorted(set(steps)) for name, steps in steps_of_scene.items() if steps}
    scenes = dict.fromkeys((step for steps in fitting.values() for step in steps), 0)
    chosen = {}
    for name in sorted(fitting, key=lambda name: (len(fitting[name]), _draw(name))):
        step = min(fitting[name], key=lambda step: (scenes[step], step))
        chosen[name], scenes[step] = step, scenes[step] + 1
    return chosen


def _draw(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
