"""The lazy names and their typed twins are the same, and each of them opens."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import lora_med

DOOR = Path(lora_med.__file__)


def typed_twins() -> dict[str, str]:
    found = {}
    for node in ast.walk(ast.parse(DOOR.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lora_med."):
            found |= {alias.name: node.module for alias in node.names}
    return found


def test_every_lazy_name_has_its_typed_twin() -> None:
    assert typed_twins() == lora_med._HOME


def test_the_table_is_in_order() -> None:
    assert list(lora_med._HOME) == sorted(lora_med._HOME)


@pytest.mark.parametrize("name", sorted(lora_med._HOME))
def test_the_name_is_where_the_door_says(name: str) -> None:
    value = getattr(lora_med, name)
    assert value is getattr(importlib.import_module(lora_med._HOME[name]), name)
    assert value.__doc__, f"{name} has no docstring"


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(AttributeError, match="open_data"):
        lora_med.opne_data  # noqa: B018
