"""Rows from an Excel workbook (.xlsx): the texts that its cells show, of the one sheet with rows or of the one named.

What a sheet shows but a row cannot hold is refused by name: merged cells, a formula without a stored value, a title
above the headings. A cell with an error such as #N/A makes its row a drop. See ECMA-376, part 1, 18.3.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lora_med.config.near_names import unknown
from lora_med.data.formats.containers.cell_text import cell_text
from lora_med.data.formats.containers.csv_rows import NO_NAME, header_of
from lora_med.data.formats.containers.table_row import LONGEST_FILE, RowOutcome, TableRow, bad, column_names
from lora_med.errors import DataError, LoraMedError, SettingsError
from lora_med.files import open_stream

MOST_ROWS = 1 << 20  # of a sheet
BLOCK, OVERLAP = 1 << 20, 1 << 12
MERGED = re.compile(rb'<(?:\w+:)?mergeCell\b[^>]*\bref="([A-Z]+)(\d+):([A-Z]+)(\d+)"')
FORMULA = re.compile(
    rb"<(?:\w+:)?c\b([^>]*)>\s*<(?:\w+:)?f\b(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)\s*"
    rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
REFERENCE = re.compile(rb'\br="([A-Z]+\d+)"')


def workbook_rows(path: Path, name: str | None) -> Iterator[RowOutcome]:
    """The rows of the sheet `name`, or of the only sheet with rows; rows without a value are left out.

    Raises:
        SettingsError: no such sheet.
        DataError: it is no sound workbook, several sheets have rows, or the sheet holds what a row cannot.
    """
    open_stream(path).close()  # names a missing or empty file
    try:
        yield from _rows(path, name)
    except LoraMedError:
        raise
    except Exception as error:  # the library passes on all errors of zip, XML and its own models
        what = "the file is not an Excel workbook (.xlsx), is corrupt, or unpacks to more than half a gigabyte"
        raise DataError(what, where=str(path), fix="save it again as .xlsx, without a password") from error


def _rows(path: Path, name: str | None) -> Iterator[RowOutcome]:
    import openpyxl

    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > LONGEST_FILE:
            raise ValueError("too large")
        with warnings.catch_warnings(action="ignore"):  # of styles and extensions that hold no values
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            sheet = _chosen(book, path, name)
            if sheet is not None:
                merged = _merged(archive, sheet, path)
                yield from _sheet_rows(sheet, path, merged)
        finally:
            book.close()


def _chosen(book: Any, path: Path, name: str | None) -> Any:
    sheets = book.worksheets
    if not sheets:
        what = "the workbook has no sheet that can be read; one saved as Strict Open XML has none"
        raise DataError(what, where=str(path), fix="save it again as an ordinary .xlsx")
    for sheet in sheets:
        sheet.reset_dimensions()  # some programs write that a full sheet has one cell
    if name is not None:
        named = next((sheet for sheet in sheets if sheet.title.casefold() == name.casefold()), None)
        if named is None:
            titles = [sheet.title for sheet in sheets]
            raise SettingsError(unknown("sheet", name, titles), where=f"data.sheet (--sheet), {path}")
        return named
    filled = [sheet for sheet in sheets if any(_is_filled(row) for row in _limited(sheet, path))]
    if len(filled) > 1:
        titles = ", ".join(sheet.title + (" (hidden)" if sheet.sheet_state != "visible" else "") for sheet in filled)
        fix = f"name the sheet to read: data.sheet={filled[0].title!r} (--sheet {filled[0].title!r})"
        raise DataError(f"the workbook has {len(filled)} sheets with rows: {titles}", where=str(path), fix=fix)
    return filled[0] if filled else None


def _limited(sheet: Any, path: Path) -> Iterator[tuple[Any, ...]]:
    """The rows of a sheet; a row number beyond what a sheet has would make empty rows without end."""
    for number, row in enumerate(sheet.iter_rows(), 1):
        if number > MOST_ROWS:
            raise DataError(f"a sheet of more than {MOST_ROWS:,} rows", where=f"{path}, {sheet.title}", fix="split it")
        yield row


def _is_filled(row: Sequence[Any]) -> bool:
    return any(cell.value is not None for cell in row)


def _merged(archive: zipfile.ZipFile, sheet: Any, path: Path) -> list[tuple[str, int, str, int]]:
    """The merged ranges of a sheet, as column, row, column, row.

    Raises:
        DataError: a cell has a formula, and no program has stored its value.
    """
    ranges: dict[tuple[str, int, str, int], None] = {}
    carried = b""
    with archive.open(sheet._worksheet_path) as stream:
        while block := stream.read(BLOCK):
            piece = carried + block
            for match in FORMULA.finditer(piece):
                reference = REFERENCE.search(match[1])
                if b't="str"' not in match[1]:
                    cell = reference[1].decode() if reference else "a cell"
                    what = f"{cell} holds a formula, and its value is not in the file"
                    fix = "open the workbook in a spreadsheet program and save it, or paste the values"
                    raise DataError(what, where=f"{path}, {sheet.title}", fix=fix)
            for left, top, right, bottom in (match.groups() for match in MERGED.finditer(piece)):
                ranges[left.decode(), int(top), right.decode(), int(bottom)] = None
            carried = piece[-OVERLAP:]
    return list(ranges)


def _sheet_rows(sheet: Any, path: Path, merged: Sequence[tuple[str, int, str, int]]) -> Iterator[RowOutcome]:
    header: list[str] = []
    is_checked = False
    for number, row in enumerate(_limited(sheet, path), 1):
        if not _is_filled(row):
            continue
        where = f"{path}, row {number}"
        if not header:
            header = header_of([_heading(cell, where) for cell in row], where)
            _refuse_merged(merged, number, path)
            continue
        if not is_checked:
            _refuse_title(header, row, where, sheet.title)
            is_checked = True
        yield _row(header, row, where, number)


def _heading(cell: Any, where: str) -> str:
    if cell.data_type == "e":
        raise DataError(f"a heading is the error {cell.value}", where=where, fix="write the column's name")
    return cell_text(cell.value, cell.number_format or "") or ""


def _refuse_merged(merged: Sequence[tuple[str, int, str, int]], heading: int, path: Path) -> None:
    for left, top, right, bottom in merged:
        if bottom >= heading:
            what = "headings" if top <= heading else "cells"
            raise DataError(
                f"the {what} {left}{top}:{right}{bottom} are merged, so that only the first has a value",
                where=f"{path}, row {top}",
                fix="unmerge them, and write the value into each cell that it is meant for",
            )


def _refuse_title(header: Sequence[str], row: Sequence[Any], where: str, title: str) -> None:
    """Refuse a sheet whose first row has one cell above rows of several: it is a title, and no heading."""
    filled = [cell for cell in row if cell.value is not None]
    if sum(map(bool, header)) == 1 and len(filled) > 1:
        raise DataError(
            f"the first row of the sheet {title!r} has one cell ({column_names(header)}), and this one {len(filled)}",
            where=where,
            fix="take out the rows above the headings: the first row names the columns",
        )


def _row(header: Sequence[str], row: Sequence[Any], where: str, number: int) -> RowOutcome:
    """The row, or a drop that names the cell with an error."""
    values: dict[str, Any] = dict.fromkeys(filter(None, header))
    for column, cell in enumerate(row, 1):
        if cell.value is None:
            continue
        if cell.data_type == "e":
            return bad("bad_cell", f"{cell.coordinate} holds the error {cell.value}", where)
        name = header[column - 1] if column <= len(header) else ""
        values[name or NO_NAME.format(column)] = cell_text(cell.value, cell.number_format)
    return TableRow(where, number, values)
