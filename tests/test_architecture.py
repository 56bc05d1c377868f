"""Imports run one way, never in a circle; see docs/architecture.md."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
GROUND = {
    *("errors", "files", "distributed", "commands", "processes", "strict_json", "classes", "metrics"),
    "__init__",
}
# What a folder may import besides itself and the ground floor
BELOW = {
    "raw": set(),
    "sparse": set(),
    "synthetic": {"raw"},
    "scenes": {"raw"},
    "protocols": {"scenes"},
    "network": {"sparse"},
    "methods": {"network", "protocols", "scenes", "sparse"},
}
BELOW["training"] = {*BELOW, "methods"} - {"training"}
BELOW["records"] = {*BELOW} - {"records"}
BELOW["viewer"] = {*BELOW} - {"viewer"}
BELOW["leaderboard"] = {*BELOW} - {"leaderboard"}


def imports():
    """(module, imported module), both dotted, for every import anywhere in the package."""
    for path in sorted((ROOT / "scannet_css").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: a relative import"
                for alias in node.names:
                    yield module, f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield module, alias.name


def folder_of(module):
    """The folder below scannet_css, or the file on the ground floor."""
    return module.split(".")[1] if "." in module else "__init__"


def test_no_arrow_leads_upwards():
    found = {(a, b) for a, b in imports() if b.split(".")[0] in ("scannet_css", "baselines", "benchmarks")}
    assert len(found) > 300
    for module, imported in sorted(found):
        own, other = folder_of(module), folder_of(imported)
        assert imported.startswith("scannet_css"), f"{module} imports {imported}"
        allowed = GROUND | ({own} | BELOW[own] if own in BELOW else set())
        assert other in allowed or imported == "scannet_css.__version__", f"{module} imports {imported}"


def test_no_circle_of_modules():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "scannet_css").rglob("*.py")
    }
    graph = {name: set() for name in modules}
    for module, imported in imports():
        for name in (imported, imported.rpartition(".")[0]):
            if name in modules and name != module:
                graph[module].add(name)
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert order.index("scannet_css.errors") < order.index("scannet_css.training.run")


def test_no_two_files_of_one_name():
    names = [path.name for path in (ROOT / "scannet_css").rglob("*.py") if path.name != "__init__.py"]
    assert len(names) == len(set(names)) > 80
