"""Bytes of one text, decoded: by the encoding that was stated, a byte order mark, or UTF-8; never by a guess.

What is not text, or not in the encoding, is an error that names the likely one and quotes nothing.
"""

from __future__ import annotations

import codecs

from lora_med.errors import DataError, SettingsError

MARKS = (  # the longer first: UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LOOKED_AT_BYTES = 4096


def decoded(content: bytes, where: str, encoding: str | None = None) -> str:
    """The text of `content` with "\\n" at the end of every line; a byte order mark wins over `encoding`.

    Raises:
        SettingsError: Python knows no such encoding.
        DataError: the bytes are not in the encoding, or are UTF-8 in spite of it; or the text holds NUL characters.
    """
    marked = next((name for mark, name in MARKS if content.startswith(mark)), None)
    name = marked or encoding or "utf-8"
    try:
        text = content.decode(name)
        if marked is None and not _is_unicode(name) and _is_utf8(content):
            what = f"the text is UTF-8, and its encoding is stated as {name}"
            raise DataError(what, where=where, fix="leave data.encoding (--encoding) out")
    except LookupError:
        fix = "name one of Python's encodings, such as windows-1252 or latin-1"
        raise SettingsError(f"no encoding named {name!r}", where="data.encoding", fix=fix) from None
    except UnicodeDecodeError as error:
        raise _undecodable(content, error.start, name, where, stated=encoding if marked is None else None) from None
    except ValueError:
        raise DataError(f"the text cannot be decoded as {name}", where=where, fix="restore the file") from None
    position = text.find("\x00")
    if position >= 0:
        raise _with_nul(content, position, where)
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def likely_encoding(content: bytes) -> str:
    """The encoding that bytes outside UTF-8 most likely have, for a message: it is never used without being asked
    for."""
    head = content[:LOOKED_AT_BYTES]
    for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if len(zeros) > 1 and zeros.count(0) * 2 > len(zeros):
            return name
    try:
        content.decode("windows-1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "windows-1252"


def _is_unicode(name: str) -> bool:
    return codecs.lookup(name).name.startswith("utf")


def _is_utf8(content: bytes) -> bool:
    """Whether bytes beyond ASCII are there, and all are UTF-8: so text in another encoding practically never is."""
    try:
        return not content.decode("utf-8").isascii()
    except UnicodeDecodeError:
        return False


def _undecodable(content: bytes, position: int, name: str, where: str, *, stated: str | None) -> DataError:
    what = f"the text is not {'UTF-8' if name in ('utf-8', 'utf-8-sig') else name}"
    fix = "restore the file, or state its encoding in data.encoding (--encoding)"
    if stated is None and name == "utf-8":
        likely = likely_encoding(content)
        what += f"; its encoding is likely {likely}"
        fix = f"data.encoding={likely} (--encoding {likely}), then look at the accents in the result"
    return DataError(what, where=f"{where}, byte {position:,}", fix=fix)


def _with_nul(content: bytes, position: int, where: str) -> DataError:
    likely = likely_encoding(content)
    what, fix = "the text holds a NUL character: it is not plain text", "restore it, or remove what is not text"
    if likely.startswith("utf-16"):
        what = f"the text holds NUL characters; its encoding is likely {likely}"
        fix = f"data.encoding={likely} (--encoding {likely})"
    return DataError(what, where=f"{where}, character {position:,}", fix=fix)
