"""Makes synthetic scans in ScanNet's raw format.

    python tools/make_scans.py --out data/synthetic/scans --train 40 --val 12 --seed 0
    python tools/make_scans.py --out /tmp/small --train 40 --val 12 --vertices 20000

A second run makes only what is missing; a larger --train or --val extends the set.
"""

import os
import sys
from collections.abc import Sequence

from scannet_css.commands import Parser, run_command
from scannet_css.synthetic.scans import make_set


def main(arguments: Sequence[str]) -> int:
    parser = Parser(__doc__)
    parser.add_argument(
        "--out", required=True, help="folder for the scans, the label map and the split lists"
    )
    parser.add_argument(
        "--train", type=int, default=40, help="number of training scans (default: %(default)s)"
    )
    parser.add_argument(
        "--val", type=int, default=12, help="number of validation scans (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument(
        "--vertices", type=int, default=130_000, help="median per scan (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    made = make_set(options.out, options.train, options.val, options.seed, options.vertices, options.workers)
    print(f"{options.out}: {made} scans made, {options.train + options.val - made} there already")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
