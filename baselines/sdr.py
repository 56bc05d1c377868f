"""SDR: U. Michieli and P. Zanuttigh, "Continual Semantic Segmentation via Repulsion-Attraction of Sparse and
Disentangled Latent Representations", CVPR 2021.

Loss: MiB (baselines/mib.py) with distillation weight 100 + four terms on the features before the classifier,
where voxels of background take the teacher's most likely class:
matching (0.01), old classes' batch prototypes to those remembered; attraction (0.001), features to their
batch prototype; repulsion (0.001), mean inverse distance of the batch's prototypes; sparsity (0.001), mean
over voxels of sum(exp f) / sum(f) with f divided by the largest feature of its class. Prototypes are mean
features.

Deviations: remembered prototypes are exact means over the step's scenes, not running means; the authors train
step 0 with attraction, repulsion and sparsity too, here step 0 is shared.
"""

from dataclasses import dataclass

import torch

from baselines.mib import MiB
from scannet_css.methods.losses import IGNORE
from scannet_css.methods.means import mean_over, ordered_sum
from scannet_css.methods.method import option
from scannet_css.methods.prototypes import learn_prototypes, means_of_classes, with_teachers_classes


@dataclass
class SDR(MiB):
    name = "sdr"
    weight: float = option(100.0, "weight of the distillation", least=0)
    matching_weight: float = option(0.01, "weight of the distance to remembered prototypes", least=0)
    attraction_weight: float = option(0.001, "weight of the distance to the own prototype", least=0)
    repulsion_weight: float = option(0.001, "weight of the nearness of prototypes", least=0)
    sparsity_weight: float = option(0.001, "weight of the density of features", least=0)

    def loss(self, step, batch, new, old):
        terms = super().loss(step, batch, new, old)
        labels = with_teachers_classes(batch.labels, old.logits)
        remembered = self.state["prototypes"].to(new.features.device)
        found = latent_terms(new.features.float(), labels, step.channels, remembered)
        for name in ("matching", "attraction", "repulsion", "sparsity"):
            terms[name] = getattr(self, f"{name}_weight") * found[name]
        return terms

    def end(self, step):
        super().end(step)
        self.state["prototypes"] = learn_prototypes(step, self.state.get("prototypes"))


def latent_terms(features, labels, channels, remembered):
    """The four terms of features (N, F) with labels (N,); remembered (K, F) prototypes of the old
    channels."""
    means, occurs = means_of_classes(features, labels, channels)
    known = labels != IGNORE
    features, labels = features[known], labels[known]
    both = occurs[: len(remembered)].clone()
    both[0] = False  # background changes its meaning from step to step
    matching = (means[: len(remembered)] - remembered)[both].square()
    to_own = (features - means[labels]).square()
    present = means[occurs]
    distances = torch.cdist(present, present)[~torch.eye(len(present), dtype=torch.bool, device=means.device)]
    largest = features.new_zeros(channels).scatter_reduce(0, labels, features.amax(1), "amax")
    scaled = features / largest.clamp(min=1e-6)[labels][:, None]
    density = scaled.exp().sum(1) / scaled.sum(1).clamp(min=1e-6)
    return {
        "matching": mean_over(ordered_sum(matching), matching.numel()),
        "attraction": mean_over(ordered_sum(to_own), to_own.numel()),
        "repulsion": mean_over(ordered_sum(1 / distances.clamp(min=1e-6)), distances.numel()),
        "sparsity": mean_over(ordered_sum(density), len(density)),
    }
