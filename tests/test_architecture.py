"""The house as design and docs/architecture.md say: which way imports run, and how large things are."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "scannet_css"
FLOORS = (  # a module imports from its own floor and from those before it
    (
        *("errors", "files", "distributed", "processes", "strict_json", "options", "commands", "classes"),
        *("metrics",),
    ),
    ("raw", "synthetic"),
    ("scenes",),
    ("protocols",),
    ("sparse",),
    ("network",),
    ("methods",),
    ("training", "records", "leaderboard", "viewer"),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
COMMANDS = ("benchmarks", "tools")
CODE = ("scannet_css", "baselines", *COMMANDS)
MOST_FILES, MOST_LINES = 15, 45
KERNELS = PACKAGE / "sparse" / "engines" / "triton_kernels.py"  # a kernel cannot call out cheaply


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))}


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_of(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """(module, names) of every import that is executed, wherever it stands."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((one.name, []) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            yield node.module, [one.name for one in node.names]
        elif not is_for_types(node):
            yield from imports_of(node)


def imported(path: Path) -> set[str]:
    """The modules of this repository that a file imports."""
    found = set()
    for module, names in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
        inner = {f"{module}.{name}" for name in names} & MODULES.keys()
        found |= inner or ({module} & MODULES.keys())
    return found


IMPORTS = {module: imported(path) for module, path in MODULES.items()}


def test_the_modules_are_found():
    assert len(MODULES) > 150 and "scannet_css.metrics" in IMPORTS["scannet_css.records.record"]
    floors = {module.split(".")[1] for module in MODULES if module.startswith("scannet_css.")}
    assert floors == FLOOR.keys()


def test_no_module_imports_itself_by_way_of_others():
    done, cycles = set(), []

    def visit(module: str, above: tuple[str, ...]) -> None:
        if module in above:
            cycles.append(" -> ".join((*above[above.index(module) :], module)))
        elif module not in done:
            for other in sorted(IMPORTS[module]):
                visit(other, (*above, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())
    assert cycles == []


def test_imports_run_one_way():
    wrong = []
    for module, others in IMPORTS.items():
        top, *rest = module.split(".")
        for other in others:
            place, *inner = other.split(".")
            if top == "scannet_css" and rest:
                is_wrong = place != "scannet_css" or (inner and FLOOR[inner[0]] > FLOOR[rest[0]])
            else:
                is_wrong = top == "baselines" and place in COMMANDS
            if is_wrong:
                wrong.append(f"{module} imports {other}")
    assert wrong == []


def test_nothing_imports_a_command():
    """A command is a file directly in benchmarks/ or tools/; the folders beside it hold what it needs."""
    commands = {path.stem for folder in COMMANDS for path in (ROOT / folder).glob("*.py")}
    places = [*MODULES.values(), *(ROOT / "docs").rglob("*.py")]
    wrong = []
    for path in places:
        for module, names in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
            top, *rest = module.split(".")
            if top in commands or (top in COMMANDS and {*rest[:1], *([] if rest else names)} & commands):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_no_folder_is_crowded():
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    counts = Counter(path.parent.relative_to(ROOT) for path in files)
    assert {str(folder): count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_no_two_files_have_one_name():
    counts = Counter(path.name for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    assert {name: count for name, count in counts.items() if count > 1} == {}


@pytest.mark.parametrize("folder", CODE)
def test_no_function_is_long(folder):
    long = []
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and path != KERNELS:
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_LINES:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert long == []
