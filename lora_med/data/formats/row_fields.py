"""Checked fields of a row, with a clear message for each fault; every source that reads rows uses them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lora_med.data.formats.containers.line_ends import with_one_line_end
from lora_med.data.formats.tables import RowOutcome, TableRow, bad, is_encodable, rows
from lora_med.data.outcome import Again, Drop, Input, Outcome, TableFormat, input_names
from lora_med.data.record import Record


class Wrong(Exception):
    """A value that breaks the format; the message says what was expected and never quotes the value."""


class Empty(Exception):
    """An item that lacks, by the data set's design, the field that is needed; the message is the drop's reason."""


def text_of(values: Mapping[str, Any], field: str) -> str:
    """The text in `field`.

    Raises:
        Wrong: there is none, it is not a text, or it is blank.
    """
    value = values.get(field)
    if not isinstance(value, str) or not is_encodable(value):
        raise Wrong(f"{field}: expected a text, got {'nothing' if value is None else type(value).__name__}")
    if not value.strip():
        raise Wrong(f"{field}: expected a text, it is empty")
    return value


def optional_text_of(values: Mapping[str, Any], field: str) -> str:
    """The text in `field`, or an empty text."""
    value = values.get(field)
    if value is not None and (not isinstance(value, str) or not is_encodable(value)):
        raise Wrong(f"{field}: expected a text or nothing, got {type(value).__name__}")
    return value or ""


def identifier_of(values: Mapping[str, Any], field: str) -> str:
    """The identifier in `field`: a text or a whole number, as text.

    Raises:
        Wrong: there is none.
    """
    value = values.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(values, field).strip()


def lines(text: str) -> str:
    """The text with one kind of line break, and no blanks at its ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def stem(*texts: str) -> str:
    """A group for items without a document: texts that differ only in case and spacing have the same group."""
    plain = "\x1f".join(" ".join(text.casefold().split()) for text in texts)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def outcomes(
    inputs: Sequence[Input],
    make: Callable[[Mapping[str, Any], str], Record],
    table: TableFormat,
    read_rows: Callable[[Input, TableFormat], Iterable[RowOutcome]] = rows,
) -> Iterable[Outcome]:
    """The outcome of `make(values, position)` for each row; `position` is `file:line`, a name for items without one.

    `table` says how the files are written. If `make` raises Wrong, the row is bad, with file and line; if it raises
    Empty, it is dropped for that reason.
    """
    names = input_names(inputs)

    def again() -> Iterator[Outcome]:
        for item in inputs:
            for row in read_rows(item, table):
                yield _outcome(row, make, f"{names[item]}:{row.number}") if isinstance(row, TableRow) else row

    return Again(again)


def _outcome(row: TableRow, make: Callable[[Mapping[str, Any], str], Record], position: str) -> Outcome:
    try:
        return with_one_line_end(make(row.values, position))
    except Wrong as wrong:
        return bad("bad", str(wrong), row.where)
    except Empty as empty:
        return Drop(str(empty))
