"""Weights of others as a start, and ours for others: MinkowskiEngine's names and layouts, and no code."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from scannet_css.errors import InputError
from scannet_css.files import write_atomic
from scannet_css.network.minkunet import NETWORKS, MinkUNet, build_network

NESTED = ("state_dict", "model_state_dict", "model")  # where checkpoints keep weights
PREFIXES = ("module.", "model.", "backbone.")  # DistributedDataParallel, Lightning, Pointcept
STEM, CLASSIFIER = "conv0p1s1.kernel", "final."
COUNTER = "num_batches_tracked"  # torch's batch norm counts its batches, older files do not
HEADER = "scannet_css"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU: .safetensors, or what torch.save wrote.

    Of a torch file only weights are read (weights_only=True), so it cannot run code. A state_dict may lie
    under one of NESTED, and prefixes that all names share are taken off. Raises InputError if the file is
    missing, damaged, holds other objects than weights, or no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected weights, .safetensors or written by torch.save")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    content = next((content[key] for key in NESTED if isinstance(content.get(key), dict)), content)
    weights = {name: value.detach() for name, value in content.items() if _is_weight(name, value)}
    if not weights:
        raise InputError(
            f"{path}: holds no tensors; expected a state_dict, alone or under {', '.join(NESTED)}"
        )
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: damaged, or not a safetensors file ({error})") from None


def _read_torch(path: Path) -> dict:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the pickle protocol of what is no pickle
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises anything, from AssertionError to UnicodeDecodeError
        refused = re.search(r"GLOBAL (\S+)", str(error))  # what torch names an object that is no weight
        if refused:
            raise InputError(
                f"{path}: holds more than weights ({refused[1]}), which could run code; "
                "save its state_dict alone"
            ) from error
        raise InputError(
            f"{path}: damaged, or not a checkpoint; expected a state_dict written by torch.save"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected a state_dict")
    return content


def _is_weight(name: object, value: object) -> bool:
    """Whether it is a named tensor with values in memory: files may hold sparse and meta tensors too."""
    is_tensor = isinstance(name, str) and isinstance(value, Tensor)
    return is_tensor and value.layout is torch.strided and value.device.type == "cpu"


def initialise(network: MinkUNet, weights: dict[str, Tensor], source: str | Path) -> list[str]:
    """Loads all weights but the classifier's, which stays as it is: its classes are others.

    1^3 kernels may be (1, Cin, Cout), as MinkowskiEngine 0.4 has them, or (Cin, Cout). Gives the sorted names
    of what `source` holds and the network does not take. Raises InputError, with the network unchanged, if a
    weight is missing, left over in a block of the network, of another shape or type, or not finite.
    """
    wanted = _wanted(network)
    if problem := _misfit(network, weights):
        raise InputError(f"{source}: {problem}{_suggestion(network, weights)}")
    loaded = {}
    for name, old in wanted.items():
        if name not in weights:
            continue  # the counter of a batch norm
        if weights[name].is_floating_point() != old.is_floating_point():
            raise InputError(f"{source}: {name} is {weights[name].dtype}, expected {old.dtype}")
        loaded[name] = weights[name].to(old.dtype).reshape(old.shape)
        if not loaded[name].isfinite().all():
            raise InputError(f"{source}: {name} has values that are not finite")
    network.load_state_dict(loaded, strict=False)
    return sorted(weights.keys() - loaded.keys())


def _wanted(network: MinkUNet) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: value for name, value in state.items() if not name.startswith(CLASSIFIER)}


def _misfit(network: MinkUNet, weights: dict[str, Tensor]) -> str | None:
    """What keeps the weights from being this network's, by names and shapes; None if they fit."""
    wanted = _wanted(network)
    own_parts = {name.partition(".")[0] for name in wanted}
    missing = [name for name in wanted if name not in weights and not name.endswith(COUNTER)]
    if missing:
        first = f"{missing[0]} {tuple(wanted[missing[0]].shape)}"
        return f"{len(missing)} of {_count(wanted)} weights are missing, the first is {first}"
    # of a deeper network: the blocks that there are would fit, and compute something else
    surplus = [name for name in weights if name not in wanted and name.partition(".")[0] in own_parts]
    if surplus:
        return f"{len(surplus)} weights more than the network has, the first is {surplus[0]}"
    differing = [name for name in wanted if name in weights and not _same_shape(weights[name], wanted[name])]
    if not differing:
        return None
    found, expected = (tuple(state[differing[0]].shape) for state in (weights, wanted))
    text = f"{differing[0]} {found}, expected {expected}"
    if differing == [STEM] and len(found) == 3 and found[1] != expected[1]:
        return f"{text}: the weights take {found[1]} input channels, --inputs gives {expected[1]}"
    return f"{text}; {len(differing)} of {_count(wanted)} weights have another shape"


def _count(names: dict[str, Tensor]) -> int:
    return sum(not name.endswith(COUNTER) for name in names)


def _same_shape(found: Tensor, expected: Tensor) -> bool:
    shape = tuple(found.shape)
    return shape == expected.shape or (expected.dim() == 2 and shape == (1, *expected.shape))


def _suggestion(network: MinkUNet, weights: dict[str, Tensor]) -> str:
    """ "; these weights fit ..." with another network that they do fit, whatever their input channels."""
    stem = weights.get(STEM)
    channels = stem.shape[1] if stem is not None and stem.dim() == 3 else network.in_channels
    own = network.planes, network.layers, network.stem
    for name, settings in NETWORKS.items():
        with torch.device("meta"):  # shapes alone
            other = build_network(name, channels)
        if settings[:3] != own and _misfit(other, weights) is None:
            return f"; these weights fit {name}"
    return ""


def save_weights(
    path: str | Path, network: MinkUNet, metadata: dict[str, Any], beside: dict[str, Tensor] | None = None
) -> None:
    """Writes the network's weights, and tensors `beside` them, as safetensors, atomically; the same network
    gives the same bytes.

    `metadata` lies in the header as JSON under one key, since safetensors does not keep the order of several.
    """
    tensors = {**network.state_dict(), **(beside or {})}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    write_atomic(path, safetensors.torch.save(tensors, metadata={HEADER: text}))
