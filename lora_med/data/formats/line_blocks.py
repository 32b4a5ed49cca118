"""Files in blocks of lines separated by empty lines, as PubTator's documents and CoNLL's sentences are."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_med.errors import DataError
from lora_med.files import open_stream

LONGEST_LINE = 1 << 24
MOST_LINES = 1 << 17  # of one block


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its break, and its number in the file; bytes that are not UTF-8 become lone surrogates."""

    number: int
    text: str


def blocks(path: Path) -> Iterator[list[Line]]:
    """The blocks of a file, plain or gz; a line of spaces and tabs is empty.

    Raises:
        DataError: a line or a block so long that the file is of another format.
    """
    block: list[Line] = []
    number = 0
    with open_stream(path) as stream:
        while line := stream.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE or len(block) == MOST_LINES:
                what = f"a line of {LONGEST_LINE:,} bytes" if len(line) == LONGEST_LINE else f"{MOST_LINES:,} lines"
                raise DataError(
                    f"{what} without an empty line: the file is of another format", where=f"{path}:{number}"
                )
            line = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rstrip(b"\r\n")
            if line.strip(b" \t"):
                block.append(Line(number, line.decode("utf-8", "surrogateescape")))
            elif block:
                yield block
                block = []
    if block:
        yield block
