"""Cells that hold mentions, as annotation tools write them: lists of lists or of objects, in JSON or as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from lora_med.data.formats.entities.mentions import Mention
from lora_med.data.shapes.columns.cells import parsed
from lora_med.data.shapes.row_error import RowError

STARTS = ("start", "start_offset", "begin", "start_char")
ENDS = ("end", "end_offset", "stop", "end_char")
TYPES = ("type", "label", "labels", "entity_group", "entity_type", "entity", "tag")


def as_list(values: Mapping[str, Any], column: str) -> list[Any]:
    """The list in a column.

    Raises:
        RowError: there is none.
    """
    value = parsed(values.get(column))
    if not isinstance(value, list):
        got = "nothing" if value is None else type(value).__name__
        raise RowError("bad_type", f"column {column!r}: expected a list, got {got}")
    return value


def is_list_of_mentions(value: object) -> bool:
    """Whether a cell holds mentions: lists of start, end and type, or objects with a start and an end."""
    items = parsed(value)
    return isinstance(items, list) and bool(items) and all(map(_is_mention, items))


def _is_mention(item: object) -> bool:
    if isinstance(item, list | tuple):
        return len(item) >= 3 and all(map(is_number, item[:2])) and isinstance(item[2], str)
    return isinstance(item, dict) and (
        "offsets" in item or (any(name in item for name in STARTS) and any(name in item for name in ENDS))
    )


def is_number(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number (true and false are none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def as_mention(item: object, column: str, number: int) -> Mention:
    """The mention that an item of a list states; `number` is its position, from 1.

    Raises:
        RowError: it is no mention.
    """
    name = f"column {column!r}, item {number}"
    if isinstance(item, list | tuple):
        if not _is_mention(item):
            raise RowError("bad_type", f"{name}: expected [start, end, type]")
        return Mention(item[2], ((item[0], item[1]),))
    if not isinstance(item, dict):
        raise RowError("bad_type", f"{name}: expected an object with a start, an end and a type")
    pieces = item["offsets"] if "offsets" in item else [[_first(item, STARTS), _first(item, ENDS)]]
    if not isinstance(pieces, list) or not all(
        isinstance(piece, list | tuple) and len(piece) == 2 and all(map(is_number, piece)) for piece in pieces
    ):
        raise RowError("bad_type", f"{name}: expected the start and the end as whole numbers")
    return Mention(_type_of(item, name), tuple((start, end) for start, end in pieces), _text_of(item))


def _first(item: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)


def _type_of(item: Mapping[str, Any], name: str) -> str:
    value = _first(item, TYPES)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is not None and not isinstance(value, str):
        raise RowError("bad_type", f"{name}: expected one type, a text")
    return value or ""


def _text_of(item: Mapping[str, Any]) -> str | None:
    """The mention's own text: one, or its pieces joined by a blank."""
    value = item.get("text")
    if isinstance(value, list) and value and all(isinstance(piece, str) for piece in value):
        return " ".join(value)
    return value if isinstance(value, str) else None
