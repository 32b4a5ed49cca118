"""value_at(): a value by its column's name, which may be dotted to reach into nested values: `answer.text`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def value_at(values: Mapping[str, Any], name: str) -> Any:
    """The value of the column `name`, or of the nested value that a dotted name means.

    A column that is called `answer.text` itself wins over `text` inside `answer`; so does the longest first part. A
    number counts the items of a list from 0 (`answers.0.text`). Null holds null at any depth.

    Raises:
        KeyError: there is no such column; its argument is the shortest start of the name that is missing.
    """
    if name in values:
        return values[name]
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        column = ".".join(parts[:length])
        if column in values:
            return _inside(values[column], column, parts[length:])
    raise KeyError(parts[0] if len(parts) > 1 else name)


def _inside(value: Any, path: str, parts: list[str]) -> Any:
    for number, part in enumerate(parts):
        path = f"{path}.{part}"
        if value is None:
            return None
        if isinstance(value, Mapping):
            rest = ".".join(parts[number:])
            if rest in value:
                return value[rest]
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise KeyError(path)
    return value
