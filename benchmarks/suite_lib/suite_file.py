"""benchmarks/suite.toml, read strictly: what the official runs are. docs/suite.md describes the file."""

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import baselines  # noqa: F401  registers the methods
from scannet_css.errors import InputError, did_you_mean
from scannet_css.methods.method import Method, find_method, method_names, options_of
from scannet_css.network import NETWORKS
from scannet_css.protocols import load_protocol
from scannet_css.training.recipe import Recipe
from suite_lib.suite_run import DataSet, Run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = {"data": dict, "recipe": dict, "settings": dict, "block": list}
DATA = {"folder": str, "make": dict}
MAKE = {"train": int, "val": int, "seed": int, "vertices": int, "voxel_size": float}
BLOCK = {
    "name": str,
    "description": str,
    "data": str,
    "protocols": list,
    "seeds": list,
    "methods": (list, str),
    "recipe": str,
    "settings": (str, list),
    "grid": dict,
}
# of the recipe, but chosen for each method, among its settings
OWN_RECIPE = ("epochs", "learning_rate")
OPTIONAL = ("recipe", "settings", "grid", "make", "description")


def read_suite(path: Path, root: Path) -> list[Run]:
    """The runs of a suite file in its order, those of two blocks in both. `root`: what its folders are
    relative to. Raises InputError naming file, place, key and what was expected."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such suite file") from None
    except ValueError as error:
        raise InputError(f"{path}: not TOML ({error})") from None
    try:
        return _runs(content, root)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _runs(content: dict, root: Path) -> list[Run]:
    _check(content, TOP, "the file", optional=tuple(TOP))
    data = {name: _data_set(name, value, root) for name, value in content.get("data", {}).items()}
    recipes = {name: _recipe(f"recipe.{name}", value) for name, value in content.get("recipe", {}).items()}
    sets = {name: _settings_of_all(name, value) for name, value in content.get("settings", {}).items()}
    runs: list[Run] = []
    blocks = content.get("block", [])
    names = [block.get("name") for block in blocks if isinstance(block, dict)]
    for number, block in enumerate(blocks):
        where = (
            f"block {block.get('name', number + 1)!r}" if isinstance(block, dict) else f"block {number + 1}"
        )
        _check(block, BLOCK, where)
        if names.count(block["name"]) > 1:
            raise InputError(f"{where}: the name occurs twice; expected one block of each name")
        runs += _runs_of(block, where, data, recipes, sets)
    return runs


def _runs_of(block: dict, where: str, data: dict, recipes: dict, sets: dict) -> Iterator[Run]:
    source = _known(block["data"], data, f"{where}: data")
    recipe_name = block.get("recipe", "")
    recipe = _known(recipe_name, recipes, f"{where}: recipe") if recipe_name else {}
    chosen = _chosen(block.get("settings", []), sets, f"{where}: settings")
    methods = _our_methods() if block["methods"] in ("all", ["all"]) else block["methods"]
    for key, values in (("protocols", block["protocols"]), ("methods", methods)):
        if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            raise InputError(f"{where}: {key} is {values!r}; expected a list of names, at least one")
    if not block["seeds"]:
        raise InputError(f"{where}: seeds is []; expected whole numbers from 0, at least one")
    for seed in block["seeds"]:
        if type(seed) is not int or seed < 0:
            raise InputError(f"{where}: seed {seed!r}; expected whole numbers from 0")
    points = list(_points(block.get("grid", {}), where))
    try:
        names = {protocol: load_protocol(protocol).name for protocol in block["protocols"]}
        classes = {method: find_method(method) for method in methods}
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    for protocol, method, seed in itertools.product(names, classes, block["seeds"]):
        for point in points:
            settings = {**chosen.get(method, {}), **point}
            yield Run(
                block=block["name"],
                data=source,
                protocol=protocol,
                protocol_name=names[protocol],
                method=method,
                method_name=classes[method].name,
                settings=_checked_settings(classes[method], settings, where),
                own_recipe=_own_recipe(settings, where),
                recipe_name=recipe_name,
                recipe=tuple(recipe.items()),
                seed=seed,
            )


def _our_methods() -> list[str]:
    """The names of all methods of baselines/, not of those that a suite file brings."""
    return [name for name in method_names() if find_method(name).__module__.startswith("baselines.")]


def _chosen(names: str | list, sets: dict[str, dict], where: str) -> dict[str, dict]:
    """Method -> what the named tables set for it, later ones over earlier ones."""
    chosen: dict[str, dict] = {}
    for name in [names] if isinstance(names, str) else names:
        for method, settings in _known(name, sets, where).items():
            chosen[method] = {**chosen.get(method, {}), **settings}
    return chosen


def _own_recipe(settings: dict, where: str) -> tuple[tuple[str, Any], ...]:
    """What `settings` say of the recipe's values that are a method's own."""
    own = {name: settings[name] for name in OWN_RECIPE if name in settings}
    return tuple(_recipe(where, own).items())


def _points(grid: dict, where: str) -> Iterator[dict[str, Any]]:
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}: grid.{name} is {values!r}; expected a list of values")
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _checked_settings(method: type[Method], settings: dict, where: str) -> tuple[tuple[str, Any], ...]:
    """Those that differ from the defaults, in the method's order, without its own recipe."""
    settings = {name: value for name, value in settings.items() if name not in OWN_RECIPE}
    options = {parameter.name: parameter for parameter in options_of(method)}
    for name in settings:
        if name not in options:
            known, hint = ", ".join(options) or "none", did_you_mean(name, options)
            raise InputError(
                f"{where}: method {method.name!r} has no setting {name!r}{hint}; expected {known}"
            )
    try:
        made = method(**settings)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    values = [(name, type(options[name].default)(getattr(made, name))) for name in options]  # 2 is 2.0
    return tuple((name, value) for name, value in values if value != options[name].default)


def _data_set(name: str, value: Any, root: Path) -> DataSet:
    where = f"data.{name}"
    _check(value, DATA, where)
    if "make" in value:
        _check(value["make"], MAKE, f"{where}.make")
    return DataSet(name, root / value["folder"], _Frozen(value["make"]) if "make" in value else None)


class _Frozen(dict):
    """A dict that can stand in a set."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _recipe(where: str, value: Any) -> dict[str, Any]:
    kinds = {parameter.name: type(parameter.default) for parameter in fields(Recipe)}
    _check(value, kinds, where, optional=tuple(kinds))
    try:
        Recipe(**value)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    network = value.get("network")
    if network is not None and network not in NETWORKS:
        hint = did_you_mean(network, NETWORKS)
        raise InputError(f"{where}: network is {network!r}{hint}; expected {', '.join(NETWORKS)}")
    return value


def _settings_of_all(name: str, value: Any) -> dict[str, dict]:
    if not isinstance(value, dict):
        raise InputError(f"settings.{name} is {value!r}; expected a table for each method")
    for method, settings in value.items():
        if not isinstance(settings, dict):
            raise InputError(f"settings.{name}.{method} is {settings!r}; expected a table of settings")
        try:
            found = find_method(method)
        except InputError as error:
            raise InputError(f"settings.{name}: {error}") from None
        _checked_settings(found, settings, f"settings.{name}.{method}")
        _own_recipe(settings, f"settings.{name}.{method}")
    return value


def _check(value: Any, kinds: dict[str, Any], where: str, optional: tuple[str, ...] = OPTIONAL) -> None:
    """Raises InputError for a key that is not known, missing or of another type."""
    if not isinstance(value, dict):
        raise InputError(f"{where} is {value!r}; expected a table with {', '.join(kinds)}")
    for key, found in value.items():
        if key not in kinds:
            raise InputError(
                f"{where}: unknown key {key!r}{did_you_mean(key, kinds)}; expected {', '.join(kinds)}"
            )
        kind = kinds[key]
        if not _is_of(found, kind):
            raise InputError(f"{where}: {key} is {found!r}; expected {_WORDS[kind]}")
    for key in kinds:
        if key not in value and key not in optional:
            raise InputError(f"{where}: {key} is missing")


def _is_of(value: Any, kind: type | tuple[type, ...]) -> bool:
    if kind is float:  # 2 is 2.0; TOML also has inf and nan
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) in (kind if isinstance(kind, tuple) else (kind,))


_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    (list, str): 'a list, or "all"',
    (str, list): "a name, or a list of names",
    dict: "a table",
}


def _known(name: str, values: dict[str, Any], where: str) -> Any:
    if name not in values:
        known = ", ".join(values) or "none defined"
        hint = did_you_mean(name, values)
        raise InputError(f"{where} is {name!r}, which is not defined{hint}; expected {known}")
    return values[name]
