"""Measures synthetic scans against ScanNet's training split and prints the tables of docs/synthetic_scans.md.

python docs/render/measure_synthetic.py 80          # the first 80 training scans of seed 0
"""

import json
import sys
import time

import numpy as np

from scannet_css.classes import CLASSES, NYU40_IDS
from scannet_css.synthetic.paint import DATA
from scannet_css.synthetic.scans import make_scan


def main(scans: int, vertices: int = 130_000) -> None:
    start = time.process_time()
    made = [make_scan(0, "train", index, vertices) for index in range(scans)]
    seconds = (time.process_time() - start) / scans
    counts = np.array([np.bincount(scan.nyu40(), minlength=41) for scan in made])
    benchmark = counts[:, NYU40_IDS]
    share, presence = benchmark.sum(0) / benchmark.sum(), (benchmark > 0).mean(0)
    real = json.loads((DATA / "scannet_statistics.json").read_text(encoding="utf-8"))["classes"]
    print("| class | vertices %, ScanNet | here | scans with it %, ScanNet | here |\n|---|---|---|---|---|")
    for k, name in enumerate(CLASSES):
        known = real[name]
        first = f"| {name} | {100 * known['vertex_share']:.2f} | {100 * share[k]:.2f} "
        print(first + f"| {100 * known['presence']:.1f} | {100 * presence[k]:.1f} |")
    total = counts.sum(1)
    ignored, unannotated = 1 - benchmark.sum() / total.sum(), counts[:, 0].sum() / total.sum()
    print(f"\nignored share {ignored:.3f}, unannotated {unannotated:.3f}")
    percentiles = np.percentile(total, [5, 25, 50, 75, 95]).astype(int)
    print(f"vertices p5/25/50/75/95 {percentiles}, deviation of ln {np.log(total).std():.3f}")
    objects = np.mean([len(scan.categories) for scan in made])
    print(f"classes per scan {(benchmark > 0).sum(1).mean():.2f}, objects {objects:.1f}")
    means = np.array([[s.colours.mean(), s.colours.std()] for s in made])
    print(
        "colour mean",
        means[:, 0].mean().round(1),
        "deviation",
        means[:, 1].mean().round(1),
        f"seconds per scan {seconds:.2f}",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 80)
