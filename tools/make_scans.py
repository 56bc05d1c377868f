"""Makes synthetic scans in ScanNet's raw format, or views of the same rooms in the format of its frames.

    python tools/make_scans.py --out data/synthetic/scans --train 40 --val 12 --seed 0
    python tools/make_scans.py --out data/small --train 40 --val 12 --vertices 20000
    python tools/make_scans.py --out data/views --train 40 --val 12 --views 14

A second run makes only what is missing; a larger --train or --val extends the set.
"""

import os
import sys
from collections.abc import Sequence

from scannet_css.commands import Parser, run_command
from scannet_css.synthetic.scans import make_set
from scannet_css.synthetic.views import make_view_set


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
        "--views", type=int, help="of each room, instead of a scan: labelled photos of 160 x 120, and depth"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    rooms, size = (options.out, options.train, options.val, options.seed), options.train + options.val
    if options.views is None:
        made, what = make_set(*rooms, options.vertices, options.workers), "scans"
    else:
        made, what = make_view_set(*rooms, options.views, workers=options.workers), "rooms' views"
    print(f"{options.out}: {made} {what} made, {size - made} there already")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
