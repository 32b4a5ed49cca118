"""The JSON values of a file with their positions: one a line, one over several lines, several such after another.

A member of a zip or tar is such a file too. Lines are read one by one, so a file of lines may be larger than memory.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lora_med.data.formats.archives import LONGEST_BYTES, Document, documents, is_archive
from lora_med.data.outcome import Drop
from lora_med.errors import DataError
from lora_med.files import archive_errors, open_stream

FIX = "export the file again, or set data.skip_bad=true (--skip-bad)"
BLOCK_BYTES = 1 << 22
BLANKS = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A value; `where` is its position for messages, `file` the name of its file, `number` its line or rank in it."""

    where: str
    file: str
    number: int
    value: Any


def json_values(path: Path, name: str, suffixes: tuple[str, ...]) -> Iterator[JsonValue | Drop]:
    """The values of a file, or of the members of an archive whose names end in `suffixes`; `name` names the file.

    A line or file that is not JSON is a drop with its error.

    Raises:
        InputMissingError: no such file.
    """
    try:
        if is_archive(path):
            for document in documents(path, suffixes, name):
                if isinstance(document, Document):
                    yield from _values(io.BytesIO(document.content), document.where, document.label)
                else:
                    yield document
            return
        with archive_errors(path), open_stream(path) as stream:
            yield from _values(stream, str(path), name)
    except DataError as error:
        yield Drop("damaged_file", error)


def _values(stream: BinaryIO, where: str, file: str) -> Iterator[JsonValue | Drop]:
    number, line = 0, b""
    while not line.strip():
        line, number = stream.readline(LONGEST_BYTES), number + 1
        if not line:
            yield Drop("damaged_file", DataError("the file is empty", where=where, fix=FIX))
            return
    marked = line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    first = None if marked else _parsed(line.removeprefix(codecs.BOM_UTF8))
    if not isinstance(first, dict):
        yield from _whole(line, stream, where, file)
        return
    while line:
        if line.strip():
            value = _parsed(line.removeprefix(codecs.BOM_UTF8))
            position = f"{where}:{number}"
            if value is None:
                yield Drop("bad_json", DataError("the line is not one JSON object", where=position, fix=FIX))
            else:
                yield JsonValue(position, file, number, value)
        line, number = stream.readline(LONGEST_BYTES), number + 1


def _parsed(line: bytes) -> Any:
    """The value of a line, or None."""
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _whole(start: bytes, stream: BinaryIO, where: str, file: str) -> Iterator[JsonValue | Drop]:
    """The values of a file that is not one value a line."""
    if start.lstrip().startswith(b"<"):
        what = "the file is XML, and JSON is read"
        raise DataError(what, where=where, fix="export it as JSON; C-CDA documents are read by the source cda")
    text = _text(start, stream, where)
    decoder, position, number = json.JSONDecoder(), _next(text, 0), 0
    while position < len(text):
        number += 1
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            line = f"{where}:{error.lineno}"
            yield Drop("damaged_file", DataError("the file is not JSON, or ends early", where=line, fix=FIX))
            return
        except (ValueError, RecursionError):
            yield Drop("damaged_file", DataError("the file is not JSON", where=where, fix=FIX))
            return
        yield JsonValue(where, file, number, value)
        position = _next(text, end)


def _next(text: str, position: int) -> int:
    """The position after the blanks at `position`."""
    blanks = BLANKS.match(text, position)
    return blanks.end() if blanks else position


def _text(start: bytes, stream: BinaryIO, where: str) -> str:
    blocks, size = [start], len(start)
    while block := stream.read(BLOCK_BYTES):
        blocks.append(block)
        size += len(block)
        if size > LONGEST_BYTES:
            what = f"one JSON value of more than {LONGEST_BYTES:,} bytes"
            raise DataError(
                what, where=where, fix="export it as NDJSON, one resource a line, which is read line by line"
            )
    content = b"".join(blocks)
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        position = f"{where}, byte {error.start:,}"
        raise DataError("the file is not UTF-8", where=position, fix="FHIR's JSON is UTF-8: export it again") from None
