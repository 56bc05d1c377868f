"""Where and how arithmetic is done: none of it belongs to what is computed."""

import os
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch

from scannet_css.errors import InputError
from scannet_css.training.signals import StopSignals


@dataclass(frozen=True)
class Machine:
    """The device and habits of this process."""

    device: torch.device
    workers: int = 0  # processes that load data
    checkpoint_seconds: float = 300.0  # between checkpoints; 0: after every batch
    deterministic: bool = False  # on CUDA; a CPU always is
    stop: StopSignals = field(default_factory=StopSignals)

    @property
    def is_deterministic(self) -> bool:
        """Whether the same run gives the same bits again."""
        return self.deterministic or self.device.type == "cpu"

    def autocast(self, precision: str) -> AbstractContextManager:
        """Mixed precision on CUDA, nothing elsewhere (half precision on CPUs is slower than float32)."""
        dtype = self.half_type(precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def half_type(self, precision: str) -> torch.dtype | None:
        """The half type in use, None for float32."""
        if self.device.type != "cuda" or precision == "float32":
            return None
        if precision == "auto":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return getattr(torch, precision)

    def compute_type(self, precision: str) -> torch.dtype:
        """The type in which convolutions run."""
        return self.half_type(precision) or torch.float32

    def make_deterministic(self) -> None:
        """If that is asked for: torch takes only kernels that give the same bits every time, and refuses
        those that have none. To be called before the first work on the GPU."""
        if self.deterministic and self.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
            torch.use_deterministic_algorithms(True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads what was not written
            torch.backends.cudnn.benchmark = False

    def peak_memory_bytes(self) -> int:
        """The most memory so far: what torch allocated on a GPU, what this process had resident on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def find_device(name: str) -> torch.device:
    """The torch device. Raises InputError for a name that is none and for CUDA where there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise InputError(f"--device {name!r}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        found = f"{count} CUDA devices" if count else "no CUDA device"
        raise InputError(f"--device {name}: torch {torch.__version__} finds {found} here")
    return torch.device(name)
