"""Text files in any encoding: that of a byte order mark or of `data.encoding`, else UTF-8. None is guessed silently.

A file in another encoding is refused, and the likely one is named. For the marks see the Unicode standard, 23.8.
"""

from __future__ import annotations

import codecs
import io
import re
from pathlib import Path
from typing import BinaryIO

from lora_med.config.near_names import unknown
from lora_med.data.formats.containers.encoding_guess import Guess, is_foreign, likely_encoding
from lora_med.data.formats.containers.table_row import LONGEST_LINE, SKIP, bad, is_encodable
from lora_med.data.outcome import Drop
from lora_med.errors import DataError, SettingsError
from lora_med.files import open_stream

# Those of four bytes first: a mark of UTF-32 begins as one of UTF-16 does.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    codecs.BOM_UTF8: "utf-8",
}
ENCODINGS = (
    *("ascii", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "latin-1"),
    *(f"iso-8859-{number}" for number in range(1, 17) if number != 12),
    *(f"windows-{number}" for number in range(1250, 1259)),
    *("mac-roman", "mac-cyrillic", "mac-greek", "mac-turkish", "cp437", "cp850", "cp852", "cp858", "cp866"),
    *("koi8-r", "koi8-u", "gb2312", "gbk", "gb18030", "big5", "shift_jis", "cp932", "euc-jp", "euc-kr", "cp949"),
)
CONTROLS = re.compile("[\x80-\x9f]")  # what Windows-1252 gives signs to, and ISO 8859 leaves to terminals
HEAD_BYTES, SAMPLE_BYTES = 1 << 13, 1 << 20


def codec_of(name: str) -> str:
    """Python's name of a character encoding.

    Raises:
        SettingsError: there is no such one; the message gives the nearest name.
    """
    try:
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        codec = ""
    if codec not in {codecs.lookup(known).name for known in ENCODINGS}:
        fix = "a spreadsheet's usual ones are utf-8, windows-1252 and utf-16"
        raise SettingsError(unknown("encoding", name, ENCODINGS), where="data.encoding (--encoding)", fix=fix)
    return codec


def encoding_of(head: bytes, where: str, stated: str | None) -> str:
    """The codec that reads a file which begins with `head`.

    Raises:
        SettingsError: `stated` names no encoding.
        DataError: the mark and `stated` differ, or a file without a mark is in UTF-16 or UTF-32.
    """
    mark = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
    wide = _wide_without_mark(head) if mark is None else None
    codec = "utf-8" if stated is None else codec_of(stated)
    if mark is not None:
        if stated is not None and codec not in (mark, mark.removesuffix("-le").removesuffix("-be"), f"{mark}-sig"):
            what = f"the file's byte order mark says {mark}, and data.encoding says {stated}"
            raise DataError(what, where=where, fix="leave data.encoding out, or set it to null")
        return f"{mark}-sig" if mark == "utf-8" else mark[:6]
    if wide is not None and codec not in (wide, wide[:6]):
        what = f"the file looks like {wide.upper()} without a byte order mark"
        raise DataError(what, where=where, fix=f"data.encoding={wide} (--encoding {wide})")
    if codec in ("utf-16", "utf-32"):
        likely = wide or f"{codec}-le"
        what = f"the file has no byte order mark, so {codec} does not say the order of its bytes"
        raise DataError(what, where=where, fix=f"data.encoding={likely} (--encoding {likely})")
    if not codec.startswith("utf") and _is_utf8(head):
        what = f"data.encoding says {stated}, and the file is UTF-8"
        raise DataError(what, where=where, fix="leave data.encoding out, or set it to null")
    return codec


def _wide_without_mark(head: bytes) -> str | None:
    """UTF-16 or UTF-32 by where the NUL bytes of its ASCII characters are."""
    head = head[:256]
    shares = [head[place::4].count(0) / max(1, len(head[place::4])) for place in range(4)]
    if len(head) < 4:
        return None
    if min(shares[1:]) > 0.7 and shares[0] < 0.1:
        return "utf-32-le"
    if min(shares[:3]) > 0.7 and shares[3] < 0.1:
        return "utf-32-be"
    even, odd = (shares[0] + shares[2]) / 2, (shares[1] + shares[3]) / 2
    if odd > 0.3 and even < 0.1:
        return "utf-16-le"
    return "utf-16-be" if even > 0.3 and odd < 0.1 else None


def _is_utf8(head: bytes) -> bool:
    """Whether bytes beyond ASCII are there, and all are UTF-8; the last character may be cut."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not text.isascii()


def decoded(raw: bytes, where: str, stated: str | None = None) -> str:
    """All of a file's text.

    Raises:
        SettingsError, DataError: as `encoding_of`; or bytes that are not of the encoding.
    """
    codec = encoding_of(raw[:HEAD_BYTES], where, stated)
    try:
        return raw.decode(codec)
    except UnicodeDecodeError as error:
        guess = likely_encoding(raw[:SAMPLE_BYTES] + raw[error.start : error.start + HEAD_BYTES])
        raise DataError(_said(stated, guess), where=f"{where}, byte {error.start:,}", fix=_fix(guess)) from None


def _said(stated: str | None, guess: Guess | None, thing: str = "file") -> str:
    what = f"the {thing} is not {stated or 'UTF-8'}"
    return what if guess is None else f"{what}; its bytes look like {guess.label}"


def _fix(guess: Guess | None) -> str:
    if guess is None:
        return "save it as UTF-8, or name its encoding in data.encoding (--encoding)"
    return f"data.encoding={guess.name} (--encoding {guess.name}), then check the accents in what is read"


class TextFile:
    """The lines of a text file, and the drop that names what is wrong with one that is not in the file's encoding.

    Bytes that are not of the encoding become lone surrogates, so that the other lines are still read.
    """

    def __init__(self, stream: BinaryIO, path: Path, stated: str | None) -> None:
        head = stream.peek(HEAD_BYTES)[:HEAD_BYTES] if hasattr(stream, "peek") else b""  # type: ignore[attr-defined]
        self.path = path
        self.stated = stated
        self.codec = encoding_of(head, str(path), stated)
        errors = "strict" if self.codec.startswith(("utf-16", "utf-32")) else "surrogateescape"
        self._text = io.TextIOWrapper(stream, self.codec, errors, newline="")
        self._has_controls = self.codec.startswith("iso8859")
        self._faults: list[tuple[Guess | None, str]] = []  # the likely encoding and the fix, found at the first fault

    def line(self) -> str:
        """The next line with its end (CR, LF or both), or an empty text; a line that is too long comes in pieces.

        Raises:
            DataError: the file ends within a character of UTF-16 or UTF-32, or has one that does not exist.
        """
        return self._read(LONGEST_LINE, whole_line=True)

    def block(self, size: int) -> str:
        """The next `size` characters, or what is left."""
        return self._read(size, whole_line=False)

    def _read(self, size: int, *, whole_line: bool) -> str:
        try:
            return self._text.readline(size) if whole_line else self._text.read(size)
        except UnicodeDecodeError:
            what = f"the file is not {self.codec.upper()} throughout, or ends early"
            raise DataError(what, where=str(self.path), fix="restore it, or save it as UTF-8") from None

    def is_sound(self, text: str) -> bool:
        """Whether all of a line is in the file's encoding."""
        return is_encodable(text) and not (self._has_controls and CONTROLS.search(text))

    def fault(self, text: str, where: str, thing: str = "line") -> Drop:
        """The drop of a line that is not sound; `thing` is what it is called."""
        if is_encodable(text):
            what = f"the {thing} has bytes that are control characters in {self.stated}, and signs in Windows-1252"
            return bad("bad_utf8", what, where, "data.encoding=windows-1252 (--encoding windows-1252)")
        if not self._faults:
            self._faults.append(self._explained(text))
        guess, fix = self._faults[0]
        return bad("bad_utf8", _said(self.stated, guess, thing), where, fix)

    def _explained(self, text: str) -> tuple[Guess | None, str]:
        with open_stream(self.path) as stream:
            sample = stream.read(SAMPLE_BYTES)
        line = text[:SAMPLE_BYTES].encode(self.codec, "surrogateescape")
        sample += b"" if line in sample else line
        guess = likely_encoding(sample, self.codec)
        return guess, _fix(guess) if guess is not None or is_foreign(sample) else SKIP
