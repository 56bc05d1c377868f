"""RW, Riemannian walk: A. Chaudhry et al., "Riemannian Walk for Incremental Learning: Understanding
Forgetting and Intransigence", ECCV 2018, equations 7 to 10.

Loss: cross-entropy + weight * sum of (F + s) * (parameter - its value after the step before)^2. F is a
running mean of the squared gradient, nine tenths of the newest, s what the loss fell along the parameter's
way per distance in that metric, summed every ten updates, at least 0, and averaged half and half with the s
of the steps before; F and s are each scaled to 0..1 tensor by tensor.

Against the original: F, s and penalty exact to 1e-9 with the public 2D code (golden file), where every step
has a classifier of its own; here it is one tensor, so its outputs are scaled together. The paper's stored
exemplars are left out, as there."""

from dataclasses import dataclass

from scannet_css.methods.importance import PathMethod


@dataclass
class RW(PathMethod):
    name = "rw"

    def importance(self, step):
        before, scores = self.state.get("scores", {}), {}
        for name, value in self.state["riemann"].items():
            scores[name] = value.clamp(min=0)
            if name in before:
                known = before[name].shape[-1]
                scores[name][..., :known] = (scores[name][..., :known] + before[name]) / 2
        self.state["scores"] = scores
        return [self.state["fisher"], scores]
