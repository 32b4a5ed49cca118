"""JSON as RFC 8259 has it: an infinite number is refused by name, and NaN is null.

Of a key that occurs twice in one object, rows have the last value, as other programs read it, and a report of the loss.
Documents that hold one are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lora_med.data.formats.containers.table_row import LONGEST_FILE, column_names, first_repeated, holds_nul
from lora_med.data.formats.containers.text_encoding import decoded
from lora_med.data.outcome import PartDrop
from lora_med.errors import DataError

BLOCK = 1 << 22
NUL_ESCAPE = "\\u0000"  # how a NUL is written in JSON; the character itself is refused by the decoder
# Also a byte order mark where files were joined, and the separator of JSON text sequences (RFC 7464).
BLANK = " \t\r\n\ufeff\x1e"
BLANKS = re.compile(f"[{BLANK}]*")
RESTORE = "fix or restore it"
TWICE = "occurs twice in one object"


class StrictnessError(ValueError):
    """JSON as some programs write it and the standard forbids; the message says what, without the text."""


class RepeatedKeys:
    """The keys that occurred twice in an object since they were last taken, as messages name them."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def object_of(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The object of some pairs; of a key that occurs twice the last value."""
        values = dict(pairs)
        if len(values) < len(pairs):
            self._names.append(_named_twice(pairs))
        return values

    def take(self, where: str) -> list[PartDrop]:
        """What was lost in the value that begins at `where`."""
        names, self._names = self._names, []
        return [PartDrop("repeated_key", where, f"the key {name!r} {TWICE}; its last value is read") for name in names]


def _named_twice(pairs: list[tuple[str, Any]]) -> str:
    return column_names(first_repeated(name for name, _ in pairs))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise StrictnessError(f"the key {_named_twice(pairs)!r} {TWICE}")
    return values


def _constant(name: str) -> None:
    """Null for the NaN that pandas writes where there is no value; infinities are refused."""
    if name != "NaN":
        raise StrictnessError(f"{name} is not JSON")


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise StrictnessError("a number is larger than any that is read")
    return value


def decoder_of(object_of: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> json.JSONDecoder:
    """A decoder of JSON that makes objects of pairs by `object_of`."""
    return json.JSONDecoder(object_pairs_hook=object_of, parse_constant=_constant, parse_float=_number)


STRICT = decoder_of(_unique)


def values_in(text: str, where: str, decoder: json.JSONDecoder = STRICT) -> Iterator[tuple[int, Any, bool]]:
    """Each JSON value of a text, one after another: the line on which it begins, the value, whether it is the last.

    Raises:
        DataError: what follows is not JSON; the message names the line.
    """
    line, counted = 1, 0
    position = _after_blanks(text, 0)
    while position < len(text):
        line += text.count("\n", counted, position)
        counted = position
        try:
            value, end = decoder.raw_decode(text, position)
        except StrictnessError as error:
            raise DataError(f"{error}, in the value that begins here", where=f"{where}:{line}", fix=RESTORE) from None
        except json.JSONDecodeError as error:
            what = "the file is not JSON, or ends early" + _hint(text, position, error)
            raise DataError(what, where=f"{where}:{error.lineno}", fix=RESTORE) from None
        except (ValueError, RecursionError):
            raise DataError("the file is not JSON", where=f"{where}:{line}", fix=RESTORE) from None
        position = _after_blanks(text, end)
        yield line, value, position == len(text)


def _after_blanks(text: str, position: int) -> int:
    match = BLANKS.match(text, position)
    return match.end() if match else position


def _hint(text: str, begin: int, error: json.JSONDecodeError) -> str:
    letter = text[error.pos : error.pos + 1]
    if begin == error.pos and letter == "," and begin:
        return "; a comma stands between two values: several records need brackets around them, or no commas"
    if letter in "]}" and text[: error.pos].rstrip(BLANK).endswith(","):
        return "; a comma stands before a closing bracket"
    return {"\0": "; it holds a NUL character (U+0000)", "'": "; a text has double quotes, not single ones"}.get(
        letter, ""
    )


def load_json(stream: BinaryIO, path: Path) -> Any:
    """The single JSON value of a file, in UTF-8 or in the encoding of its byte order mark.

    Raises:
        DataError: it is not text or not one JSON value, or a text in it holds a NUL character; the message names the
            line.
    """
    text = decoded(_all_bytes(stream, path), str(path))
    values = values_in(text, str(path))
    for _, value, is_last in values:
        if not is_last:
            next(values)
            raise DataError("the file holds more than one JSON value", where=str(path), fix=RESTORE)
        if NUL_ESCAPE in text and holds_nul(value):
            raise DataError("a text in the file holds a NUL character (U+0000)", where=str(path), fix=RESTORE)
        return value
    raise DataError("the file is not JSON, or ends early", where=f"{path}:1", fix=RESTORE)


def _all_bytes(stream: BinaryIO, path: Path) -> bytes:
    blocks: list[bytes] = []
    while block := stream.read(BLOCK):
        blocks.append(block)
        refuse_filler(len(block) == BLOCK and not block.strip(block[:1]), len(blocks) * BLOCK, path)
    return b"".join(blocks)


def refuse_filler(is_filler: bool, size: int, path: Path) -> None:
    """Stop a decompression bomb of zeros or blanks early: at a block of one character, or at the limit of a file.

    Raises:
        DataError: it is one.
    """
    if is_filler or size > LONGEST_FILE:
        what = "the file repeats a single byte" if is_filler else f"one JSON value of over {LONGEST_FILE:,} bytes"
        where = f"{path}, byte {size - BLOCK:,}"
        raise DataError(what, where=where, fix="restore it, or write it as JSON lines, which are read one by one")
