"""PI, path integral or synaptic intelligence: F. Zenke et al., "Continual Learning Through Synaptic
Intelligence", ICML 2017, equations 3 to 5.

Loss: cross-entropy + weight * sum of omega * (parameter - its value after the step before)^2; omega adds up
over the steps max(0, what the loss fell by the parameter's moves) / ((how far it got)^2 + damping).

Deviations: omega is scaled to 0..1 tensor by tensor, as in the public 2D code, where PI fills the same slot
as EWC with the same weight; the gradient along the way is that of the whole loss after clipping, penalty
included.
"""

from dataclasses import dataclass

from scannet_css.methods.importance import PathMethod, grown
from scannet_css.methods.method import option


@dataclass
class PI(PathMethod):
    name = "pi"
    damping: float = option(1e-3, "keeps omega finite where a parameter has not moved", above=0)

    def importance(self, step):
        before, omega = self.state.get("importance", {}), {}
        for name, parameter in step.network.named_parameters():
            got = parameter.detach() - self.state["start"][name]
            omega[name] = self.state["path"][name].clamp(min=0) / (got.square() + self.damping)
            if name in before:
                omega[name] = omega[name] + grown(before[name], parameter)
        return omega
