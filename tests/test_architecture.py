"""The house of docs/decisions/0001-layers.md as a dict: the test is the diagram."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lora_med"
LAYERS = {
    "cli": 5,
    "training": 4,
    "evaluation": 4,
    "merge": 4,
    "serving": 4,
    "audit": 4,
    "prompts": 3,
    "adapters": 3,
    "data": 2,
    "models": 2,
    "metrics": 2,
    "config": 1,
    "run": 1,
    "errors": 0,
    "files": 0,
}
FILES_MAY_USE = {"errors"}  # the one step inside a layer: files raises errors
DOOR = {"__init__", "__main__"}
MOST_LINES, MOST_FUNCTION_LINES = 300, 60
MODULES = sorted(PACKAGE.rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("*.py"))
NAMED = {str(path.relative_to(ROOT)): path for path in MODULES + RECIPES}


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
        allowed = there == here or LAYERS[there] < LAYERS[here] or (here == "files" and there in FILES_MAY_USE)
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


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
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
