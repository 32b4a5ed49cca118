"""What can be seen of files without reading them whole: source, encoding, delimiter, columns, who they may be about.

Each finding carries the reason for it. Of a table the first rows of every file are looked at, not of the first alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lora_med.data.catalog import find_source, read
from lora_med.data.detection.detect_source import Detected, detect_sources, files_in
from lora_med.data.formats.archives import is_archive
from lora_med.data.formats.containers.csv_layout import DELIMITERS, find_layout
from lora_med.data.formats.containers.encoding_guess import likely_encoding
from lora_med.data.formats.containers.table_row import TableRow
from lora_med.data.formats.containers.text_encoding import HEAD_BYTES, MARKS, TextFile, codec_of, encoding_of
from lora_med.data.formats.tables import DELIMITERS as CELLS
from lora_med.data.formats.tables import rows
from lora_med.data.outcome import Drop, ReadOptions, TableFormat
from lora_med.data.shapes.columns.accounting import EXAM
from lora_med.data.shapes.columns.cells import is_blank, listed, spelling
from lora_med.data.shapes.columns.patient_columns import holds_text, is_named_like_a_patient
from lora_med.data.source import Source
from lora_med.errors import DataError, SettingsError
from lora_med.files import archive_errors, open_stream

LOOKED_AT = 100  # rows of each file
SAMPLE_BYTES = 1 << 20
XML_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*\bencoding=["']([\w.-]+)["']""")
OWN_ENCODING = {".parquet": "Parquet states it", ".xlsx": "a workbook states it"}


@dataclass(frozen=True)
class Finding:
    """Something that was found in files, and what shows it. `likely`: it is a guess that no run makes by itself."""

    value: str
    reason: str
    likely: bool = False


@dataclass(frozen=True)
class Look:
    """What can be seen of the files at once.

    `encodings` and `delimiters` have the number of files with each finding. `columns` are those of all tables, with
    dotted names for the columns inside a column; `patient_columns` maps those that are named like a patient to the
    first file with each. `needs_columns`: no column's name says what the rows are; then `longest_texts` is the column
    whose values are the longest.
    """

    files: tuple[Path, ...]
    source: Source
    reasons: tuple[str, ...]
    encodings: dict[Finding, int]
    delimiters: dict[Finding, int]
    columns: tuple[str, ...]
    patient_columns: dict[str, str]
    needs_columns: bool
    longest_texts: str | None

    @property
    def needs_access(self) -> bool:
        """Whether the access class must be stated."""
        return self.source.access is None

    @property
    def likely_encoding(self) -> Finding | None:
        """The likely encoding of a file that is not UTF-8 and does not say what it is in."""
        return next((finding for finding in self.encodings if finding.likely), None)


def look(names: Sequence[str], table: TableFormat, source: str | None = None) -> Look:
    """What the files are, by their content, unless `source` says it.

    Raises:
        InputMissingError: no such file.
        DataError: a file that nothing reads.
        SettingsError: the files are of several sources.
    """
    files = files_in(names)
    detected = (
        {path: Detected(source, "as --source says") for path in files} if source else detect_sources(files, table)
    )
    row_source = find_source(_only_source(detected, names))
    tables = {path: _first_rows(path, table) for path in files} if row_source.template_by_kind else {}
    values = {path: [_with_inner(row) for row in first] for path, first in tables.items()}
    needs_columns = any(_needs_columns(row_source, path, table) for path, first in tables.items() if first)
    return Look(
        files=tuple(files),
        source=row_source,
        reasons=tuple(dict.fromkeys(item.reason for item in detected.values())),
        encodings=_counted(encoding_in(path, table.encoding) for path in files),
        delimiters=_counted(found for path in tables if (found := _delimiter(path, table)) is not None),
        columns=tuple(dict.fromkeys(name for found in values.values() for row in found for name in row)),
        patient_columns=_patient_columns(values),
        needs_columns=needs_columns,
        longest_texts=_longest_texts(values) if needs_columns else None,
    )


def _only_source(detected: Mapping[Path, Detected], names: Sequence[str]) -> str:
    by_source: dict[str, list[Path]] = {}
    for path, item in detected.items():
        by_source.setdefault(item.source, []).append(path)
    if len(by_source) > 1:
        listed = "; ".join(f"{name}: {paths[0].name}, {len(paths)} in all" for name, paths in sorted(by_source.items()))
        raise SettingsError(
            f"the files are of several sources: {listed}",
            where=", ".join(names),
            fix="name the files of one source; data.mix in the settings adds others",
        )
    return next(iter(by_source))


def _counted(findings: Iterable[Finding]) -> dict[Finding, int]:
    counts: dict[Finding, int] = {}
    for finding in findings:
        counts[finding] = counts.get(finding, 0) + 1
    return counts


def encoding_in(path: Path, stated: str | None) -> Finding:
    """The encoding of a file's text, by what its beginning shows. Reading checks the rest and guesses nothing.

    Raises:
        SettingsError: `stated` names no encoding.
        DataError: the file is UTF-16 or UTF-32 without a byte order mark; the message names the one to state.
    """
    own = OWN_ENCODING.get(path.suffix.lower())
    if own is not None:
        return Finding("its own", own)
    if is_archive(path):
        return Finding("by member", "each file in an archive is read by what it shows")
    with archive_errors(path), open_stream(path) as stream:
        head = stream.read(SAMPLE_BYTES)
    mark = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
    if mark is not None:
        return Finding(mark, "its byte order mark says so")
    if stated is not None:
        return Finding(codec_of(stated), "as --encoding says")
    declared = XML_ENCODING.match(head)
    if declared is not None:
        return Finding(declared[1].decode("ascii").lower(), "its XML declaration says so")
    encoding_of(head[:HEAD_BYTES], str(path), None)  # refuses UTF-16 without a mark, and names it
    if head.isascii():
        return Finding("utf-8", "its beginning is ASCII, which UTF-8 contains")
    guess = None if _is_utf8(head) else likely_encoding(head)
    if guess is not None:
        return Finding(guess.name, f"it is not UTF-8; its bytes look like {guess.label}", likely=True)
    return Finding("utf-8", "its bytes beyond ASCII are UTF-8" if _is_utf8(head) else "the default; some bytes are not")


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(head) == SAMPLE_BYTES and error.start > len(head) - 4  # a character that the sample cuts
    return True


def _delimiter(path: Path, table: TableFormat) -> Finding | None:
    """The character between the cells of a CSV or TSV; None for another format, or where the reader will refuse it."""
    default = CELLS.get(path.name.lower().removesuffix(".gz").rpartition(".")[2])
    if default is None:
        return None
    try:
        with archive_errors(path), open_stream(path) as stream:
            layout = find_layout(TextFile(stream, path, table.encoding), path, default, table.delimiter)
    except DataError:
        return None
    label = DELIMITERS.get(layout.delimiter, repr(layout.delimiter))
    stated = table.delimiter is not None
    return Finding(label, "as --delimiter says" if stated else "with it, header and rows have as many cells")


def _first_rows(path: Path, table: TableFormat) -> list[Mapping[str, Any]]:
    return [item.values for item in islice(rows(path, table), LOOKED_AT) if isinstance(item, TableRow)]


def _with_inner(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row, and those inside a column under dotted names, as `data.columns` takes them."""
    values: dict[str, Any] = {}
    for name, value in row.items():
        values[str(name)] = value
        if isinstance(value, Mapping):
            values |= {f"{name}.{inner}": held for inner, held in value.items() if not isinstance(held, Mapping)}
    return values


def _patient_columns(tables: Mapping[Path, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Columns that are named like a patient and hold no texts, with the first file that has each."""
    found: dict[str, str] = {}
    for path, first in tables.items():
        for row in first:
            for name, value in row.items():
                last = name.rpartition(".")[2]
                if listed([name]) != name:  # so long that it may be a text in place of a name, never shown
                    continue
                if is_named_like_a_patient(last) and _is_identifier(value) and not _is_exam_subject(last, value, row):
                    found.setdefault(name, path.name)
    return found


def _is_identifier(value: Any) -> bool:
    return not (is_blank(value) or isinstance(value, Mapping | list) or holds_text(value))


def _is_exam_subject(name: str, value: Any, row: Mapping[str, Any]) -> bool:
    """Whether a value is the subject of an exam's question, in words."""
    in_words = isinstance(value, str) and not any(letter.isdigit() for letter in value)
    return in_words and spelling(name) in EXAM and any(spelling(other) == "question" for other in row)


def _longest_texts(tables: Mapping[Path, Sequence[Mapping[str, Any]]]) -> str | None:
    """The column with the most characters of texts of several words; None if none has such texts."""
    lengths: dict[str, int] = {}
    for first in tables.values():
        for row in first:
            for name, value in row.items():
                if holds_text(value) and listed([name]) == name:
                    lengths[name] = lengths.get(name, 0) + len(value)
    return max(lengths, key=lambda name: lengths[name], default=None)


def _needs_columns(source: Source, path: Path, table: TableFormat) -> bool:
    """Whether the first row has no columns whose names say what it is."""
    options = ReadOptions(table=table, stops_at_columns=False)
    first = next(iter(read(source, [path], options)), None)
    return isinstance(first, Drop) and first.reason == "missing_column"
