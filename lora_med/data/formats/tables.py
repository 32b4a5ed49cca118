"""Rows from JSON lines, JSON arrays, CSV, TSV, Parquet, Excel (text formats also in gz) and Hub data sets.

Each row has its position. A row that cannot be read is a drop; its error names the file, the line and what was
expected, and never quotes the content.
"""

from __future__ import annotations

import codecs
import csv
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lora_med.data.formats import hub
from lora_med.data.in_memory import MemoryRows
from lora_med.data.outcome import Drop, HubSet, Input
from lora_med.errors import DataError
from lora_med.files import archive_errors, open_stream

FORMATS = ("jsonl", "ndjson", "json", "csv", "tsv", "parquet", "xlsx")
SKIP = "fix the line, or set data.skip_bad=true (--skip-bad)"
LONGEST_LINE = LONGEST_CELL = 1 << 25  # bytes; a longer one means a damaged file or a decompression bomb
LONGEST_JSON = 1 << 29
JSON_BLOCK = 1 << 22
PARQUET_ROWS = 512


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: `where` for messages (file:line), `number` for identifiers, and its values by column."""

    where: str
    number: int
    values: dict[str, Any]


RowOutcome = TableRow | Drop


def bad(reason: str, what: str, where: str, fix: str = SKIP) -> Drop:
    """A drop with an error: it stops the run unless bad items are skipped."""
    return Drop(reason, DataError(what, where=where, fix=fix))


def rows(item: Input, header: Sequence[str] | None = None) -> Iterator[RowOutcome]:
    """The rows of a file, by the format its name says, of a Hub data set, or those in memory.

    `header` names the columns of a CSV or TSV whose first line is a row like the others.

    A file that is empty, truncated or of another format gives one drop at the fault, after the rows before it.

    Raises:
        InputMissingError: the file or data set is not available.
        DataError: the name has no ending of a known format.
    """
    if isinstance(item, HubSet):
        for number, values in enumerate(hub.rows(item), 1):
            yield TableRow(f"{item}, row {number}", number, dict(values))
        return
    if isinstance(item, MemoryRows):
        for number, values in enumerate(item.rows, 1):
            yield TableRow(f"{item}, row {number}", number, dict(values))
        return
    form = format_of(item)
    try:
        with archive_errors(item):
            if form == "parquet":
                yield from _parquet(item)
            elif form == "xlsx":
                yield from _workbook(item)
            else:
                with open_stream(item) as stream:
                    yield from _text_rows(stream, form, item, header)
    except DataError as error:
        yield Drop("damaged_file", error)


def format_of(path: Path) -> str:
    """One of FORMATS, by the file's name without `.gz`.

    Raises:
        DataError: another ending.
    """
    form = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if form not in FORMATS:
        raise DataError(
            "the file's name does not say its format",
            where=str(path),
            fix=f"name it with one of: {', '.join('.' + name for name in FORMATS)} (text formats also .gz)",
        )
    return form


def _text_rows(stream: BinaryIO, form: str, path: Path, header: Sequence[str] | None) -> Iterator[RowOutcome]:
    if form in ("csv", "tsv"):
        return _csv(stream, path, "," if form == "csv" else "\t", header)
    if form == "json":
        head = first_letter(stream)
        if head == "[":
            return _array(stream, path)
    return _json_lines(stream, path)


def first_letter(stream: BinaryIO) -> str:
    """The first character that is not white space or a byte order mark; it stays unread in the stream."""
    head = stream.peek(1024)[:1024] if hasattr(stream, "peek") else b""  # type: ignore[attr-defined]
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().decode("utf-8", "replace")
    return text[:1]


def _json_lines(stream: BinaryIO, path: Path) -> Iterator[RowOutcome]:
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            _skip_line(stream)
            yield bad("bad_json", f"the line is longer than {LONGEST_LINE:,} bytes", f"{path}:{number}")
        elif line.strip():
            yield _json_row(line, f"{path}:{number}", number)


def _skip_line(stream: BinaryIO) -> None:
    while (piece := stream.readline(1 << 20)) and not piece.endswith(b"\n"):
        pass


def _json_row(line: bytes, where: str, number: int) -> RowOutcome:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return bad("bad_utf8", "the line is not UTF-8", where)
    except (ValueError, RecursionError):
        return bad("bad_json", "the line is not one JSON object", where)
    return _object(value, where, number)


def _object(value: object, where: str, number: int) -> RowOutcome:
    if not isinstance(value, dict):
        return bad("bad_json", f"expected a JSON object, got {_json_kind(value)}", where)
    return TableRow(where, number, value)


def _json_kind(value: object) -> str:
    names = {list: "an array", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), "something else")


def load_json(stream: BinaryIO, path: Path) -> Any:
    """The single JSON value of a file.

    Raises:
        DataError: it is not UTF-8 or not JSON; the message names the line.
    """
    raw = _all_bytes(stream, path)
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8", where=f"{path}, byte {error.start}", fix="save it as UTF-8") from None
    except json.JSONDecodeError as error:
        line = f"{path}:{error.lineno}"
        raise DataError("the file is not JSON, or ends early", where=line, fix="fix or restore it") from None
    except (ValueError, RecursionError):
        raise DataError("the file is not JSON", where=str(path), fix="fix or restore it") from None


def _all_bytes(stream: BinaryIO, path: Path) -> bytes:
    """A file's bytes, read in blocks so that a decompression bomb of zeros or blanks is detected early."""
    blocks: list[bytes] = []
    while block := stream.read(JSON_BLOCK):
        blocks.append(block)
        filler = len(block) == JSON_BLOCK and not block.strip(block[:1])
        if filler or len(blocks) * JSON_BLOCK > LONGEST_JSON:
            what = "the file repeats a single byte" if filler else f"one JSON value of over {LONGEST_JSON:,} bytes"
            where = f"{path}, byte {(len(blocks) - 1) * JSON_BLOCK:,}"
            raise DataError(what, where=where, fix="restore it, or write it as JSON lines, which are read one by one")
    return b"".join(blocks)


def _array(stream: BinaryIO, path: Path) -> Iterator[RowOutcome]:
    for number, value in enumerate(load_json(stream, path), 1):
        yield _object(value, f"{path}, item {number}", number)


def _lines(stream: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b"")):
        yield (line.removeprefix(codecs.BOM_UTF8) if number == 0 else line).decode("utf-8", "surrogateescape")


def _csv(stream: BinaryIO, path: Path, delimiter: str, names: Sequence[str] | None) -> Iterator[RowOutcome]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(_lines(stream), delimiter=delimiter, strict=True)
    header = None if names is None else list(names)
    while True:
        line = reader.line_num + 1
        where = f"{path}:{line}"
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error:
            yield bad("bad_csv", "a quoted cell is not closed, or text follows its closing quote", where)
            continue
        if header is None:
            header = _header(cells, where)
        elif cells:
            yield _cells(header, cells, where, line, "" if names else " as in the first line")


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    non_empty = [name for name in names if name]
    if len(set(non_empty)) < len(non_empty):
        raise DataError("two columns have the same name", where=where, fix="rename one in the first line")
    return names


def _cells(header: list[str], cells: list[str], where: str, line: int, why: str) -> RowOutcome:
    if len(cells) != len(header):
        return bad("bad_csv", f"expected {len(header)} cells{why}, got {len(cells)}", where)
    if not all(map(is_encodable, cells)):
        return bad("bad_utf8", "the row is not UTF-8", where)
    return TableRow(where, line, {name: cell for name, cell in zip(header, cells, strict=True) if name})


def _workbook(path: Path) -> Iterator[RowOutcome]:
    """The rows of a workbook's first sheet; columns without a heading and rows without a value are left out."""
    import openpyxl

    open_stream(path).close()  # names a missing or empty file
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LONGEST_JSON:
                raise ValueError("too large")
        sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
        cells = sheet.iter_rows(values_only=True)
        heading = [str(name).strip() if name is not None else "" for name in next(cells, ())]
        data_rows = [list(row) for row in cells]
    except Exception as error:  # the library passes on all errors of zip, XML and its own models
        what = "the file is not an Excel workbook (.xlsx), is corrupt, or unpacks to more than half a gigabyte"
        raise DataError(what, where=str(path), fix="save it again as .xlsx") from error
    header = _header([name for name in heading if name], f"{path}, row 1")
    for number, row in enumerate(data_rows, 2):
        values = [value for name, value in zip(heading, row, strict=False) if name]
        if any(value is not None for value in values):
            yield TableRow(f"{path}, row {number}", number, dict(zip(header, values, strict=False)))


def is_encodable(text: str) -> bool:
    """Whether a text can be encoded as UTF-8 (half a surrogate pair cannot)."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _parquet(path: Path) -> Iterator[RowOutcome]:
    import pyarrow
    import pyarrow.parquet

    open_stream(path).close()  # names a missing or empty file
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(PARQUET_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield TableRow(f"{path}, row {number}", number, values)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            "the file is not Parquet, or is corrupt", where=f"{path}, after row {number}", fix="write it again"
        ) from error
