"""with_one_line_end(): a record whose texts end their lines in one form, `\\n`, whatever its file had."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

from lora_med.data.record import Annotated, Record, Section, Span, texts_of

END = re.compile(r"\r+\n|\r")  # CR LF, or CR CR LF, as a file written in text mode twice has it, or CR alone


def with_one_line_end(record: Record) -> Record:
    """The record with CR LF and CR as LF in all its texts; the spans of an annotated text move with their letters."""
    if not any("\r" in text for text in texts_of(record)):
        return record
    if isinstance(record, Annotated):
        return replace(
            record, text=_plain(record.text), spans=tuple(_moved(record.text, span) for span in record.spans)
        )
    names = [field.name for field in fields(record) if field.name not in ("uid", "group", "source", "about")]
    return replace(record, **{name: _plain(getattr(record, name)) for name in names})


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return END.sub("\n", value)
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return replace(value, text=_plain(value.text)) if isinstance(value, Section) else value


def _moved(text: str, span: Span) -> Span:
    start, end = (offset - _removed(text, offset) for offset in (span.start, span.end))
    return Span(start, end, span.type, _plain(text)[start:end])


def _removed(text: str, offset: int) -> int:
    """How many characters before an offset are gone."""
    return sum(min(match.end(), offset) - match.start() - 1 for match in END.finditer(text) if match.start() < offset)
