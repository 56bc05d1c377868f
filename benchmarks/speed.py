"""How fast this machine is: the engine and its peers, training, loading, preparing scans, the viewer.

    python benchmarks/speed.py prepare                                 # raw scans to prepared scenes
    python benchmarks/speed.py loader                                  # prepared scenes to augmented batches
    python benchmarks/speed.py train --methods finetune lwf lgkd       # a step of each method, part by part
    python benchmarks/speed.py engine                                  # every engine that can run here
    python benchmarks/speed.py engine --networks minkunet18a --voxel-sizes 0.05 --threads 1 --json speed.json
    python benchmarks/speed.py engine --device cuda --dtype bfloat16 --scenes 1 12
    python benchmarks/speed.py engine --networks minkunet14s --voxels 10000 100000 1000000
    python benchmarks/speed.py rivals --device cuda --dtype bfloat16   # one table: ours and other libraries
    python benchmarks/speed.py viewer --vertices 240000 --frames 60    # rooms in a headless Chromium

What is measured, and how, stands in `COMMAND --help`; docs/performance.md explains the columns.
"""

import scannet_css  # noqa: F401  before torch: how its threads wait

# isort: split
from collections.abc import Sequence

from speed_lib import engine_speed, loader_speed, prepare_speed, rivals_speed, train_speed, viewer_speed

from scannet_css.commands import Parser, run_command

COMMANDS = {  # name: module, what it measures by, what that is
    "prepare": (prepare_speed, prepare_speed.measure_preparation, "raw scans to prepared scenes"),
    "loader": (loader_speed, loader_speed.measure_loader, "prepared scenes to augmented batches"),
    "train": (train_speed, train_speed.measure_training, "a step of continual training, part by part"),
    "engine": (engine_speed, engine_speed.measure_engines, "maps, forward pass and training step"),
    "rivals": (rivals_speed, rivals_speed.measure_rivals, "ours and other libraries, cold and warm"),
    "viewer": (viewer_speed, viewer_speed.measure_viewer, "rooms in 3D, in a headless Chromium"),
}


def main(arguments: Sequence[str]) -> None:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, measure, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what, doc=module.__doc__)
        module.add_options(command)
        command.set_defaults(measure=measure)
    options = parser.parse_args(arguments)
    options.measure(options)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
