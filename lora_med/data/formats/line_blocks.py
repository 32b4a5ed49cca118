"""Files in lines, and in blocks of lines separated by empty ones, as PubTator's documents and CoNLL's sentences are."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_med.data.formats.containers.text_encoding import HEAD_BYTES, TextFile, encoding_of
from lora_med.errors import DataError
from lora_med.files import open_stream

LONGEST_LINE = 1 << 24
MOST_LINES = 1 << 17  # of one block


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its break, and its number in the file; bytes that are not UTF-8 become lone surrogates."""

    number: int
    text: str


def lines(path: Path, encoding: str | None = None) -> Iterator[Line]:
    """The lines of a file, plain or gz, in the encoding that its byte order mark says, in `encoding`, or in UTF-8.

    A file in UTF-8 without a line feed may end its lines in carriage returns.

    Raises:
        SettingsError: there is no such encoding.
        DataError: a line so long that the file is of another format; or the file is in another encoding as a whole.
    """
    number = 0
    with open_stream(path) as stream:
        head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]  # type: ignore[attr-defined]
        if encoding_of(head, str(path), encoding) not in ("utf-8", "utf-8-sig"):
            yield from _in_another_encoding(TextFile(stream, path, encoding), path)
            return
        while line := stream.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                raise _too_long(f"{path}:{number + 1}")
            if number == 0:
                line = line.removeprefix(codecs.BOM_UTF8)
            pieces = line.split(b"\r") if number == 0 and not line.endswith(b"\n") else [line]
            for piece in pieces:
                number += 1
                yield Line(number, piece.rstrip(b"\r\n").decode("utf-8", "surrogateescape"))


def holds_nul(line: Line) -> str:
    """What is wrong with a line that holds a NUL character; an empty text if it holds none."""
    return f"line {line.number} holds a NUL character (U+0000): remove it" if "\0" in line.text else ""


def _in_another_encoding(text: TextFile, path: Path) -> Iterator[Line]:
    number = 0
    while line := text.line():
        number += 1
        if len(line) >= LONGEST_LINE:
            raise _too_long(f"{path}:{number}")
        yield Line(number, line.rstrip("\r\n"))


def _too_long(where: str) -> DataError:
    what = f"a line of {LONGEST_LINE:,} bytes without an empty line: the file is of another format"
    return DataError(what, where=where, fix="name the source that reads this format: lora-med data list")


def blocks(path: Path, encoding: str | None = None) -> Iterator[list[Line]]:
    """The blocks of a file, plain or gz; a line of spaces and tabs is empty.

    Raises:
        DataError: a line or a block so long that the file is of another format.
    """
    return blocks_of(lines(path, encoding), path)


def blocks_of(stream: Iterable[Line], path: Path) -> Iterator[list[Line]]:
    """The blocks of some lines of `path`.

    Raises:
        DataError: a block so long that the file is of another format.
    """
    block: list[Line] = []
    for line in stream:
        if len(block) == MOST_LINES:
            what = f"{MOST_LINES:,} lines without an empty line: the file is of another format"
            raise DataError(
                what, where=f"{path}:{line.number}", fix="name the source that reads this format: lora-med data list"
            )
        if line.text.strip(" \t"):
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block
