"""Which engine runs the convolutions: chosen by name, by SCANNET_CSS_ENGINE, or by what the device offers.

An engine is a module with three functions:

    unavailable(device, dtype) -> str | None      why it cannot run there, None if it can
    convolve(features, kernel, kernel_map, bias=None, residual=None, relu=False) -> (M, Cout)
        relu(sum over offsets + bias (Cout,) + residual (M, Cout)); everything after the sum for inference
    gradients(features, kernel, gradient, kernel_map, needs_features, needs_kernel)
        -> (N, Cin) of the gradient's type or None, (O, Cin, Cout) in float32 or float64 or None

features (N, Cin), kernel (O, Cin, Cout) and gradient (M, Cout) share one type; rows are in canonical order.
An engine may have more: RUNS_POINTWISE = True, it is given the 1^3 layers too, which else are a matrix
product of torch's; BatchNorm, an autograd function that takes ExactBatchNorm's place and does what follows.
"""

import importlib
import os
from functools import cache
from types import ModuleType

import torch

from scannet_css.errors import InputError, did_you_mean

ENGINES = ("triton", "grouped", "native", "torch", "spconv", "minkowski")
AUTOMATIC = {"cuda": ("triton", "grouped", "torch"), "cpu": ("native", "torch")}  # the first that can
VARIABLE = "SCANNET_CSS_ENGINE"

_chosen: str | None = None


def choose_engine(name: str) -> None:
    """From now on this engine runs, "auto" for the fastest that can. Raises InputError for unknown names."""
    global _chosen
    _chosen = _checked(name, "engine")


def engine_for(device: torch.device, dtype: torch.dtype) -> ModuleType:
    """The engine for features of that device and type. Raises InputError if the chosen one cannot run it."""
    name = _chosen or _checked(os.environ.get(VARIABLE, "auto"), VARIABLE)
    return _engine(name, device, dtype)


def engine_name(device: torch.device, dtype: torch.dtype) -> str:
    """The name of `engine_for`'s engine, for the record."""
    return engine_for(device, dtype).__name__.rpartition(".")[2].removesuffix("_engine")


def engine_facts(device: torch.device, dtype: torch.dtype) -> dict[str, str | None]:
    """For the record: the engine's name, the native one's vectors, and why it is another."""
    name = engine_name(device, dtype)
    if name == "native":
        return {"engine": name, "vectors": load_engine(name).library().variant, "not_native": None}
    reason = why_unavailable("native", device, dtype) or f"{name} was asked for"
    return {"engine": name, "vectors": None, "not_native": reason}


def why_unavailable(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the engine `name` cannot run there; None if it can."""
    return load_engine(name).unavailable(device, dtype)


@cache
def _engine(name: str, device: torch.device, dtype: torch.dtype) -> ModuleType:
    if name == "auto":
        candidates = AUTOMATIC.get(device.type, ("torch",))
        return next(load_engine(each) for each in candidates if why_unavailable(each, device, dtype) is None)
    reason = why_unavailable(name, device, dtype)
    if reason is not None:
        raise InputError(f"engine {name!r} cannot run {dtype} on {device}: {reason}")
    return load_engine(name)


def load_engine(name: str) -> ModuleType:
    """The module of an engine of ENGINES, whether it can run here or not."""
    return importlib.import_module(f"scannet_css.sparse.engines.{name}_engine")


def _checked(name: str, where: str) -> str:
    if name != "auto" and name not in ENGINES:
        raise InputError(
            f"{where} {name!r} is not known{did_you_mean(name, ENGINES)}; expected auto, {', '.join(ENGINES)}"
        )
    return name
