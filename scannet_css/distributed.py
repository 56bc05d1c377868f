"""Several processes that train one network (torchrun): who is who, and the sums they take.

Everything that is added up over scenes goes through `total`. A single process is its own sum, so nothing else
has to ask how many there are.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from scannet_css.errors import InputError

Result = TypeVar("Result")
PATIENCE = timedelta(days=1)  # the first may wait for the base step of another run; one that died is noticed


def join(device: torch.device) -> torch.device:
    """Joins the processes that torchrun has started and gives this one's device; alone, gives `device`.

    Each process has the CUDA device of its local rank. Raises InputError if there are fewer devices.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return device
    if device.type == "cuda":
        local, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= devices:
            raise InputError(
                f"--nproc-per-node: process {local} has no CUDA device; there are {devices} here"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    # gloo beside nccl: what steers the loop is known on the CPU and shall not wait for the GPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return device


def leave() -> None:
    """Leaves the group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, 0 for the first: it alone writes files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    return rank() == 0


def total(values: Tensor) -> Tensor:
    """The sum of `values` over all processes, the same to the bit on each; `values` itself if there is one.

    Every process calls it with the same shape and type, in the same order.
    """
    if processes() == 1:
        return values
    summed = values.detach().clone()
    _collect(dist.all_reduce, summed)
    return summed


def total_of(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The same for named tensors on `device`; the first process has all names, others may lack some."""
    if processes() == 1:
        return tensors
    described = [{name: (value.shape, value.dtype) for name, value in tensors.items()}]
    _collect(dist.broadcast_object_list, described, 0)
    sums = {}
    for name, (shape, dtype) in described[0].items():
        sums[name] = total(tensors.get(name, torch.zeros(shape, dtype=dtype, device=device)))
    return sums


def add_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replaces every parameter's gradient by its sum over all processes; one that has none adds zero."""
    has_gradient = any(parameter.grad is not None for parameter in parameters)
    if processes() == 1 or not any(has for (has,) in gathered([int(has_gradient)])):
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    summed = total(torch.cat([parameter.grad.flatten() for parameter in parameters]))
    start = 0
    for parameter in parameters:
        parameter.grad.copy_(summed[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


def gathered(numbers: Sequence[int]) -> list[list[int]]:
    """What every process says, by rank: small integers, equally many each."""
    if processes() == 1:
        return [list(numbers)]
    mine = torch.tensor(numbers, dtype=torch.int64)
    everyones = [torch.empty_like(mine) for _ in range(processes())]
    _collect(dist.all_gather, everyones, mine)
    return [numbers.tolist() for numbers in everyones]


def as_the_first(tensors: Sequence[Tensor]) -> None:
    """Overwrites tensors by those of the first process."""
    if processes() > 1:
        for tensor in tensors:
            _collect(dist.broadcast, tensor, 0)


def wait_for_all() -> None:
    """Returns when every process is here."""
    gathered([0])


def first_process_first(work: Callable[[], Result]) -> Result:
    """Every process does the work, the others once the first has done it and before it goes on."""
    if is_first():
        result = work()
    wait_for_all()
    if not is_first():
        result = work()
    wait_for_all()
    return result


def _collect(operation, *arguments) -> None:
    try:
        operation(*arguments)
    except RuntimeError as error:  # the peer's own message says why it ended
        reason = str(error).splitlines()[0]
        raise InputError(f"process {rank()}: another process does not answer ({reason})") from error
