"""PI, path integral or synaptic intelligence: F. Zenke et al., "Continual Learning Through Synaptic
Intelligence", ICML 2017, equations 3 to 5.

Loss: cross-entropy + weight * sum of omega * (parameter - its value after the step before)^2; omega adds up
over the steps max(0, what the loss fell by the parameter's moves) / ((how far it got)^2 + damping), scaled to
0..1 tensor by tensor.

Against the original: omega and penalty exact to 1e-9 with the public 2D code (golden file), where every
step has a classifier of its own; here it is one tensor, so its outputs are scaled together. That code's
damping, 1e-20, is the default; the paper's is 0.1."""

from dataclasses import dataclass

from scannet_css.methods.importance import PathMethod, grown
from scannet_css.methods.method import option


@dataclass
class PI(PathMethod):
    name = "pi"
    damping: float = option(1e-20, "keeps omega finite where a parameter has not moved", above=0)

    def importance(self, step):
        before, omega = self.state.get("omega", {}), {}
        for name, parameter in step.network.named_parameters():
            got = parameter.detach() - self.state["start"][name]
            omega[name] = self.state["path"][name].clamp(min=0) / (got.square() + self.damping)
            if name in before:
                omega[name] = omega[name] + grown(before[name], parameter)
        self.state["omega"] = omega
        return [omega]
