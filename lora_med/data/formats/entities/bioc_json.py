"""The documents of BioC in JSON: in a collection, in lists, alone, one after another, or in PubTator 3's exports."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_med.data.formats.archives import FIX, Document
from lora_med.data.formats.tables import load_json
from lora_med.data.outcome import Drop
from lora_med.errors import DataError

LINES = (".jsonl", ".ndjson")
LISTS = ("documents", "PubTator3")
NEXT_VALUE = re.compile(r"\n[ \t]*(?=[{\[])")
SPACE = re.compile(r"\s*")


def json_documents(document: Document) -> Iterator[Mapping[str, Any] | Drop]:
    """The documents as JSON objects; a line that is not JSON is a drop and does not affect the others.

    Raises:
        DataError: the content is not JSON, or holds no documents.
    """
    for where, value in _values(document):
        if isinstance(value, Drop):
            yield value
            continue
        try:
            yield from _documents(value, where)
        except DataError as error:
            if where == document.where:
                raise
            yield Drop("bad", error)


def _documents(value: Any, where: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from _documents(item, where) if isinstance(item, dict) else [{}]
        return
    if isinstance(value, dict) and "passages" in value:
        yield value
        return
    items = next((value[name] for name in LISTS if name in value), None) if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise DataError("expected a BioC collection with documents", where=where, fix=FIX)
    yield from (item if isinstance(item, dict) else {} for item in items)


def _values(document: Document) -> Iterator[tuple[str, Any]]:
    """The JSON values of the content, each with its position: one, or several one after another."""
    if not document.name.lower().endswith(LINES):
        try:
            value = load_json(io.BytesIO(document.content), Path(document.where))
        except DataError:
            if not _has_several(document.content):
                raise
        else:
            yield document.where, value
            return
    try:
        text = document.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = "the file is not UTF-8"
        raise DataError(what, where=f"{document.where}, byte {error.start}", fix="save it as UTF-8") from None
    yield from _one_after_another(text, document.where)


def _has_several(content: bytes) -> bool:
    """Whether a second JSON value begins on a later line, after a complete first."""
    try:
        text = content.decode("utf-8-sig")
        _, end = json.JSONDecoder().raw_decode(text, _skip(text, 0))
    except (ValueError, RecursionError):
        return False
    return text[_skip(text, end) : _skip(text, end) + 1] in ("{", "[") and "\n" in text[end : _skip(text, end)]


def _one_after_another(text: str, where: str) -> Iterator[tuple[str, Any]]:
    decoder = json.JSONDecoder()
    position = _skip(text, 0)
    line, counted = 1, 0
    while position < len(text):
        line += text.count("\n", counted, position)
        counted = position
        try:
            value, position = decoder.raw_decode(text, position)
            yield f"{where}:{line}", value
        except (ValueError, RecursionError):
            error = DataError("the line is not one JSON object", where=f"{where}:{line}", fix=FIX)
            yield f"{where}:{line}", Drop("bad", error)
            following = NEXT_VALUE.search(text, position)
            position = following.end() if following else len(text)
        position = _skip(text, position)


def _skip(text: str, position: int) -> int:
    match = SPACE.match(text, position)
    return match.end() if match else position
