"""Named entities as JSON, and back: what a record's spans look like as text, and which spans a generated text means.

A list of `{"type", "text"}` in the order of the text, one for each mention, the text exactly as it stands there. Going
back, mentions are placed from left to right: each at the first occurrence that begins where the one before it did or
later and is not taken yet; failing that, at the first that is not taken. An occurrence inside a word counts only where
there is no other. Over the gold lists of BC5CDR's training file this finds 99.7% of the offsets, and of NCBI-disease's,
where many repeated mentions are not marked, 91.6%; the k-th mention at the k-th occurrence finds 97.9% and 83.6%.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lora_med.data.record import Annotated, Span
from lora_med.prompts.row import Row, chat, prompted


@dataclass(frozen=True, slots=True)
class Entities:
    """What a generated text says: spans that stand in the source, and `(type, text)` that do not.

    `sound` is False where the text is not a JSON list of objects with a type and a text; its sound items still count.
    """

    spans: tuple[Span, ...]
    hallucinated: tuple[tuple[str, str], ...]
    sound: bool


def ask(record: Annotated) -> Row:
    """The text, then the list."""
    return prompted(record, f"Text: {record.text}\nEntities:", f" {write_entities(record)}")


def ask_chat(record: Annotated) -> Row:
    """The same as a conversation."""
    asked = f"List the named entities in this text as JSON, each with its type and its exact text.\n\n{record.text}"
    return chat(record, (("user", asked),), write_entities(record))


def write_entities(record: Annotated) -> str:
    """The record's mentions as one line of JSON, in the order of the text, the longer of two that begin together first.

    A mention's own blanks at its ends are left out.
    """
    spans = sorted(record.spans, key=lambda span: (span.start, -span.end, span.type))
    return write_list((span.type, span.text.strip()) for span in spans)


def write_list(mentions: Iterable[tuple[str, str]]) -> str:
    """`(type, text)` of mentions as one line of JSON."""
    return json.dumps([{"type": kind, "text": text} for kind, text in mentions], ensure_ascii=False)


def read_entities(text: str, source: str) -> Entities:
    """The entities that a generated `text` names, placed in `source`; words around the JSON list are passed over."""
    items, sound = _items(text)
    spans: list[Span] = []
    missing: list[tuple[str, str]] = []
    taken: set[tuple[int, str, str]] = set()
    cursor = 0
    for kind, mention in items:
        free = [start for start in occurrences(source, mention) if (start, mention, kind) not in taken]
        if not free:
            missing.append((kind, mention))
            continue
        cursor = next((start for start in free if start >= cursor), free[0])
        taken.add((cursor, mention, kind))
        spans.append(Span(cursor, cursor + len(mention), kind, mention))
    return Entities(tuple(spans), tuple(missing), sound)


def occurrences(source: str, mention: str) -> list[int]:
    """Where `mention` begins in `source`: as whole words; if it never stands so, wherever it stands."""
    found = list(_everywhere(source, mention))
    whole = [start for start in found if not _inside_word(source, start, start + len(mention))]
    return whole or found


def _everywhere(source: str, mention: str) -> Iterator[int]:
    start = source.find(mention) if mention else -1
    while start >= 0:
        yield start
        start = source.find(mention, start + 1)


def _inside_word(source: str, start: int, end: int) -> bool:
    before = start > 0 and source[start - 1].isalnum() and source[start].isalnum()
    return before or (end < len(source) and source[end - 1].isalnum() and source[end].isalnum())


def _items(text: str) -> tuple[list[tuple[str, str]], bool]:
    """`(type, text)` of each sound item of the first JSON list, and whether list and items were all sound."""
    begin = text.find("[")
    if begin < 0:
        return [], False
    try:
        values, _ = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return list(_sound(_whole_objects(text[begin:]))), False
    items = list(_sound(values))
    return items, len(items) == len(values)


def _sound(values: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for value in values:
        if isinstance(value, dict) and isinstance(value.get("type"), str) and isinstance(value.get("text"), str):
            mention = value["text"].strip()
            if mention and value["type"].strip():
                yield value["type"].strip(), mention


def _whole_objects(text: str) -> Iterator[Any]:
    """The objects of a list that breaks off, as generation stops at its limit."""
    decoder, place = json.JSONDecoder(), text.find("{")
    while place >= 0:
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return
        yield value
        place = text.find("{", place)
