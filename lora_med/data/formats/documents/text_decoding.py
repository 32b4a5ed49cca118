"""A text's bytes, decoded as containers/text_encoding.py decodes a file, with one form of line end and no NUL."""

from __future__ import annotations

from lora_med.data.formats.containers import text_encoding
from lora_med.errors import DataError


def decoded(content: bytes, where: str, encoding: str | None = None) -> str:
    """The text of `content` with "\\n" at the end of every line, without a byte order mark.

    Raises:
        SettingsError: there is no such encoding.
        DataError: the bytes are not in the encoding that is stated or marked, else UTF-8, and the message names the
            likely one; or the text holds NUL characters.
    """
    text = text_encoding.decoded(content, where, encoding)
    position = text.find("\x00")
    if position >= 0:
        what = "the text holds a NUL character: it is not plain text"
        fix = "restore it, or remove what is not text"
        raise DataError(what, where=f"{where}, character {position:,}", fix=fix)
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
