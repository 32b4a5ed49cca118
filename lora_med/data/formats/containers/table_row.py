"""TableRow, what every container gives; what refuses a row or a file; and the limits that a sound file keeps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.data.outcome import Drop, PartDrop
from lora_med.errors import DataError

SKIP = "fix the line, or set data.skip_bad=true (--skip-bad)"
LONGEST_LINE = LONGEST_CELL = 1 << 25  # characters; a longer one means a damaged file or a decompression bomb
LONGEST_FILE = 1 << 29  # bytes of what is held complete: one JSON value, an unpacked workbook
# What looks like a column's name, three words at most; anything else may be the text of a file without a header.
NAME = re.compile(r"(?=.{1,40}\Z)#?[^\W\d][\w.:/#()%-]*(?: [\w.:/#()%-]+){0,2}")
MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: `where` for messages (file:line), `number` for identifiers, and its values by column."""

    where: str
    number: int
    values: dict[str, Any]


RowOutcome = TableRow | Drop | PartDrop


def bad(reason: str, what: str, where: str, fix: str = SKIP) -> Drop:
    """A drop with an error: it stops the run unless bad items are skipped."""
    return Drop(reason, DataError(what, where=where, fix=fix))


def is_encodable(text: str) -> bool:
    """Whether a text can be encoded as UTF-8 (half a surrogate pair cannot)."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def column_names(names: Iterable[str]) -> str:
    """Column names for a message: `text, label`. One that may be content, in a file without a header, is counted."""
    every = [name for name in names if name]
    short = [name for name in every if NAME.fullmatch(name)][:MOST_NAMED]
    more = len(every) - len(short)
    return ", ".join([*short, f"{more} more"] if short and more else short or [f"{more} whose names may be texts"])


def first_repeated(names: Iterable[str]) -> list[str]:
    """The first name that occurs again, alone; an empty list if none does."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return [name]
        seen.add(name)
    return []


def holds_nul(value: Any) -> bool:
    """Whether a NUL character is in a text, or in any text or key of nested values, however deep."""
    pending = [value]
    while pending:
        inner = pending.pop()
        if isinstance(inner, str):
            if "\0" in inner:
                return True
        elif isinstance(inner, Mapping):
            pending += [*inner, *inner.values()]
        elif isinstance(inner, list | tuple):
            pending += inner
    return False


def without_nul(row: RowOutcome) -> RowOutcome:
    """The row, or a drop that names the column in which a NUL character is."""
    if not isinstance(row, TableRow) or not holds_nul(row.values):
        return row
    names = [name for name, value in row.values.items() if "\0" not in name and holds_nul(value)]
    what = (
        f"column {column_names(names[:1])!r} holds a NUL character (U+0000)" if names else "a column's name holds NUL"
    )
    return bad("nul_character", what, row.where, "replace it in the file, or set data.skip_bad=true (--skip-bad)")


def not_stated(name: str, path: Path, formats: str) -> str:
    """What is wrong where a setting does not concern a file's format."""
    return f"data.{name} is for {formats}, and {path.name} is none"
