"""Rows from JSON, CSV, TSV, Parquet, Excel (text formats also in gz), Hub data sets and memory: one door for all.

Each row has its position. A row that cannot be read is a drop; its error names the file, the line and what was
expected, and never quotes the content. A NUL character reaches no row. `containers/` has a module for each format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_med.data.formats import hub
from lora_med.data.formats.containers.csv_rows import csv_rows
from lora_med.data.formats.containers.json_rows import json_rows
from lora_med.data.formats.containers.json_text import load_json
from lora_med.data.formats.containers.parquet_rows import parquet_rows
from lora_med.data.formats.containers.table_row import (
    SKIP,
    RowOutcome,
    TableRow,
    bad,
    is_encodable,
    not_stated,
    without_nul,
)
from lora_med.data.formats.containers.workbooks import workbook_rows
from lora_med.data.in_memory import MemoryRows
from lora_med.data.outcome import Drop, HubSet, Input, TableFormat
from lora_med.errors import DataError, SettingsError
from lora_med.files import archive_errors, open_stream

__all__ = ["FORMATS", "SKIP", "RowOutcome", "TableRow", "bad", "format_of", "is_encodable", "load_json", "rows"]

FORMATS = ("jsonl", "ndjson", "json", "csv", "tsv", "parquet", "xlsx")
AS_SHOWN = TableFormat()
DELIMITERS = {"csv": ",", "tsv": "\t"}
# What each setting of TableFormat is for: the formats, and what a message calls them.
SETTINGS = {
    "encoding": (("jsonl", "ndjson", "json", "csv", "tsv"), "JSON and CSV"),
    "delimiter": (("csv", "tsv"), "CSV and TSV"),
    "sheet": (("xlsx", "json", "jsonl", "ndjson"), "Excel workbooks and JSON objects"),
}
OTHER_FILES = {  # by how they begin
    b"PK\x03\x04": "a zip archive or an Excel workbook (.xlsx)",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls), or one with a password",
    b"PAR1": "Parquet",
    b"%PDF": "PDF",
    b"{\\rtf": "RTF",
}
SAVE_AS = {
    "xls": "save it as .xlsx",
    "xlsb": "save it as .xlsx",
    "xlsm": "save it as .xlsx",
    "ods": "save it as .xlsx",
    "feather": "write it as .parquet",
    "arrow": "write it as .parquet",
    "dta": "export it as .csv",
    "sas7bdat": "export it as .csv",
}


def rows(item: Input, table: TableFormat = AS_SHOWN, header: Sequence[str] | None = None) -> Iterator[RowOutcome]:
    """The rows of a file, by the format its name says, of a Hub data set, or those in memory.

    A file that is empty, truncated or of another format gives one drop at the fault, after the rows before it.

    Args:
        table: encoding, delimiter and sheet, where their user says so; else as the file shows.
        header: the columns of a CSV or TSV whose first line is a row like the others.

    Raises:
        InputMissingError: the file or data set is not available.
        SettingsError: `table` names no encoding, delimiter or sheet, or one that the format has not.
        DataError: the name has no ending of a known format.
    """
    if isinstance(item, Path):
        form = format_of(item)
        _refuse_other_settings(table, form, item)
        return _file_rows(item, form, table, header)
    _refuse_settings_of_files(table, item)
    return map(without_nul, _held_rows(item))


def _held_rows(item: HubSet | MemoryRows) -> Iterator[RowOutcome]:
    for number, values in enumerate(item.rows if isinstance(item, MemoryRows) else hub.rows(item), 1):
        yield TableRow(f"{item}, row {number}", number, dict(values))


def _file_rows(path: Path, form: str, table: TableFormat, header: Sequence[str] | None) -> Iterator[RowOutcome]:
    try:
        with archive_errors(path):
            if form == "parquet":
                yield from map(without_nul, parquet_rows(path))
            elif form == "xlsx":
                yield from map(without_nul, workbook_rows(path, table.sheet))
            else:
                with open_stream(path) as stream:
                    _refuse_other_file(stream.peek(8), form, path)  # type: ignore[attr-defined]
                    if form in DELIMITERS:
                        yield from map(without_nul, csv_rows(stream, path, table, DELIMITERS[form], header))
                    else:
                        yield from json_rows(stream, path, table)
    except DataError as error:
        yield Drop("damaged_file", error)


def format_of(path: Path) -> str:
    """One of FORMATS, by the file's name without `.gz`.

    Raises:
        DataError: another ending.
    """
    form = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if form not in FORMATS:
        named = f"name it with one of: {', '.join('.' + name for name in FORMATS)} (text formats also .gz)"
        raise DataError(
            f"no rows are read from .{form}" if form in SAVE_AS else "the file's name does not say its format",
            where=str(path),
            fix=SAVE_AS.get(form, named),
        )
    return form


def fitting_settings(table: TableFormat, path: Path, possible: Sequence[str] = tuple(SETTINGS)) -> TableFormat:
    """Of `table`, what concerns the format that the file's name says, and is among the `possible` settings."""
    form = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    return TableFormat(
        **{
            name: value if name in possible and (form in SETTINGS[name][0] or form not in FORMATS) else None
            for name, value in _named_settings(table)
        }
    )


def _named_settings(table: TableFormat) -> tuple[tuple[str, str | None], ...]:
    return (("encoding", table.encoding), ("delimiter", table.delimiter), ("sheet", table.sheet))


def _refuse_settings_of_files(table: TableFormat, item: Input) -> None:
    for name, value in _named_settings(table):
        if value is not None:
            what = f"data.{name} is for files, and {item} is none"
            raise SettingsError(what, where=f"data.{name} (--{name})", fix="leave it out, or set it to null")


def _refuse_other_settings(table: TableFormat, form: str, path: Path) -> None:
    for name, value in _named_settings(table):
        formats, label = SETTINGS[name]
        if value is not None and form not in formats:
            raise SettingsError(
                not_stated(name, path, label), where=f"data.{name} (--{name})", fix="leave it out, or set it to null"
            )


def _refuse_other_file(head: bytes, form: str, path: Path) -> None:
    for magic, label in OTHER_FILES.items():
        if head.startswith(magic):
            what = f"the file is named .{form}, and begins as {label}"
            raise DataError(what, where=str(path), fix="name it by what it is, or save it as its name says")
