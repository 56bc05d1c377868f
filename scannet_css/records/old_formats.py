"""Records of earlier formats, read as what they mean in the newest one. Frozen: a new format adds a function.

2 added where the network started, determinism and processes; 3 the entry and CUDA; 4 vectors and not_native.
"""

from typing import Any

from scannet_css.strict_json import require


def upgraded(value: Any, newest: int) -> Any:
    """A record of an earlier format as one of format `newest`: what was not written then is None.

    Raises InputError for a format that this version does not know.
    """
    found = value.get("format") if isinstance(value, dict) else None
    if type(found) is not int:
        return value  # the reader says what is wrong
    newer = "made by a newer version of scannet-css: update yours" if found > newest else "no such format"
    require(1 <= found <= newest, "format", found, f"expected 1 to {newest}; {newer}")
    for upgrade in _UPGRADES[found - 1 :]:
        value = upgrade(value)
    return value


def _to_2(value: dict) -> dict:
    value = _with(value, "network", {"start": None})
    value = _with(value, "environment", {"processes": 1}, {"engine": "torch"})  # there was no other engine
    steps = value.get("steps")
    if isinstance(steps, list) and all(isinstance(step, dict) for step in steps):
        value = {**value, "steps": [{**step, "deterministic": None} for step in steps]}
    return {**value, "format": 2}


def _to_3(value: dict) -> dict:
    return {**_with(value, "environment", {}, {"cuda": None}), "format": 3, "entry": None}


def _to_4(value: dict) -> dict:
    return {**_with(value, "environment", {}, {"vectors": None, "not_native": None}), "format": 4}


_UPGRADES = (_to_2, _to_3, _to_4)


def _with(value: dict, name: str, new: dict, unless_told: dict | None = None) -> dict:
    """`value` with `new` in its object `name`; what is no object is left to the reader."""
    part = value.get(name)
    return {**value, name: {**(unless_told or {}), **part, **new}} if isinstance(part, dict) else value
