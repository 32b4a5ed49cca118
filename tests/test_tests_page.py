"""tests/README.md names tests that exist, and every kind of file and promise in it has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS / "README.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows_of(heading: str) -> list[str]:
    """The rows of the table below a heading, without its title row and the line below that."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


KINDS = rows_of("Kinds of files, and the tests that hold them")
PROMISES = rows_of("Each promise of the README, and the test that fails without it")


def test_no_table_is_empty() -> None:
    assert len(KINDS) >= 45 and len(PROMISES) >= 83


@pytest.mark.parametrize("row", [*KINDS, *PROMISES])
def test_the_named_tests_exist(row: str) -> None:
    named = NAMED.findall(row.rstrip("| ").rpartition("|")[2])
    assert named, "the row names no test"
    for file, name in named:
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{file} has no test {name}"
