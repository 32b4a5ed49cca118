"""Files in lines, and in blocks of lines separated by empty ones, as PubTator's documents and CoNLL's sentences are."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lora_med.errors import DataError
from lora_med.files import open_stream

LONGEST_LINE = 1 << 24
MOST_LINES = 1 << 17  # of one block
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its break, and its number in the file; bytes that are not UTF-8 become lone surrogates."""

    number: int
    text: str


def lines(path: Path, encoding: str | None = None) -> Iterator[Line]:
    """The lines of a file, plain or gz, in `encoding`, or UTF-16 if its byte order mark says so, or UTF-8.

    A file without a line feed may end its lines in carriage returns.

    Raises:
        DataError: a line so long that the file is of another format.
    """
    number = 0
    with open_stream(path) as stream:
        while line := stream.readline(LONGEST_LINE):
            if number == 0 and (encoding or line.startswith(UTF16)):
                yield from _decoded(stream, line, encoding or "utf-16", path)
                return
            if len(line) == LONGEST_LINE:
                raise _too_long(f"{path}:{number + 1}")
            if number == 0:
                line = line.removeprefix(codecs.BOM_UTF8)
            pieces = line.split(b"\r") if number == 0 and not line.endswith(b"\n") else [line]
            for piece in pieces:
                number += 1
                yield Line(number, piece.rstrip(b"\r\n").decode("utf-8", "surrogateescape"))


def _decoded(stream: BinaryIO, head: bytes, encoding: str, path: Path) -> Iterator[Line]:
    """The lines of a stream in another encoding; `head` is what was read of it."""
    number = 0
    try:
        text = io.TextIOWrapper(io.BufferedReader(_Rest(head, stream)), encoding, newline=None)
        while line := text.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise _too_long(f"{path}:{number}")
            yield Line(number, line.removeprefix("\ufeff").rstrip("\r\n"))
    except (UnicodeError, LookupError) as error:
        what = f"the line is not in the encoding {encoding}"
        raise DataError(what, where=f"{path}:{number + 1}", fix="name another in data.encoding") from error


class _Rest(io.RawIOBase):
    """What was read of a stream, then the stream."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        super().__init__()
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._head[: len(buffer)] if self._head else self._stream.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(content)] = content
        return len(content)


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
