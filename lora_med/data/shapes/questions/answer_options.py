"""The options of a question, however its row holds them: a list, a mapping, objects, columns, with their keys.

Options that are null are none, as where Arrow fills rows of fewer options. A number counts all positions, null too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.data.shapes.columns.cells import checked_text, is_blank, is_missing, parsed, spelling
from lora_med.data.shapes.columns.row_columns import Layout, Row
from lora_med.data.shapes.row_error import RowError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KEY_NAMES = ("letter", "key", "label", "id", "option")
TEXT_NAMES = ("content", "text", "value", "answer")
# `A`, `opa`, `option_a`, `option1`, `choice_1`, `ending0`: the spellings of columns that hold one option each.
COLUMN = re.compile(r"(?P<stem>|op|opt|option|options|choice|choices|ending|answeroption)(?P<key>[a-j]|\d{1,2})")


@dataclass(frozen=True)
class Options:
    """The options of a question: `keys` name them, `positions` are their numbers from 0 in the row."""

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    positions: tuple[int, ...]
    numbered: bool = False  # by keys that are numbers of the file's own

    def __len__(self) -> int:
        return len(self.texts)


NO_OPTIONS = Options((), (), ())


def read_options(row: Row) -> Options:
    """The options of a row; none where it has none.

    Raises:
        RowError: a column of options that is neither a list nor a mapping, or an option that is no text.
    """
    if row.has("options"):
        value, name = parsed(row.get("options")), row.called("options")
        if value == "":
            return NO_OPTIONS
        keys, values = _entries(value, name)
        return _options(keys, values, name)
    columns = option_columns(row.layout)
    if not columns or all(is_blank(row.values.get(column)) for column in columns.values()):
        if row.has_column("options"):
            row.get("options")
        return NO_OPTIONS
    for column in columns.values():
        row.used[column] = "options"
    values = [None if is_blank(row.values[column]) else row.values[column] for column in columns.values()]
    return _options(list(columns), values, f"the columns {', '.join(columns.values())}")


def option_columns(layout: Layout) -> dict[str, str]:
    """Key -> column, where a row has a column for each option: two or more, from A, 0 or 1 on."""
    sets: dict[str, dict[str, str]] = {}
    for spelled, columns in layout.by_spelling().items():
        match = COLUMN.fullmatch(spelled)
        if match and len(columns) == 1:
            sets.setdefault(match["stem"], {})[match["key"].upper()] = columns[0]
    for found in sets.values():
        ordered = sorted(found, key=lambda key: (len(key), key))
        for first in ("A", "0", "1"):
            run = list(LETTERS) if first == "A" else [str(int(first) + number) for number in range(len(ordered))]
            if len(ordered) > 1 and ordered == run[: len(ordered)]:
                return {key: found[key] for key in ordered}
    return {}


def _entries(value: object, name: str) -> tuple[list[str], list[Any]]:
    """The keys and the texts of a value that holds options."""
    if isinstance(value, Mapping):
        lists = [(key, inner) for key, inner in value.items() if isinstance(inner, list)]
        if len(lists) == len(value) == 2 and len(lists[0][1]) == len(lists[1][1]):  # {"text": [...], "label": [...]}
            columns = dict(lists)
            texts = next((columns[text] for text in TEXT_NAMES if text in columns), None)
            keys = next((columns[key] for key in KEY_NAMES if key in columns), None)
            if texts is not None and keys is not None:
                return [str(key) for key in keys], list(texts)
        return [str(key) for key in value], [None if is_blank(inner) else inner for inner in value.values()]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RowError("bad_type", f"{name}: expected a list or an object of options, got {type(value).__name__}")
    if value and all(isinstance(item, Mapping) for item in value):
        pairs = [_keyed(item, number, f"{name}, item {number}") for number, item in enumerate(value, 1)]
        return [key for key, _ in pairs], [text for _, text in pairs]
    return [LETTERS[number] if number < len(LETTERS) else f"#{number + 1}" for number in range(len(value))], list(value)


def _keyed(item: Mapping[str, Any], number: int, name: str) -> tuple[str, Any]:
    text = next((item[key] for key in TEXT_NAMES if key in item), None)
    if text is None and len(item) == 1:  # {"A": "..."}
        return next((str(key), inner) for key, inner in item.items())
    if text is None:
        raise RowError("bad_type", f"{name}: expected an object with a key and a text, such as letter and content")
    key = next((item[key] for key in KEY_NAMES if key in item), None)
    return (LETTERS[number - 1] if number <= len(LETTERS) else f"#{number}") if key is None else str(key), text


def _options(keys: Sequence[str], values: Sequence[Any], name: str) -> Options:
    filled = [number for number, value in enumerate(values) if not is_missing(value)]
    texts = tuple(checked_text(values[number], f"{name}, item {number + 1}") for number in filled)
    numbered = all(key.strip().isdecimal() for key in keys)
    return Options(tuple(keys[number].strip() for number in filled), texts, tuple(filled), numbered)


def bare_key(text: str) -> str:
    """A key without the signs around it: `(B)`, `B.`, `option b`, `opb` give `B`."""
    match = COLUMN.fullmatch(spelling(text))
    return match["key"].upper() if match else text.strip().upper()
