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

import scannet_css  # noqa: F401  before torch: how its threads wait

# isort: split
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
from scannet_css.commands import Parser, add_device_option, add_options, given, run_command
from scannet_css.errors import InputError, one_line
from scannet_css.methods.method import Method, find_method, method_names, options_of
from scannet_css.processes import keep_freed_memory
from scannet_css.protocols import load_protocol
from scannet_css.records.make import make_record
from scannet_css.records.record import Record, save_record
from scannet_css.scenes import load_manifest
from scannet_css.sparse.engines.choice import VARIABLE, choose_engine, engine_name
from scannet_css.training.dry_run import dry_run
from scannet_css.training.log import WandbTracker
from scannet_css.training.machine import Machine, find_device
from scannet_css.training.recipe import Recipe
from scannet_css.training.run import ContinualRun
from scannet_css.training.setting import Setting, Start
from scannet_css.training.step.loss_terms import describe

ENGINE_HELP = (
    "what runs the sparse convolutions: triton (CUDA), grouped (one grouped product for all offsets), torch"
    " (anywhere), spconv or minkowski (those libraries, where installed), or auto: on CUDA the first of"
    f" triton, grouped and torch that can run, elsewhere torch (default: the variable {VARIABLE}, else auto)"
)

log = logging.getLogger("run")


def main(arguments: Sequence[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # The method decides which options there are, the data set decides the recipe's defaults.
    method_class = find_method(method_word(arguments))
    shows_help = "-h" in arguments or "--help" in arguments
    options = build_parser(method_class, shows_help).parse_args(arguments)
    machine = start_machine(options)
    if not options.data:
        options.data = distributed.first_process_first(synthetic_set).folder
    with machine.stop, logging_redirect_tqdm():
        run(method_class, options, machine)
    distributed.leave()


def method_word(arguments: Sequence[str]) -> str:
    """What stands behind --method, fine-tuning where nothing does: then --help shows what all have."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--method", nargs="?", const="finetune", default="finetune")
    return first.parse_known_args(arguments)[0].method


def start_machine(options: argparse.Namespace) -> Machine:
    """This process, as the options want it to compute."""
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
    return machine


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

    scenes = f"{len(manifest.split('train'))} + {len(manifest.split('val'))} scenes"
    log.info("data: %s, %s", manifest.folder, scenes)
    title = f"{method.name} on {protocol.name}, seed {options.seed}"
    log.info("run: %s, %s engine, in %s", title, engine, folder)
    tracker = None
    if options.wandb and distributed.is_first():
        tracker = WandbTracker(options.wandb, folder, {**setting.identity(), "method": method.name})
    wanted = {"keep_predictions": options.keep_predictions, "export": options.export}
    continual = ContinualRun(setting, method, folder, options.runs / "base", machine, tracker, **wanted)
    if ".py:" in options.method and not (folder / "step1").exists():
        dry_run(setting, method, options.runs / f"dry-run-{method.name}-{folder.name}", machine)
    result = continual.run()
    if not distributed.is_first():
        return
    record = make_record(setting, method, result.parameters, result.steps, machine)
    if not (folder / "record.json").exists():
        save_record(record, folder / "record.json")
    print_result(record, folder)


def build_parser(method_class: type[Method], shows_help: bool) -> Parser:
    """All options; the recipe's and the method's are the fields of their dataclasses. `shows_help`: with the
    method's loss terms, which take a second to be found."""
    parser = Parser(__doc__)
    add_what(parser.add_argument_group("what to run"))
    add_where_and_how(parser.add_argument_group("where and how"))
    group = parser.add_argument_group("recipe", "defaults for ScanNet; benchmarks/recipes/ changes them")
    add_options(group, fields(Recipe), "")
    terms = described_terms(method_class) if shows_help else None
    group = parser.add_argument_group(f"method {method_class.name}", terms)
    add_options(group, options_of(method_class), "method_")
    return parser


def described_terms(method_class: type[Method]) -> str:
    """The loss terms with their weights; of a method that does not get through, why."""
    try:
        return describe(method_class())
    except Exception as error:  # whatever a method from outside raises: help is shown all the same
        return f"loss: its terms could not be found: {type(error).__name__}: {one_line(error)}"


def add_what(group: argparse._ArgumentGroup) -> None:
    names = f"{', '.join(method_names())}, or path/to/file.py:Class"
    start = "weights that step 0 starts from (.safetensors, or a MinkowskiEngine checkpoint)"
    seed = "seed of weights, order and augmentation (%(default)s)"
    add = group.add_argument
    add("--method", required=True, help=names)
    add("--protocol", default="scannet/lgkd-14-5", help="name or path.json (%(default)s)")
    add("--data", type=Path, help="folder of prepared scenes (default: the synthetic set)")
    add("--seed", type=int, default=0, help=seed)
    add("--init", type=Path, metavar="FILE", help=start)


def add_where_and_how(group: argparse._ArgumentGroup) -> None:
    between = "between checkpoints: so much work is done again after a kill (%(default)s)"
    same_bits = "on CUDA: the same bits every time (a CPU always does so)"
    add = group.add_argument
    add("--runs", type=Path, default=ROOT / "runs", help="folder of all runs (runs)")
    add("--run", type=Path, help="folder of this run (default: named by what is run)")
    add_device_option(group)
    add("--engine", help=ENGINE_HELP)
    add("--threads", type=int, help="CPU threads of torch")
    add("--workers", type=int, default=0, help="processes that load data; 0: none (%(default)s)")
    add("--deterministic", action="store_true", help=same_bits)
    add("--checkpoint-seconds", type=float, default=300, metavar="SECONDS", help=between)
    add("--keep-predictions", action="store_true", help="store predictions for tools/view.py")
    add("--export", action="store_true", help="weights after each step as safetensors")
    add("--wandb", metavar="PROJECT", help="log to this Weights & Biases project too")


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
