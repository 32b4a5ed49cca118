"""Texts and classified texts: a text with its title, or a text with one of the classes of a label column."""

from __future__ import annotations

from collections.abc import Sequence

from lora_med.data.record import Passage, Question
from lora_med.data.shapes.columns.cells import checked_text, parsed
from lora_med.data.shapes.columns.row_columns import Row
from lora_med.data.shapes.row_error import RowError

MOST_LABELS = 50


def passage(row: Row) -> Passage:
    """Running text."""
    text = row.text("text")
    return Passage(row.uid(), row.group(text), "custom", text, row.optional("title"))


def label_of(row: Row) -> str | None:
    """The class of a row, as text; None for none. A list of one class is that class.

    Raises:
        RowError: several classes, or a value that names none.
    """
    value, name = parsed(row.get("label")), row.called("label")
    if isinstance(value, list):
        if len(value) > 1:
            raise RowError("bad_type", f"{name}: expected one class, got a list of {len(value)}")
        value = value[0] if value else None
    if value is None or value == "":
        return None
    if isinstance(value, list | dict | float):
        raise RowError("bad_type", f"{name}: expected a class, got {type(value).__name__}")
    return checked_text(str(value), name).strip()


def labeled(row: Row, classes: Sequence[str]) -> Question:
    """A text and its class, the classes as options."""
    text, label, name = row.text("text"), label_of(row), row.called("label")
    if label is None:
        raise RowError("bad_type", f"{name}: expected a class, got nothing")
    if label not in classes:
        raise RowError("bad_type", f"{name}: expected one of the {len(classes)} classes of data.labels")
    return Question(row.uid(), row.group(text), "custom", text, label, options=tuple(classes))
