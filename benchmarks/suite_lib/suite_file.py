"""benchmarks/suite.toml, read strictly: what the official runs are. docs/suite.md describes the file."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import baselines  # noqa: F401  registers the methods
from scannet_css.errors import InputError, did_you_mean
from scannet_css.methods.method import Method, find_method, method_names, options_of
from scannet_css.protocols import load_protocol
from scannet_css.strict_json import Name, OptionValue, Prose, named, read, read_file, require
from scannet_css.training.recipe import Recipe
from suite_lib.suite_run import DataSet, Make, Run

# of the recipe, but chosen for each method, among its settings
OWN_RECIPE = ("epochs", "learning_rate")


@dataclass(frozen=True)
class DataTable:
    folder: Name
    make: Make | None = None


@dataclass
class Block:
    """Runs of every method on every protocol with every seed."""

    name: Name
    data: Name
    protocols: list[Name]
    seeds: list[int]
    methods: list[Name] | Name  # or "all"
    description: Prose = ""
    recipe: Prose = ""
    settings: list[Name] | Name = field(default_factory=list)  # several: later ones over earlier ones
    grid: dict[Name, list[OptionValue]] = field(default_factory=dict)


@dataclass
class SuiteFile:
    """The tables of the file; a recipe and the settings hold what differs from the defaults."""

    data: dict[Name, DataTable] = field(default_factory=dict)
    recipe: dict[Name, Any] = field(default_factory=dict)
    settings: dict[Name, dict[Name, dict[Name, OptionValue]]] = field(default_factory=dict)
    block: list[Any] = field(default_factory=list)


def read_suite(path: Path, root: Path) -> list[Run]:
    """The runs of a suite file in its order, those of two blocks in both. `root`: what its folders are
    relative to. Raises InputError naming file, place, key and what was expected."""
    content = read_file(SuiteFile, path, "no such suite file")
    with named(path):
        return _runs(content, root)


def _runs(file: SuiteFile, root: Path) -> list[Run]:
    data = {name: DataSet(name, root / one.folder, one.make) for name, one in file.data.items()}
    for name, value in file.recipe.items():
        with named(f"recipe.{name}"):
            read(Recipe, value, "")
    for name, settings in file.settings.items():
        for method, values in settings.items():
            with named(f"settings.{name}.{method}"):
                _checked_settings(find_method(method), values)
                _own_recipe(values)
    names = [block.get("name") for block in file.block if isinstance(block, dict)]
    runs: list[Run] = []
    for number, value in enumerate(file.block, start=1):
        with named(f"block {value.get('name', number) if isinstance(value, dict) else number!r}"):
            block = read(Block, value, "")
            require(names.count(block.name) == 1, "name", block.name, "expected one block of each name")
            runs += _runs_of(block, data, file)
    return runs


def _runs_of(block: Block, data: dict[str, DataSet], file: SuiteFile) -> Iterator[Run]:
    source = _known(block.data, data, "data")
    recipe = _known(block.recipe, file.recipe, "recipe") if block.recipe else {}
    chosen = _chosen(block.settings, file.settings)
    methods = _our_methods() if block.methods in ("all", ["all"]) else block.methods
    require(isinstance(methods, list), "methods", methods, 'expected a list, or "all"')
    for field_name, values in (("protocols", block.protocols), ("methods", methods), ("seeds", block.seeds)):
        require(bool(values), field_name, values, "expected at least one")
    require(min(block.seeds) >= 0, "seeds", block.seeds, "expected whole numbers from 0")
    for name, values in block.grid.items():
        require(bool(values), f"grid.{name}", values, "expected at least one value")
    points = [dict(zip(block.grid, one, strict=True)) for one in itertools.product(*block.grid.values())]
    protocols = {protocol: load_protocol(protocol).name for protocol in block.protocols}
    classes = {method: find_method(method) for method in methods}
    for protocol, method, seed in itertools.product(protocols, classes, block.seeds):
        for point in points:
            settings = {**chosen.get(method, {}), **point}
            yield Run(
                block=block.name,
                data=source,
                protocol=protocol,
                protocol_name=protocols[protocol],
                method=method,
                method_name=classes[method].name,
                settings=_checked_settings(classes[method], settings),
                own_recipe=_own_recipe(settings),
                recipe_name=block.recipe,
                recipe=tuple(recipe.items()),
                seed=seed,
            )


def _our_methods() -> list[str]:
    """The names of all methods of baselines/, not of those that a suite file brings."""
    return [name for name in method_names() if find_method(name).__module__.startswith("baselines.")]


def _chosen(names: str | list[str], tables: dict[str, dict]) -> dict[str, dict]:
    """Method -> what the named tables set for it, later ones over earlier ones."""
    chosen: dict[str, dict] = {}
    for name in [names] if isinstance(names, str) else names:
        for method, settings in _known(name, tables, "settings").items():
            chosen[method] = {**chosen.get(method, {}), **settings}
    return chosen


def _own_recipe(settings: dict) -> tuple[tuple[str, Any], ...]:
    """What `settings` say of the recipe's values that are a method's own."""
    own = {name: settings[name] for name in OWN_RECIPE if name in settings}
    recipe = read(Recipe, own, "")
    return tuple((name, getattr(recipe, name)) for name in own)


def _checked_settings(method: type[Method], settings: dict) -> tuple[tuple[str, Any], ...]:
    """Those that differ from the defaults, in the method's order, without its own recipe."""
    settings = {name: value for name, value in settings.items() if name not in OWN_RECIPE}
    options = {parameter.name: parameter for parameter in options_of(method)}
    for name in settings:
        if name not in options:
            known, hint = ", ".join(options) or "none", did_you_mean(name, options)
            raise InputError(f"method {method.name!r} has no setting {name!r}{hint}; expected {known}")
    made = method(**settings)
    values = [(name, type(options[name].default)(getattr(made, name))) for name in options]  # 2 is 2.0
    return tuple((name, value) for name, value in values if value != options[name].default)


def _known(name: str, values: dict[str, Any], key: str) -> Any:
    if name not in values:
        known = ", ".join(values) or "none defined"
        hint = did_you_mean(name, values)
        raise InputError(f"{key} is {name!r}, which is not defined{hint}; expected {known}")
    return values[name]
