"""python -m tools.settings_page [--out docs/settings.md]: every key of the settings as a page of tables.

The page is made from the JSON schema that `lora-med config schema` prints: type, default and description of each key.
`make settings-page` writes it, and a test compares the committed page with it. No library but pydantic is loaded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lora_med

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
NAMES = {"string": "text", "boolean": "true or false", "integer": "whole number", "number": "number", "null": "`null`"}
EMPTY = {"array": [], "object": {}}  # the schema names no default for a list or mapping that starts empty
HEAD = """# Settings

<!-- written by `make settings-page` from lora_med/config/; edit the descriptions there -->

One YAML file holds the settings of a run. On the command line, `section.key=value` replaces a value of the file. The
file replaces the default. An unknown key is an error, and the message names a near one. `lora-med config show` prints
what a run would use. `lora-med config list` names the files that ship. The terms are in the [glossary](glossary.md).
"""


def describe_type(schema: Mapping[str, Any], sections: Mapping[str, Any]) -> str:
    """A JSON schema of one value in words."""
    if "anyOf" in schema:
        choices = [describe_type(choice, sections) for choice in schema["anyOf"]]
        return (", or " if any(", " in choice for choice in choices) else " or ").join(choices)
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return "a group of keys"
    kind = schema.get("type")
    if kind == "array":
        inner = describe_type(schema["items"], sections)
        return "list of " + {"text": "texts", "whole number": "whole numbers", "a group of keys": "groups of keys"}.get(
            inner, inner
        )
    if kind == "object":
        values = schema.get("additionalProperties")
        return "mapping" if not isinstance(values, dict) else f"mapping of names to {describe_type(values, sections)}"
    if kind is None:
        return "any value"
    return NAMES[kind] + _limits(schema)


def _limits(schema: Mapping[str, Any]) -> str:
    """The range of a number or the pattern of a text, with a blank before it; empty where there is none."""
    low, above, high, below = (
        schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    )
    limits = [
        *([f"at least {low:g}"] if low is not None else []),
        *([f"above {above:g}"] if above is not None else []),
        *([f"at most {high:g}"] if high is not None else []),
        *([f"below {below:g}"] if below is not None else []),
        *([f"that matches `{schema['pattern']}`"] if "pattern" in schema else []),
    ]
    return "" if not limits else f" {limits[0]}" if "pattern" in schema else f", {' and '.join(limits)}"


def _default(schema: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    default = schema["default"] if "default" in schema else EMPTY[schema["type"]]
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def _rows(section: Mapping[str, Any], sections: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    for key, schema in section["properties"].items():
        cells = [
            f"`{key}`",
            describe_type(schema, sections),
            _default(schema, key in section.get("required", [])),
            " ".join(schema.get("description", "").split()),
        ]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def make_page(schema: Mapping[str, Any]) -> str:
    """The Markdown page of a settings schema: the keys of the root, then one table for each section."""
    sections = schema["$defs"]
    root = {key: value for key, value in schema["properties"].items() if "$ref" not in value}
    lines = [HEAD, "## At the top", "", *_rows({"properties": root}, sections), ""]
    for name, value in schema["properties"].items():
        if "$ref" not in value:
            continue
        section = sections[value["$ref"].rpartition("/")[2]]
        lines += [f"## {name}", "", *_rows(section, sections), ""]
        for key, inner in section["properties"].items():
            if "$ref" in inner.get("items", {}):
                group = sections[inner["items"]["$ref"].rpartition("/")[2]]
                lines += [f"### Each entry of {name}.{key}", "", *_rows(group, sections), ""]
            for choice in inner.get("anyOf", ()):
                if "$ref" in choice:
                    lines += [
                        f"### {name}.{key}",
                        "",
                        *_rows(sections[choice["$ref"].rpartition("/")[2]], sections),
                        "",
                    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=PAGE)
    out = parser.parse_args().out
    out.write_text(make_page(lora_med.Settings.model_json_schema()), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
