"""One run of a suite, and the data set that it is on; suite_file.py reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scannet_css.methods.method import Method, find_method


@dataclass(frozen=True)
class Make:
    """How a synthetic set is made: the arguments of make_synthetic_set."""

    train: int
    val: int
    seed: int
    vertices: int
    voxel_size: float  # metres


@dataclass(frozen=True)
class DataSet:
    """A folder of prepared scenes, and how to make it where it is synthetic."""

    name: str
    folder: Path
    make: Make | None

    @property
    def prepared(self) -> Path:
        """The folder of prepared scenes."""
        return self.folder / "prepared" if self.make else self.folder

    @property
    def is_there(self) -> bool:
        return (self.prepared / "manifest.json").exists()


@dataclass(frozen=True)
class Run:
    """One run of the suite: what is given to benchmarks/run.py, and where its folder is below all runs."""

    block: str
    data: DataSet
    protocol: str  # as given to run.py: a name, or a path
    protocol_name: str
    method: str  # as given to run.py: a name, or path/to/file.py:Class
    method_name: str
    settings: tuple[tuple[str, Any], ...]  # that differ from the method's defaults
    own_recipe: tuple[tuple[str, Any], ...]  # of the method's, OWN_RECIPE
    recipe_name: str
    recipe: tuple[tuple[str, Any], ...]
    seed: int

    @property
    def label(self) -> str:
        """The method with the settings that are not its defaults, and its own recipe."""
        named = (*self.settings, *self.own_recipe)
        return self.method_name + "".join(f",{_option(name)}={value}" for name, value in named)

    @property
    def name(self) -> str:
        return f"{self.block}/{self.protocol_name.split('/')[-1]}/{self.label}-seed{self.seed}"

    @property
    def identity(self) -> tuple:
        """The same for the same run in two blocks."""
        return self.data.name, self.protocol_name, self.label, self.recipe_name, self.seed

    def folder(self, runs: Path, network: str) -> Path:
        """`network`: that of the whole recipe."""
        recipe = f"-{self.recipe_name}" if self.recipe_name else ""
        place = runs / self.data.name / self.protocol_name.replace("/", "-") / self.label
        return place / f"{network}{recipe}-seed{self.seed}"

    def make_method(self) -> Method:
        return find_method(self.method)(**dict(self.settings))

    def arguments(self) -> list[str]:
        """The options of benchmarks/run.py."""
        options = ["--method", self.method, "--protocol", self.protocol, "--seed", str(self.seed)]
        for name, value in (*{**dict(self.recipe), **dict(self.own_recipe)}.items(), *self.settings):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            options += [f"--{_option(name)}", text]
        return [*options, "--data", str(self.data.prepared)]


def _option(name: str) -> str:
    return name.replace("_", "-")
