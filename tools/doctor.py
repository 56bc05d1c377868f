"""Says what works on this machine: packages, devices, engines, space, and a training run of ten steps.

    python tools/doctor.py
    python tools/doctor.py --device cuda:1 --network minkunet34c --data data/scannet --json doctor.json

Marks: ok works, -- is not there and not needed, ! may become a problem, !! is needed and does not work. The
exit code is 1 if anything is marked !!.
"""

import scannet_css  # before torch: how its threads wait

# isort: split
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from scannet_css.classes import CLASSES
from scannet_css.commands import Parser, add_device_option, run_command
from scannet_css.errors import InputError, one_line, printable
from scannet_css.files import write_json
from scannet_css.network import MinkUNet, build_network
from scannet_css.records.record import checkout_state, processor
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.sparse.engines.choice import AUTOMATIC, ENGINES, engine_facts, why_unavailable
from scannet_css.sparse.engines.trial import BOUNDS, convolution_error
from scannet_css.training.machine import find_device
from scannet_css.training.one_room import VOXEL_SIZE, train_on_a_room

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("torch", "numpy", "scipy", "pandas", "plyfile", "safetensors", "tqdm", "pillow", "tensorboard")
OPTIONAL = {
    "triton": "the fastest engine on CUDA",
    "wandb": "curves while a run trains",
    "open3d": "turning rooms by hand",
}
LEAST_SPACE = 5e9  # bytes; a few runs, or a part of ScanNet
MARKS = {"works": "ok", "absent": "--", "warning": "!", "broken": "!!"}


@dataclass
class Fact:
    """One line of the report; `values` are its numbers, for programs."""

    name: str
    state: str  # one of MARKS
    text: str
    values: dict[str, Any] = field(default_factory=dict)


def main(arguments: Sequence[str]) -> int:
    parser = Parser(__doc__)
    add_device_option(parser)
    parser.add_argument("--network", default="minkunet14s", help="what to train (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder of prepared scenes to open")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same facts as JSON")
    options = parser.parse_args(arguments)
    device = find_device(options.device)
    torch.manual_seed(0)
    network = build_network(options.network, classes=len(CLASSES))

    sections = {
        "software": (software,),
        "machine": (machine,),
        "engines": (engines, device),
        "space": (space,),
    }
    if options.data:
        sections["data"] = (data, options.data)
    sections["training"] = (training, network, options.network, device)
    report = {title: show(title, guarded(title, *section)) for title, section in sections.items()}
    problems = sum(fact.state == "broken" for facts in report.values() for fact in facts)
    if options.json:
        facts = {title: [asdict(fact) for fact in facts] for title, facts in report.items()}
        write_json(options.json, {"device": str(device), "problems": problems, **facts})
    print(f"{problems} problem{'s' * (problems > 1)}" if problems else "all that is needed works")
    return 1 if problems else 0


def show(title: str, facts: Iterator[Fact]) -> list[Fact]:
    """Prints facts as they are found, lines folded where a terminal is too narrow."""
    print(title)
    shown = []
    for fact in facts:
        line = f"  {MARKS[fact.state]:<2}  {fact.name:<18} {printable(fact.text)}"
        columns = shutil.get_terminal_size((1000, 24)).columns
        print(textwrap.fill(line, columns, subsequent_indent=" " * 25, break_on_hyphens=False), flush=True)
        shown.append(fact)
    return shown


def guarded(name: str, check: Callable[..., Iterator[Fact]], *arguments: Any) -> Iterator[Fact]:
    """The facts of a check; whatever it raises is a finding, with the place, and ends this check alone."""
    try:
        yield from check(*arguments)
    except Exception as error:
        text = one_line(error)
        if not isinstance(error, InputError):
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {text} ({Path(place.filename).name}:{place.lineno})"
        yield Fact(name, "broken", text)


def software() -> Iterator[Fact]:
    yield Fact("python", "works", f"{platform.python_version()}, {platform.platform()}")
    commit, is_dirty = checkout_state()
    checkout = f", commit {commit[:12]}{', with changes' * bool(is_dirty)}" if commit else ", no git checkout"
    yield Fact("scannet-css", "works", scannet_css.__version__ + checkout, {"commit": commit})
    for name in NEEDED:
        version = installed(name)
        yield Fact(name, "works" if version else "broken", version or "not installed, needed")
    for name, purpose in OPTIONAL.items():
        version = installed(name)
        yield Fact(name, "works" if version else "absent", version or f"not installed ({purpose})")


def installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def machine() -> Iterator[Fact]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{processor()}, {usable} of {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    yield Fact("processor", "works", text, {"cores": usable, "threads": torch.get_num_threads()})
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, free_memory()
    text = f"{gigabytes(total)}{f', {gigabytes(free)} free' if free is not None else ''}"
    yield Fact("memory", "works", text, {"total_bytes": total, "free_bytes": free})
    yield from cuda()
    distributed = torch.distributed
    has = distributed.is_available()
    backends = [name for name in ("nccl", "gloo", "mpi") if has and distributed.is_backend_available(name)]
    text = ", ".join(backends) or "torch is built without (several GPUs)"
    yield Fact("distributed", "works" if backends else "absent", text, {"backends": backends})


def free_memory() -> int | None:
    """Bytes that programs can still get, file caches included; None where the system does not tell."""
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def cuda() -> Iterator[Fact]:
    driver = driver_version()
    has_driver = f"the NVIDIA driver is {driver}" if driver else "no NVIDIA driver is found"
    values = {"torch_cuda": torch.version.cuda, "driver": driver, "devices": torch.cuda.device_count()}
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        state = "warning" if driver else "absent"  # a GPU that lies idle
        yield Fact("cuda", state, f"no device: torch is {built}, {has_driver}", values)
        return
    yield Fact("cuda", "works", f"torch is built for CUDA {torch.version.cuda}, {has_driver}", values)
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        capability = ".".join(map(str, torch.cuda.get_device_capability(index)))
        with torch.cuda.device(index):
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        text = f"{torch.cuda.get_device_name(index)}, {gigabytes(total)}, {gigabytes(free)} free, "
        text += f"capability {capability}, {'' if has_bfloat16 else 'no '}bfloat16"
        yield Fact(f"cuda:{index}", "works", text, {"total_bytes": total, "free_bytes": free})


def driver_version() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def engines(device: torch.device) -> Iterator[Fact]:
    """Tries each engine that says it can run; only those that a run takes by itself are needed."""
    yield from guarded("in use", engine_in_use, device)
    needed = AUTOMATIC[device.type]
    for name in ENGINES:
        for dtype in BOUNDS if device.type == "cuda" else (torch.float32,):
            line = f"{name} {str(dtype).removeprefix('torch.')}"
            for fact in guarded(line, engine, line, name, device, dtype):
                if fact.state == "broken" and name not in needed:
                    fact.state = "warning"
                yield fact


def engine_in_use(device: torch.device) -> Iterator[Fact]:
    dtype = compute_type(device)
    facts = engine_facts(device, dtype)
    vectors = f" ({facts['vectors']})" if facts["vectors"] else ""
    text = f"{facts['engine']}{vectors} on {device} in {str(dtype).removeprefix('torch.')}"
    is_slower = device.type == "cpu" and facts["engine"] != "native"  # torch's takes its place, and time
    text += f"; not native: {facts['not_native']}" if is_slower else ""
    yield Fact("in use", "warning" if is_slower else "works", text, facts)


def compute_type(device: torch.device) -> torch.dtype:
    """The type that a run computes in if it is not told otherwise."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def engine(line: str, name: str, device: torch.device, dtype: torch.dtype) -> Iterator[Fact]:
    reason = why_unavailable(name, device, dtype)
    if reason is not None:
        yield Fact(line, "absent", reason)
        return
    error = convolution_error(name, device, dtype)
    is_right = error <= BOUNDS[dtype]  # not for NaN
    text = "convolution and gradients are right" if is_right else f"wrong by {error:.2g} of the largest value"
    yield Fact(line, "works" if is_right else "broken", text)


def space() -> Iterator[Fact]:
    places = {"runs": ROOT / "runs", "data": ROOT / "data", "temporary": Path(tempfile.gettempdir())}
    if Path("/dev/shm").exists():
        places["shared memory"] = Path("/dev/shm")  # what --workers hand batches over in
    for name, path in places.items():
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        text = f"{gigabytes(free)} free in {path}"
        if not os.access(existing, os.W_OK):
            yield Fact(name, "broken", f"{existing} cannot be written to", {"free_bytes": free})
        elif free < LEAST_SPACE:
            yield Fact(name, "warning", f"only {text}", {"free_bytes": free})
        else:
            yield Fact(name, "works", text, {"free_bytes": free})


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def data(folder: Path) -> Iterator[Fact]:
    manifest = load_manifest(folder)
    counts = {split: len(manifest.split(split)) for split in ("train", "val", "test")}
    text = f"{manifest.dataset}, {', '.join(f'{count} {split}' for split, count in counts.items() if count)}"
    yield Fact("manifest", "works", f"{text}, voxels of {manifest.voxel_size} m", {"scenes": counts})
    for split in counts:
        for entry in manifest.split(split)[:1]:
            scene = load_scene(manifest.path(entry))
            yield Fact(f"first of {split}", "works", f"{scene.name}, {len(scene.points):,} vertices")


def training(network: MinkUNet, name: str, device: torch.device) -> Iterator[Fact]:
    """Ten real steps on one synthetic room, in the precision that a run would have."""
    trial = train_on_a_room(network, device, compute_type(device))
    voxels, first, last = trial.voxels, trial.losses[0], trial.losses[-1]
    yield Fact("room", "works", f"synthetic, {voxels:,} voxels of {VOXEL_SIZE} m", {"voxels": voxels})
    text = f"{first:.3f} -> {last:.3f} in {len(trial.losses)} steps of {name}"
    if not all(map(math.isfinite, trial.losses)):
        yield Fact("loss", "broken", f"{text}: expected finite numbers")  # JSON has no others
    elif last < first:
        yield Fact("loss", "works", text, {"first": first, "last": last})
    else:
        yield Fact("loss", "broken", f"{text}: expected to fall", {"first": first, "last": last})
    text = f"{trial.voxels_per_second:,.0f} voxels/s, {trial.seconds_per_step:.3f} s a step"
    values = {"voxels_per_second": trial.voxels_per_second, "seconds_per_step": trial.seconds_per_step}
    yield Fact("speed", "works", text, values)
    peak = trial.peak_memory_bytes
    yield Fact("memory", "works", f"{gigabytes(peak)} at most", {"peak_bytes": peak})


if __name__ == "__main__":
    sys.exit(run_command(main))
