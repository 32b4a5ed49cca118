"""How a CSV is laid out: what is above its header, and the character between its cells, by what the header shows.

RFC 4180 knows commas alone. Spreadsheets write semicolons where commas are decimal, and Excel's first line `sep=;`.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from lora_med.data.formats.containers.table_row import column_names
from lora_med.data.formats.containers.text_encoding import TextFile
from lora_med.errors import DataError, SettingsError

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}
NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
HEAD_LINES, HEAD_LENGTH, SHOWN_ROWS = 200, 1 << 16, 20
LONGEST_HEADER = 1 << 21  # characters; wider tables than that are no CSV


@dataclass(frozen=True)
class Layout:
    """`delimiter` between cells; `skipped` lines above the header; `lines` that were read and follow those.

    The lines are to be taken out one by one: each may be tens of megabytes.
    """

    delimiter: str
    skipped: int
    lines: deque[str]
    has_backslash: bool


def delimiter_of(stated: str) -> str:
    """The character that `data.delimiter` means: itself, or one by its name.

    Raises:
        SettingsError: it is neither.
    """
    delimiter = NAMES.get(stated.casefold(), stated)
    if len(delimiter) != 1 or delimiter in '"\r\n\0' or delimiter.isalnum():
        raise SettingsError(
            f"data.delimiter cannot be {stated!r}",
            where="data.delimiter (--delimiter)",
            fix="one character between cells, such as ';' or '|', or the word tab",
        )
    return delimiter


def find_layout(
    text: TextFile, path: Path, default: str, stated: str | None, names: Sequence[str] | None = None
) -> Layout:
    """The layout of a file; `default` separates the cells where the header shows nothing else.

    Args:
        names: the columns of a file without a header; None where its first row is the header.

    Raises:
        SettingsError: `stated` is no delimiter.
        DataError: two delimiters fit, `stated` does not, or a line that begins with # may be the header.
    """
    delimiter = delimiter_of(stated) if stated is not None else None
    lines, is_cut = _head(text)
    start = _skip_empty(lines, 0)
    separator = SEPARATOR.fullmatch(lines[start]) if start < len(lines) else None
    if separator and separator[1].isalnum() is False:
        delimiter = delimiter or separator[1]
        start = _skip_empty(lines, start + 1)
    comment = start
    while start < len(lines) and lines[start].startswith("#"):
        start = _skip_empty(lines, start + 1)
    rows = lines[start:]
    if is_cut and not rows:
        what = f"no header in the first {len(lines):,} lines: they are empty or comments"
        raise DataError(what, where=str(path), fix="restore the file, or take out the lines above the header")
    if rows and len(rows[0]) > LONGEST_HEADER:
        what = f"the header is longer than {LONGEST_HEADER:,} characters"
        raise DataError(what, where=f"{path}:{start + 1}", fix="restore the file, or write it with fewer columns")
    if delimiter is None:
        delimiter = _shown(rows, f"{path}:{start + 1}", default, names, is_cut=is_cut)
    elif names is None:
        _refuse_other(rows, delimiter, f"{path}:{start + 1}")
    if comment < start:
        _refuse_header(lines[comment:start], rows, delimiter, f"{path}:{comment + 1}")
    return Layout(delimiter, start, deque(rows), has_backslash=any('\\"' in line for line in rows))


def _head(text: TextFile) -> tuple[list[str], bool]:
    """The first lines, and whether others follow."""
    lines: list[str] = []
    length = 0
    while len(lines) < HEAD_LINES and length < HEAD_LENGTH:
        if not (line := text.line()):
            return lines, False
        lines.append(line)
        length += len(line)
    return lines, True


def _skip_empty(lines: Sequence[str], start: int) -> int:
    while start < len(lines) and not lines[start].strip("\r\n ,;|\t"):
        start += 1
    return start


def _parsed(lines: Sequence[str], delimiter: str, *, is_cut: bool = False) -> list[list[str]]:
    """The first rows by a delimiter that are not empty. The last is left out of a head that is cut: it may be too."""
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(takewhile(_is_short, lines), delimiter=delimiter):
            if any(cells):
                rows.append(cells)
            if len(rows) > SHOWN_ROWS:
                return rows
    except csv.Error:
        return rows
    return rows[:-1] if is_cut and len(rows) > 1 else rows


def _is_short(line: str) -> bool:
    return len(line) <= LONGEST_HEADER


def trimmed(cells: list[str], width: int) -> list[str]:
    """The cells without empty ones beyond `width`, which spreadsheets add."""
    return cells[:width] if len(cells) > width and not any(map(str.strip, cells[width:])) else cells


def _width(header: list[str]) -> int:
    return max((number for number, cell in enumerate(header, 1) if cell.strip()), default=0)


def _fit(rows: list[list[str]]) -> tuple[float, int]:
    """The share of rows with as many cells as the header, and the number of its columns."""
    width = _width(rows[0]) if rows else 0
    equal = [len(trimmed(row, width)) == width or len(row) == len(rows[0]) for row in rows[1:]]
    return (sum(equal) / len(equal) if equal else 1.0), width


def _shown(lines: Sequence[str], where: str, default: str, names: Sequence[str] | None, *, is_cut: bool) -> str:
    """The delimiter that gives the header more than one column, and the rows as many."""
    fits = [(*_fit(_parsed(lines, delimiter, is_cut=is_cut)), delimiter) for delimiter in DELIMITERS]
    fits = [fit for fit in fits if fit[1] > 1 and (names is None or fit[1] == len(names))]
    if not fits:
        return default
    fits.sort(reverse=True)
    if len(fits) > 1 and fits[0][:2] == fits[1][:2]:
        both = " or ".join(DELIMITERS[delimiter] for _, _, delimiter in fits[:2])
        what = f"the character between the cells may be {both}: both give {fits[0][1]} columns"
        raise DataError(what, where=where, fix="say which in data.delimiter (--delimiter ';')")
    return fits[0][2]


def _refuse_other(lines: Sequence[str], delimiter: str, where: str) -> None:
    """Refuse a stated delimiter that the header has not, if another fits the header and the rows."""
    if _fit(_parsed(lines, delimiter))[1] != 1:
        return
    for other in DELIMITERS:
        share, width = _fit(_parsed(lines, other))
        if width > 1 and share:
            columns = _parsed(lines, other)[0]
            what = f"the header holds no {delimiter!r}; {DELIMITERS[other]} gives the columns {column_names(columns)}"
            raise DataError(what, where=where, fix="leave data.delimiter out, set it to null, or name another")


def _refuse_header(comments: Sequence[str], lines: Sequence[str], delimiter: str, where: str) -> None:
    """Refuse a line with # that may be the header: it has as many cells as the line below it.

    One cell of several words is a comment, above a header of one column too.
    """
    below = _parsed(lines, delimiter)
    above = _parsed([comments[-1]], delimiter)
    if not below or not above or len(above[0]) != len(below[0]):
        return
    if len(above[0]) == 1 and len(above[0][0].lstrip("# ").split()) > 1:
        return
    what = f"the line begins with # and has as many cells as the one below it ({len(below[0])}): header or comment?"
    raise DataError(what, where=where, fix="take the # away if it is the header, or the line if it is a comment")
