"""The house of docs/decisions/0001-layers.md as a dict: the test is the diagram."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lora_med"
LAYERS = {
    "cli": 6,
    "workflows": 5,
    "export": 5,
    "serving": 5,
    "review": 5,
    "training": 4,
    "evaluation": 4,
    "merge": 4,
    "audit": 4,
    "prompts": 3,
    "adapters": 3,
    "data": 2,
    "models": 2,
    "metrics": 2,
    "config": 1,
    "run": 1,
    "processes": 1,
    "append_log": 0,
    "audit_trail": 0,
    "errors": 0,
    "files": 0,
    "folders": 0,
    "host_headers": 0,
    "visible": 0,
    "signatures": 0,
}
# The steps inside a layer: folders, logs and signatures write files, and a run is one process of a launch.
WITHIN = {
    "append_log": {"errors", "files"},
    "audit_trail": {"append_log", "errors"},
    "files": {"errors"},
    "folders": {"errors", "files"},
    "signatures": {"errors", "files"},
    "run": {"processes"},
}
DOOR = {"__init__", "__main__"}
MOST_LINES, MOST_FUNCTION_LINES, MOST_MODULES = 300, 60, 12
TABLES = {PACKAGE / "data" / "sources"}  # a folder that is a table: one module a row, however many
MODULES = sorted(PACKAGE.rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
SOURCES = {path.stem for path in (PACKAGE / "data" / "sources").glob("*.py")} - DOOR
NAMED = {str(path.relative_to(ROOT)): path for path in MODULES + RECIPES + TOOLS}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[int, str, int]]:
    """`(line, dotted name, relative level)` of every import, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, node.module or "", node.level))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    here = room(path)
    if here in DOOR:
        return
    assert here in LAYERS, f"{here} has no layer: give it one by decision"
    for line, name, level in imports(path):
        assert level == 0, f"{path}:{line}: relative import"
        if not name.startswith("lora_med"):
            continue
        parts = name.split(".")
        if len(parts) == 1:
            assert here == "cli", f"{path}:{line}: imports the door from inside"  # cli reads the version there
            continue
        there = parts[1]
        allowed = there == here or LAYERS[there] < LAYERS[here] or there in WITHIN.get(here, set())
        assert allowed, f"{path}:{line}: {here} (layer {LAYERS[here]}) imports {there} (layer {LAYERS[there]})"


def test_modules_import_without_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        tops = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        graph[name] = {
            node.module
            for node in tops
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lora_med.")
        }  # type: ignore[misc]
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", NAMED.values(), ids=NAMED.keys())
def test_files_and_functions_fit(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES, f"{path} has {len(text.splitlines())} lines: split it by subject"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{path}:{node.lineno}: {node.name} has {length} lines"


def test_no_folder_holds_more_modules_than_a_reader_can_scan() -> None:
    counts = Counter(path.parent for path in MODULES if path.stem not in DOOR)
    longest = counts.most_common(5)
    print("longest folders:", ", ".join(f"{folder.relative_to(ROOT)} {count}" for folder, count in longest))
    crowded = {str(folder): count for folder, count in counts.items() if count > MOST_MODULES and folder not in TABLES}
    assert not crowded, f"more than {MOST_MODULES} modules: {crowded}; make sub-rooms by subject"


def literals(node: ast.expr) -> set[str]:
    """The texts in a literal: one, or those of a tuple, list or set."""
    members = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return {one.value for one in members if isinstance(one, ast.Constant) and isinstance(one.value, str)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_only_one_source_does_is_in_its_row_of_the_catalog(path: Path) -> None:
    if path.is_relative_to(PACKAGE / "data" / "sources"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            texts = set[str]().union(*map(literals, sides))
            of_source = any(ast.unparse(side).endswith(("source", "source.name")) for side in sides)
            assert not (texts & SOURCES or (texts and of_source)), f"{path}:{node.lineno}: {ast.unparse(node)}"


def test_no_two_modules_have_one_name() -> None:
    names = Counter(path.stem for path in MODULES if path.stem not in DOOR)
    twice = [name for name, count in names.items() if count > 1]
    assert not twice, f"module names that occur twice: {', '.join(twice)}; say in the name what differs"


def test_every_package_says_what_is_inside() -> None:
    for path in MODULES:
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path}: say in two sentences what is inside"


@pytest.mark.parametrize("path", RECIPES + TOOLS, ids=lambda path: path.name)
def test_recipes_use_the_public_door_only(path: Path) -> None:
    for line, name, level in imports(path):
        assert level == 0
        assert not name.startswith("lora_med."), f"{path}:{line}: reaches past the door"


def test_importing_the_package_brings_in_no_heavy_library() -> None:
    code = (
        "import sys, lora_med; print([m for m in ('torch', 'transformers', 'pydantic', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
