"""What the rules for pseudo-labels keep of a step's background voxels; the numbers of docs/methods.md.

    python docs/render/measure_pseudo_labels.py --checkpoint runs/base/<digest> --data data/study/prepared

The teacher is the network of step 0; the voxels are those that step 1 shows as background.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from baselines.gua import GUA
from baselines.pseudo import Pseudo
from scannet_css.errors import run_command
from scannet_css.methods.method import Step
from scannet_css.methods.neighbours import NEIGHBOURS, dropped_out, neighbours, uncertainty
from scannet_css.protocols import load_protocol
from scannet_css.scenes import load_manifest
from scannet_css.scenes.loader import Batch, BatchSet
from scannet_css.sparse import SparseTensor
from scannet_css.training.trained import load_trained


def main(arguments: Sequence[str]) -> None:
    usage, _, rest = __doc__.partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=usage, epilog=rest, formatter_class=raw)
    parser.add_argument("--checkpoint", type=Path, required=True, help="step 0, as tools/predict.py takes it")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared scenes")
    parser.add_argument("--protocol", default="scannet/s0-15-5", help="(%(default)s)")
    options = parser.parse_args(arguments)
    protocol, manifest = load_protocol(options.protocol), load_manifest(options.data)
    trained, scenes = load_trained(options.checkpoint), protocol.scenes(1, manifest)
    table = protocol.training_table(1, manifest.classes)
    batches = list(BatchSet(manifest, [[scene] for scene in scenes], table, trained.about.inputs))

    def add_up(name, compute):
        total = Counter()
        for batch in batches:
            for key, value in compute(batch).items():
                total[key] = total[key] + value
        return total

    teacher = trained.network
    step = Step(1, protocol, scenes, teacher, teacher, torch.device("cpu"), torch.no_grad, add_up)
    methods = [Pseudo(median="published"), Pseudo(median="true")]
    for method in methods:
        method.begin(step)
        thresholds = " ".join(f"{value:.4f}" for value in method.state["thresholds"].tolist())
        print(f"median {method.median}: thresholds {thresholds}")
    torch.manual_seed(0)
    report([count(batch, step, methods) for batch in batches], len(scenes))


def count(batch: Batch, step: Step, methods: Sequence[Pseudo]) -> tuple[Counter, torch.Tensor]:
    """Background voxels and what each rule keeps of them; GUA's uncertainty of them in nats."""
    hidden = batch.labels == 0
    output = step.old_output(SparseTensor(batch.features, batch.coordinates))
    found = Counter(voxels=int(hidden.sum()))
    for method in methods:
        labels = method.pseudo_labels(step, batch.labels, output.logits)
        found[f"median {method.median}"] = int((hidden & (labels != 255)).sum())
    gua, final, near = GUA(), step.teacher.final, neighbours(batch.coordinates)
    features = dropped_out(output.features, gua.dropout)
    with torch.no_grad():
        probability = (features @ final.kernel + final.bias).softmax(1)
    unsure = uncertainty(probability, near)[hidden]
    for threshold in (gua.threshold, 0.0065, 0.001):
        found[f"GUA's threshold {threshold}"] = int((unsure <= threshold).sum())
    return found, unsure * NEIGHBOURS * step.old_channels


def report(found: Sequence[tuple[Counter, torch.Tensor]], scenes: int) -> None:
    total = sum((counts for counts, _ in found), Counter())
    median = torch.cat([nats for _, nats in found]).median().item()
    print(
        f"{scenes} scenes, {total['voxels']} background voxels; GUA's uncertainty: median {median:.2f} nats"
    )
    for rule, number in total.items():
        print(f"{rule}: {100 * number / total['voxels']:.1f} %")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
