"""Rows from JSON, whatever the file's name says: lines, an array, one object, or several values one after another.

Lines are streamed. Anything else is read completely, up to a limit. It is lines if the first line, or the second after
a damaged one, is a complete object and another line follows. `json_objects` finds the records of a single object.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from lora_med.data.formats.containers.json_objects import Found, records_of
from lora_med.data.formats.containers.json_text import (
    BLANK,
    BLOCK,
    NUL_ESCAPE,
    RepeatedKeys,
    StrictnessError,
    decoder_of,
    refuse_filler,
    values_in,
)
from lora_med.data.formats.containers.table_row import LONGEST_LINE, SKIP, RowOutcome, TableRow, bad, without_nul
from lora_med.data.formats.containers.text_encoding import TextFile
from lora_med.data.outcome import TableFormat
from lora_med.errors import DataError

MOST_EMPTY_LINES = 1 << 21
KINDS = {list: "an array", str: "a text", bool: "true or false", int: "a number", float: "a number"}


def json_rows(stream: BinaryIO, path: Path, table: TableFormat) -> Iterator[RowOutcome]:
    """The rows of a JSON file. `table.sheet` names the list to read of an object that holds several.

    Raises:
        SettingsError: no such encoding, or no such list.
        DataError: the file as a whole is no JSON, or holds several lists.
    """
    text = TextFile(stream, path, table.encoding)
    first_lines = _first_lines(text, path)
    full = [line for line in first_lines if line.strip()]
    if table.sheet is None and len(full) == 2 and _are_lines(*full):
        return _line_rows(text, first_lines, path)
    return _complete_rows(text, first_lines, path, table.sheet)


def _first_lines(text: TextFile, path: Path) -> list[str]:
    """The lines up to the second that is not empty, or to a piece of one that is too long."""
    lines: list[str] = []
    full = 0
    while full < 2 and (line := text.line()):
        lines.append(line)
        full += bool(line.strip())
        if len(line) == LONGEST_LINE:
            break
        _refuse_empty(len(lines), f"{path}:{len(lines)}")
    return lines


def _refuse_empty(count: int, where: str) -> None:
    if count > MOST_EMPTY_LINES:
        raise DataError(f"more than {MOST_EMPTY_LINES:,} empty lines", where=where, fix="restore the file")


def _are_lines(first: str, second: str) -> bool:
    if len(first) == LONGEST_LINE or first.lstrip()[0] == "[":
        return False
    if second.strip() in ("{", "["):  # one record over several lines begins
        return False
    rest = _after_object(first)
    return rest == "" or (rest != "{" and _after_object(second) == "")


def _after_object(line: str) -> str | None:
    """The first character after the object with which a line begins, "" if none follows; None without an object."""
    try:
        value, end = json.JSONDecoder().raw_decode(line.lstrip(BLANK))
    except (ValueError, RecursionError):
        return None
    return line.lstrip(BLANK)[end:].strip()[:1] if isinstance(value, dict) else None


def _line_rows(text: TextFile, first: Iterable[str], path: Path) -> Iterator[RowOutcome]:
    number, empty, continues = 0, 0, False
    repeated = RepeatedKeys()
    decoder = decoder_of(repeated.object_of)
    for line in chain(first, iter(text.line, "")):
        if continues:  # the rest of a line that was too long
            continues = len(line) == LONGEST_LINE and line[-1] not in "\r\n"
            continue
        number += 1
        where = f"{path}:{number}"
        if len(line) == LONGEST_LINE and line[-1] not in "\r\n":
            continues = True
            yield bad("bad_json", f"the line is longer than {LONGEST_LINE:,} characters", where)
        elif line.strip():
            empty = 0
            yield _line_row(text, line, where, number, decoder)
            yield from repeated.take(where)
        else:
            empty += 1
            _refuse_empty(empty, where)


def _line_row(text: TextFile, line: str, where: str, number: int, decoder: json.JSONDecoder) -> RowOutcome:
    if not text.is_sound(line):
        return text.fault(line, where)
    try:
        row = as_row(decoder.decode(line.lstrip(BLANK)), where, number)
        return without_nul(row) if NUL_ESCAPE in line else row
    except StrictnessError as error:
        return bad("bad_json", str(error), where)
    except json.JSONDecodeError as error:
        hint, fix = _hint(line.lstrip(BLANK), error)
        return bad("bad_json", "the line is not one JSON object" + hint, where, fix)
    except (ValueError, RecursionError):
        return bad("bad_json", "the line is not one JSON object", where)


def _hint(line: str, error: json.JSONDecodeError) -> tuple[str, str]:
    """What is known of a line that is no JSON, and how it is fixed."""
    if "\0" in line:
        return "; it holds a NUL character (U+0000)", SKIP
    if error.msg == "Extra data" and line[error.pos :].strip() == ",":
        return "; a comma follows it", "take the commas at the ends of lines away, or put brackets around all records"
    return ("; another value follows it", "write one value a line") if error.msg == "Extra data" else ("", SKIP)


def as_row(value: object, where: str, number: int) -> RowOutcome:
    """A JSON value as a row; one that is no object is a drop. A first one that is none is a fault of the whole file."""
    if not isinstance(value, dict):
        kind = "null" if value is None else KINDS[type(value)]
        fix = "write each record as an object, with a name for each value" if number == 1 else SKIP
        return bad("bad_json", f"expected a JSON object, got {kind}", where, fix)
    return TableRow(where, number, value)


def _complete_rows(text: TextFile, first: list[str], path: Path, sheet: str | None) -> Iterator[RowOutcome]:
    content = "".join([*first, *_rest(text, path)])
    if not text.is_sound(content):
        lines = content.split("\n")
        number = next(number for number, line in enumerate(lines, 1) if not text.is_sound(line))
        yield text.fault(lines[number - 1], f"{path}:{number}")
        return
    found = _records(content, path, sheet)
    yield from map(without_nul, found) if NUL_ESCAPE in content else found


def _records(content: str, path: Path, sheet: str | None) -> Iterator[RowOutcome]:
    number = 0
    repeated = RepeatedKeys()
    for line, value, is_last in values_in(content, str(path), decoder_of(repeated.object_of)):
        yield from repeated.take(f"{path}:{line}")
        if number == 0 and is_last:
            yield from _rows_of(records_of(value, path, line, sheet, is_line=_is_line(path, content)), path, line)
            return
        for inner in value if isinstance(value, list) else [value]:
            number += 1
            yield as_row(inner, f"{path}:{line}, item {number}", number)


def _is_line(path: Path, content: str) -> bool:
    """Whether the only object of a file is the only line of JSON lines."""
    by_lines = path.name.lower().removesuffix(".gz").endswith(("jsonl", "ndjson"))
    return by_lines and "\n" not in content.strip()


def _rows_of(found: Found | list[Any], path: Path, line: int) -> Iterator[RowOutcome]:
    if isinstance(found, list):
        for number, value in enumerate(found, 1):
            yield as_row(value, f"{path}, item {number}", number)
    elif found.record is not None:
        yield as_row(found.record, f"{path}:{line}", 1)
    else:
        for number, (name, value) in enumerate(found.records, 1):
            yield as_row(value, f"{path}, {name}", number)


def _rest(text: TextFile, path: Path) -> Iterator[str]:
    size = 0
    while block := text.block(BLOCK):
        size += BLOCK
        refuse_filler(len(block) == BLOCK and not block.strip(block[0]), size, path)
        yield block
