"""Registers the validation split of prepared data, against which records are checked from then on.

    python tools/register_split.py data/scannet          # -> benchmarks/splits/<manifest hash>.json

For whoever keeps the leaderboard: the counts say what every run on this data must have been scored on. Run it
from the repository's root.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError
from scannet_css.records.splits import count_split, save_split
from scannet_css.scenes import load_manifest

SPLITS = Path("benchmarks/splits")


def main(arguments: Sequence[str]) -> None:
    parser = Parser(__doc__)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of prepared scenes")
    options = parser.parse_args(arguments)
    manifest = load_manifest(options.data)
    scenes = len(manifest.split("val"))
    if not scenes:
        raise InputError(f"{options.data}: has no validation scene, expected at least one")
    *_, split = tqdm(count_split(manifest), total=scenes, unit="scene", disable=None)
    path = save_split(split, SPLITS)
    vertices = sum(split.vertices.values())
    print(f"{path}: {split.dataset}, {scenes} validation scenes, {vertices} annotated vertices")


if __name__ == "__main__":
    sys.exit(run_command(main))
