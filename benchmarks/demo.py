"""The demo: four methods on synthetic rooms, as a table and pictures, in a few minutes on two CPU cores.

    python benchmarks/demo.py            # or: make demo

Two runs at a time, each with half of the cores: small batches do not keep two cores busy. What is there
already is not run again.
"""

import os
import subprocess
import sys
import time
import webbrowser
from collections.abc import Sequence

from suite_lib.synthetic_set import ROOT, run_script, synthetic_set

from scannet_css.commands import Parser, run_command
from scannet_css.errors import InputError
from scannet_css.scenes import Manifest

# finetune makes the base step, which lwf and lgkd start from; joint needs none
ROUNDS = (("finetune", "joint"), ("lwf", "lgkd"))
RUN = ROOT / "runs" / "synthetic" / "scannet-lgkd-14-5"
SHOWN = ("finetune", "lgkd")
NEW_CLASSES = ("refrigerator", "toilet")  # the demo's pictures: a validation room with each


def main(arguments: Sequence[str]) -> None:
    Parser(__doc__).parse_args(arguments)
    started = time.perf_counter()
    manifest = synthetic_set()
    for methods in ROUNDS:
        run_together(methods)
    draw_pictures(manifest)
    folders = (str(ROOT / "runs"), "--out", str(ROOT / "results"), "--data", str(manifest.folder))
    run_script("benchmarks/leaderboard.py", *folders)
    print(f"demo: {time.perf_counter() - started:.0f} s")
    page = ROOT / "results" / "index.html"
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(page.as_uri())
    else:
        print(f"open {page} in a browser")


def run_together(methods: Sequence[str]) -> None:
    """Runs the methods side by side. Raises InputError if one fails (it has said why)."""
    threads = str(max(1, (os.cpu_count() or 1) // len(methods)))
    running = []
    for position, method in enumerate(methods):
        command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--method", method]
        # each progress bar on a line of its own
        environment = {**os.environ, "TQDM_POSITION": str(position), "OMP_NUM_THREADS": threads}
        running.append(
            subprocess.Popen([*command, "--threads", threads, "--keep-predictions"], env=environment)
        )
    try:
        codes = [process.wait() for process in running]
    finally:
        for process in running:
            process.terminate()
    for method, code in zip(methods, codes, strict=True):
        if code:
            raise InputError(f"benchmarks/run.py --method {method} failed with exit code {code}")


def draw_pictures(manifest: Manifest) -> None:
    """results/pictures: the validation room with most of each of two new classes."""
    for name in NEW_CLASSES:
        label = manifest.classes.index(name)
        room = max(manifest.split("val"), key=lambda entry: entry.class_counts[label])
        predictions = []
        for method in SHOWN:
            folder = RUN / method / "minkunet14s-seed0" / "predictions" / "step1"
            predictions += ["--run", str(folder / f"{room.name}.safetensors"), "--title", method]
        picture = ROOT / "results" / "pictures" / f"{room.name}.png"
        run_script("tools/view.py", str(manifest.path(room)), *predictions, "--out", str(picture))


if __name__ == "__main__":
    sys.exit(run_command(main))
