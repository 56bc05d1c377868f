"""RW, Riemannian walk: A. Chaudhry et al., "Riemannian Walk for Incremental Learning: Understanding
Forgetting and Intransigence", ECCV 2018, equations 7 to 10.

Loss: cross-entropy + weight * sum of (F + s) * (parameter - its value after the step before)^2. F is a
running mean of the squared gradient (0.9 of the newest, as in the public 2D code), s what the loss fell along
the parameter's way per distance in that metric, averaged with the s of the steps before; both scaled to 0..1.

Deviations: the two are scaled tensor by tensor, as in the public 2D code, and here their sum once more; s is
added up after every update instead of every few; the paper's stored exemplars are left out.
"""

from dataclasses import dataclass

from scannet_css.methods.importance import PathMethod, grown, scaled


@dataclass
class RW(PathMethod):
    name = "rw"

    def importance(self, step):
        state, total = self.state, {}
        scores = {name: value.clamp(min=0) for name, value in state["riemann"].items()}
        if "scores" in state:
            scores = {
                name: (value + grown(state["scores"][name], value)) / 2 for name, value in scores.items()
            }
        state["scores"] = scores
        for name, score in scores.items():
            total[name] = scaled(state["fisher"][name]) + scaled(score)
        return total
