"""The values of cells, and the names of columns: what is blank, what a cell holds in JSON, what a message may show."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable

from lora_med.data.formats.tables import is_encodable
from lora_med.data.shapes.row_error import RowError

MOST_NAMED, LONGEST_NAME = 20, 40
MOST_DEPTH = 8  # of nested values that are looked into
LONGEST_LITERAL = 1 << 20  # characters of a cell that Python's parser reads
HEADER_WORDS, ROW_WORDS = 6, 3


def spelling(name: str) -> str:
    """A column's name without case, blanks and signs: `Correct Answer` and `correct_answer` give `correctanswer`."""
    return re.sub(r"[^a-z0-9]+", "", name.casefold())


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and value != value)


def is_blank(value: object, depth: int = 0) -> bool:
    """Whether a value holds no content: missing, a blank text, an empty list or object, a list of such."""
    if is_missing(value):
        return True
    if isinstance(value, str):
        return not value.strip()
    inner = list(value.values()) if isinstance(value, dict) else value
    return isinstance(inner, list) and depth < MOST_DEPTH and all(is_blank(each, depth + 1) for each in inner)


def listed(names: Iterable[str], words: int = HEADER_WORDS) -> str:
    """Column names for a message. A name as long as a text may be one, and is only counted."""
    every = list(names)
    short = [name for name in every if len(name) <= LONGEST_NAME and len(name.split()) <= words][:MOST_NAMED]
    more = len(every) - len(short)
    return ", ".join(short + ([f"{more} more" if short else f"{more} with long names"] if more else [])) or "none"


def parsed(value: object) -> object:
    """The list or object that a text cell holds in JSON or as Python prints it, else the value itself."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    if len(value) > LONGEST_LITERAL:
        return value
    try:
        literal = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return value
    return literal if isinstance(literal, list | dict) else value


def checked_text(value: object, name: str, *, empty: bool = False) -> str:
    """`value` as a text; `name` says where it is.

    Raises:
        RowError: it is neither a text nor a number, has half a surrogate pair, or is blank although `empty` is false.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and not is_missing(value):
        value = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if not isinstance(value, str):
        raise RowError("bad_type", f"{name}: expected a text, got {_kind(value)}")
    if not is_encodable(value):
        raise RowError("bad_utf8", f"{name}: half a surrogate pair is not a character")
    if not empty and not value.strip():
        raise RowError("empty_text", f"{name}: expected a text, it is empty")
    return value


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return f"dict with the keys {listed(map(str, value), ROW_WORDS)}"
    if isinstance(value, bool):
        return "bool: write the words that are to be trained, such as yes and no"
    return "nothing" if value is None else type(value).__name__
