"""Settings beside each other: those of one adapter or run, or those in which two differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABSENT = "—"


def compared_settings(first: Mapping[str, Any], second: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Name and both values of each setting; of two, only those that differ."""
    one, other = flat(first), flat(second or {})
    return [
        (name, one.get(name, ABSENT), other.get(name, ABSENT))
        for name in sorted({*one, *other})
        if second is None or one.get(name) != other.get(name)
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as `section.key` -> text."""
    pairs: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        pairs |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: str(value)}
    return pairs
