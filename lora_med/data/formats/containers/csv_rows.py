"""Rows from CSV and TSV: quoted cells of several lines, any form of line end, any delimiter, comments above the header.

A fault before the first good row is one of the whole file, such as another delimiter, and no advice to skip is given.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lora_med.data.formats.containers.csv_layout import Layout, find_layout, trimmed
from lora_med.data.formats.containers.table_row import (
    LONGEST_CELL,
    SKIP,
    RowOutcome,
    TableRow,
    bad,
    column_names,
    first_repeated,
)
from lora_med.data.formats.containers.text_encoding import TextFile
from lora_med.data.outcome import TableFormat
from lora_med.errors import DataError

NO_NAME = "column {} (no name)"
LAYOUT = (
    "write a cell for each column, quote those that hold the delimiter, or name another in data.delimiter (--delimiter)"
)
MOST_EMPTY = MOST_CELLS = 1 << 21  # more lines than a spreadsheet has
logger = logging.getLogger(__name__)


def csv_rows(
    stream: BinaryIO, path: Path, table: TableFormat, default: str, names: Sequence[str] | None
) -> Iterator[RowOutcome]:
    """The rows of a CSV. `default` is the delimiter where the header shows none; `names` are the columns of a file
    without a header, whose first row is skipped if it repeats them.

    Raises:
        SettingsError: no such encoding or delimiter.
        DataError: the file has no readable header, or its layout can be read in two ways.
    """
    csv.field_size_limit(LONGEST_CELL)
    text = TextFile(stream, path, table.encoding)
    layout = find_layout(text, path, default, table.delimiter, names)
    if layout.skipped:
        logger.info("%s: the %d lines above the header are not read", path.name, layout.skipped)
    reader = csv.reader(_lines(text, layout, path), delimiter=layout.delimiter, strict=True)
    header = None if names is None else list(names)
    is_first, has_row = names is not None, False
    while True:
        line = layout.skipped + reader.line_num + 1
        where = f"{path}:{line}"
        cells = ()  # not the last row's: one may be as large as all that is read at once
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            if header is None:
                raise DataError("the header is not CSV: a quoted cell is not closed", where=where, fix=LAYOUT) from None
            yield bad("bad_csv", _unreadable(layout), where, SKIP if has_row else LAYOUT)
            continue
        if not any(cells):
            continue
        if header is None:
            header = _header(cells, text, where)
        elif not (is_first and [cell.strip().casefold() for cell in cells] == [name.casefold() for name in header]):
            outcome = _row(header, cells, text, where, line, may_skip=has_row)
            has_row = has_row or isinstance(outcome, TableRow)
            yield outcome
        is_first = False


def _lines(text: TextFile, layout: Layout, path: Path) -> Iterator[str]:
    """The lines, as long as they are no bomb of empty ones or of empty cells. None is kept while the next is read.

    Raises:
        DataError: they are.
    """
    empty, number = 0, layout.skipped
    while line := layout.lines.popleft() if layout.lines else text.line():
        number += 1
        empty = 0 if line.strip("\r\n") else empty + 1
        if empty > MOST_EMPTY or (len(line) > MOST_CELLS and line.count(layout.delimiter) > MOST_CELLS):
            what = f"more than {MOST_EMPTY:,} empty lines" if empty else f"a line of more than {MOST_CELLS:,} cells"
            raise DataError(what, where=f"{path}:{number}", fix="restore the file")
        yield line
        line = ""


def _unreadable(layout: Layout) -> str:
    what = "a quoted cell is not closed, or text follows its closing quote"
    return what + ("; in CSV a quote inside a cell is doubled, without a backslash" if layout.has_backslash else "")


def _header(cells: list[str], text: TextFile, where: str) -> list[str]:
    if not all(map(text.is_sound, cells)):
        fault = text.fault("".join(cells), where, "header").error
        raise fault or DataError("the header cannot be read", where=where)
    return header_of(cells, where)


def header_of(cells: Sequence[str], where: str) -> list[str]:
    """The columns' names; a column without one keeps an empty name.

    Raises:
        DataError: two are equal.
    """
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    twice = first_repeated(filter(None, names))
    if twice:
        what = f"two columns have the same name: {column_names(twice)}"
        raise DataError(what, where=where, fix="rename one in the header")
    return names


def _named_values(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """The cells by column. One that holds something in a column without a name is `column 3 (no name)`."""
    return {
        name or NO_NAME.format(number): cell
        for number, (name, cell) in enumerate(zip(header, cells, strict=True), 1)
        if name or cell
    }


def _row(header: list[str], cells: list[str], text: TextFile, where: str, line: int, *, may_skip: bool) -> RowOutcome:
    if not all(map(text.is_sound, cells)):
        return text.fault("\n".join(cells), where, "row")
    fitting = trimmed(cells, len(header))
    if len(fitting) != len(header):
        cell_word = "cell" if len(header) == 1 else "cells"
        what = f"expected {len(header)} {cell_word} ({column_names(header)}), got {len(cells)}"
        if any("\0" in cell for cell in cells):
            return bad("nul_character", f"{what}; the line holds a NUL character (U+0000)", where)
        return bad("bad_csv", what, where, SKIP if may_skip else LAYOUT)
    return TableRow(where, line, _named_values(header, fitting))
