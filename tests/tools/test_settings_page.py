"""docs/settings.md is what its script writes, holds every key, and needs no heavy library."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from lora_med import Settings
from tools.settings_page import PAGE, describe_type, make_page

TEXT = PAGE.read_text(encoding="utf-8")


def rows() -> dict[str, list[str]]:
    """`section.key` -> the cells type, default and meaning, read from the page.

    A key of an entry of a list is `section[].key`, and one of a section that may be left out `section?.key`.
    """
    found: dict[str, list[str]] = {}
    section = ""
    for line in TEXT.splitlines():
        if line.startswith("## "):
            section = "" if line == "## At the top" else line.removeprefix("## ") + "."
        elif line.startswith("### Each entry of "):
            section = line.removeprefix("### Each entry of ") + "[]."
        elif line.startswith("### "):
            section = line.removeprefix("### ") + "?."
        elif line.startswith("| `"):
            key, *cells = (cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|"))
            found[section + key.strip("`")] = cells
    return found


def test_the_committed_page_is_what_the_script_writes() -> None:
    assert make_page(Settings.model_json_schema()) == TEXT, "run `make settings-page`"


def test_every_key_is_on_the_page_with_the_default_that_a_run_gets() -> None:
    values = Settings().model_dump(mode="json")
    flat = {key: value for key, value in values.items() if not isinstance(value, dict)}
    for section in values.keys() - flat.keys():
        flat |= {f"{section}.{key}": value for key, value in values[section].items()}
    shown = {key: cells for key, cells in rows().items() if "[]" not in key and "?" not in key}
    assert shown.keys() == flat.keys()
    assert {key: json.loads(cells[1].strip("`")) for key, cells in shown.items()} == flat
    assert all(cells[2] for cells in shown.values())


def test_a_source_of_a_mixture_and_privacy_show_which_keys_they_need() -> None:
    needed = {key for key, cells in rows().items() if cells[1] == "required"}
    assert needed == {"data.mix[].source", "data.mix[].paths", "train.privacy?.epsilon"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1}, "whole number, at least 1"),
        ({"type": "number", "exclusiveMinimum": 0.0, "exclusiveMaximum": 1.0}, "number, above 0 and below 1"),
        ({"type": "string", "pattern": "^a$"}, "text that matches `^a$`"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or `null`"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "whole number, at least 1, or `null`"),
        ({"enum": ["nf4", "fp4"], "type": "string"}, "one of `nf4`, `fp4`"),
        ({"type": "array", "items": {"type": "string"}}, "list of texts"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "mapping of names to whole number"),
        ({"type": "object", "additionalProperties": True}, "mapping"),
    ],
)
def test_a_type_is_named_in_words(schema: dict[str, Any], words: str) -> None:
    assert describe_type(schema, {}) == words


def test_the_script_loads_no_training_library() -> None:
    code = (
        "import sys, lora_med, tools.settings_page as page; page.make_page(lora_med.Settings.model_json_schema());"
        "print([name for name in ('torch', 'transformers', 'peft', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PAGE.parents[1])
    assert done.stdout.strip() == "[]"
