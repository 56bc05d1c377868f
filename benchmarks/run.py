"""One run: one method on one protocol, from base training to the record.

    python benchmarks/run.py --method lgkd
    python benchmarks/run.py --method plop3d --protocol scannet/lgkd-14-5 --data data/scannet --seed 3
    python benchmarks/run.py --method lgkd --help        # every option, with the method's own
    torchrun --nproc-per-node 4 benchmarks/run.py --method lgkd --data data/scannet      # four GPUs

Without --data the synthetic set is used, and made once where it is missing. The recipe's defaults are
ScanNet's, changed by benchmarks/recipes/<data set>.json where there is one. Result: RUN/record.json.

The same command continues a run that was interrupted, however it was. Exit codes: 0 done, 2 bad input, 75
stopped by SIGTERM or SIGUSR1 with a checkpoint written (run the same command again), 130 the same for Ctrl-C.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from suite_lib.recipe_defaults import recipe_defaults
from suite_lib.synthetic_set import ROOT, synthetic_set
from tqdm.contrib.logging import logging_redirect_tqdm

import baselines  # noqa: F401  registers the methods
from scannet_css import distributed
from scannet_css.commands import add_options, given
from scannet_css.errors import InputError, run_command
from scannet_css.methods.method import Method, find_method, method_names, options_of
from scannet_css.processes import keep_freed_memory
from scannet_css.protocols import load_protocol
from scannet_css.records.make import make_record
from scannet_css.records.record import Record, save_record
from scannet_css.scenes import load_manifest
from scannet_css.sparse.engines.choice import VARIABLE, choose_engine, engine_name
from scannet_css.training.dry_run import rehearse
from scannet_css.training.log import WandbTracker
from scannet_css.training.machine import Machine, find_device
from scannet_css.training.recipe import Recipe
from scannet_css.training.run import ContinualRun
from scannet_css.training.setting import Setting, Start

ENGINE_HELP = (
    "what runs the sparse convolutions: triton (CUDA), grouped (one grouped product for all offsets), torch"
    " (anywhere), spconv or minkowski (those libraries, where installed), or auto: on CUDA the first of"
    f" triton, grouped and torch that can run, elsewhere torch (default: the variable {VARIABLE}, else auto)"
)

log = logging.getLogger("run")


def main(arguments: Sequence[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # The method decides which options there are, the data set decides the recipe's defaults.
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--method", default="finetune")
    method_class = find_method(first.parse_known_args(arguments)[0].method)
    options = build_parser(method_class).parse_args(arguments)

    device = distributed.join(find_device(options.device))
    if not distributed.is_first():
        logging.getLogger().setLevel(logging.WARNING)
    machine = Machine(device, options.workers, options.checkpoint_seconds, options.deterministic)
    machine.make_deterministic()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.engine:
        choose_engine(options.engine)
    if not options.data:
        options.data = distributed.first_process_first(synthetic_set).folder
    with machine.stop, logging_redirect_tqdm():
        run(method_class, options, machine)
    distributed.leave()


def run(method_class: type[Method], options: argparse.Namespace, machine: Machine) -> None:
    """From the options to the record."""
    manifest = load_manifest(options.data)
    protocol = load_protocol(options.protocol)
    recipe = make_recipe(manifest.dataset, options)
    # Asked for now, so that an engine that cannot run here is refused before anything is trained.
    engine = engine_name(machine.device, machine.compute_type(recipe.precision))
    if recipe.batch_norm == "sync" and machine.device.type != "cuda":
        raise InputError("--batch-norm sync: torch synchronises statistics between CUDA devices only")
    method = method_class(**given(options, options_of(method_class), prefix="method_"))
    start = None if options.init is None else Start.from_file(options.init)
    setting = Setting(manifest, protocol, recipe, options.seed, start)
    folder = options.run or run_folder(options.runs, setting, method)

    log.info(
        "data: %s, %d + %d scenes", manifest.folder, len(manifest.split("train")), len(manifest.split("val"))
    )
    log.info(
        "run: %s on %s, seed %d, %s engine, in %s", method.name, protocol.name, options.seed, engine, folder
    )
    tracker = None
    if options.wandb and distributed.is_first():
        tracker = WandbTracker(options.wandb, folder, {**setting.identity(), "method": method.name})
    continual = ContinualRun(
        setting,
        method,
        folder,
        options.runs / "base",
        machine,
        tracker=tracker,
        keep_predictions=options.keep_predictions,
        export=options.export,
    )
    if ".py:" in options.method and not (folder / "step1").exists():
        rehearse(setting, method, options.runs / f"rehearsal-{method.name}-{folder.name}", machine)
    results = continual.run()
    if not distributed.is_first():
        return
    record = make_record(setting, method, continual.parameters, results, machine)
    if not (folder / "record.json").exists():
        save_record(record, folder / "record.json")
    print_result(record, folder)


def build_parser(method_class: type[Method]) -> argparse.ArgumentParser:
    """All options; the recipe's and the method's are the fields of their dataclasses."""
    usage, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=usage,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    group = parser.add_argument_group("what to run")
    group.add_argument(
        "--method", required=True, help=f"{', '.join(method_names())}, or path/to/file.py:Class"
    )
    group.add_argument("--protocol", default="scannet/lgkd-14-5", help="name or path.json (%(default)s)")
    group.add_argument("--data", type=Path, help="folder of prepared scenes (default: the synthetic set)")
    group.add_argument(
        "--seed", type=int, default=0, help="seed of weights, order and augmentation (%(default)s)"
    )
    group.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="weights that step 0 starts from (.safetensors, or a MinkowskiEngine checkpoint)",
    )
    group = parser.add_argument_group("where and how")
    group.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of all runs (runs)")
    group.add_argument("--run", type=Path, help="folder of this run (default: named by what is run)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    group.add_argument("--engine", help=ENGINE_HELP)
    group.add_argument("--threads", type=int, help="CPU threads of torch")
    group.add_argument(
        "--workers", type=int, default=0, help="processes that load data; 0: none (%(default)s)"
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="on CUDA: the same bits every time (a CPU always does so)",
    )
    group.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=300,
        metavar="SECONDS",
        help="between checkpoints: so much work is done again after a kill (%(default)s)",
    )
    group.add_argument("--keep-predictions", action="store_true", help="store predictions for tools/view.py")
    group.add_argument("--export", action="store_true", help="weights after each step as safetensors")
    group.add_argument("--wandb", metavar="PROJECT", help="log to this Weights & Biases project too")
    group = parser.add_argument_group("recipe", "defaults for ScanNet; benchmarks/recipes/ changes them")
    add_options(group, fields(Recipe), "")
    add_options(parser.add_argument_group(f"method {method_class.name}"), options_of(method_class), "method_")
    return parser


def make_recipe(dataset: str, options: argparse.Namespace) -> Recipe:
    """The data set's recipe with what the command line changes."""
    return Recipe(**{**recipe_defaults(dataset), **given(options, fields(Recipe))})


def run_folder(runs: Path, setting: Setting, method: Method) -> Path:
    """runs/<data set>/<protocol>/<method>/<network>-seed<n>."""
    protocol = setting.protocol.name.replace("/", "-")
    return (
        runs
        / setting.manifest.dataset
        / protocol
        / method.name
        / f"{setting.recipe.network}-seed{setting.seed}"
    )


def print_result(record: Record, folder: Path) -> None:
    metrics = record.metrics()
    shown = "  ".join(f"{name} {value:.2f}" for name, value in metrics.items() if value is not None)
    title = f"{record.method.name} on {record.protocol.name} ({record.data.dataset}), seed {record.seed}"
    print(f"{title}: mIoU in %")
    print(shown)
    print(f"record: {folder / 'record.json'}")


if __name__ == "__main__":
    sys.exit(run_command(main))
