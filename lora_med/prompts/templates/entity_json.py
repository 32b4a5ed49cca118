"""Named entities as JSON, and back: a record's spans as text, and the spans that a generated text names.

The JSON is a list of `{"type", "text"}`, one for each mention, in the order of the text, with its exact text. Reading
assigns offsets from left to right. A mention takes the first free occurrence that begins at or after the previous
mention's start; if there is none, it takes the first free occurrence. An occurrence inside a word counts only if there
is no other. On the gold lists of BC5CDR's training file this finds 99.7% of the offsets. On NCBI-disease's, where many
repeated mentions are not annotated, it finds 91.6%. The k-th mention at the k-th occurrence finds 97.9% and 83.6%.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lora_med.data.record import Annotated, Span
from lora_med.prompts.row import Row, chat, prompted


@dataclass(frozen=True, slots=True)
class Entities:
    """The entities in a generated text: spans that occur in the source, and `(type, text)` that do not.

    `sound` is False if the text is not a JSON list of objects with a type and a text; valid items still count.
    """

    spans: tuple[Span, ...]
    hallucinated: tuple[tuple[str, str], ...]
    sound: bool


def ask(record: Annotated) -> Row:
    """The text, then the list."""
    return prompted(record, f"Text: {record.text}\nEntities:", f" {write_entities(record)}")


def ask_chat(record: Annotated) -> Row:
    """The same as a conversation."""
    question = f"List the named entities in this text as JSON, each with its type and its exact text.\n\n{record.text}"
    return chat(record, (("user", question),), write_entities(record))


def ask_chat_v2(record: Annotated) -> Row:
    """The same as the base's own chat template renders it."""
    return replace(ask_chat(record), by_base=True)


def write_entities(record: Annotated) -> str:
    """The record's mentions as one line of JSON, in the order of the text, the longer of two that begin together first.

    Blanks at the ends of a mention are removed.
    """
    spans = sorted(record.spans, key=lambda span: (span.start, -span.end, span.type))
    return write_list((span.type, span.text.strip()) for span in spans)


def write_list(mentions: Iterable[tuple[str, str]]) -> str:
    """`(type, text)` of mentions as one line of JSON."""
    return json.dumps([{"type": kind, "text": text} for kind, text in mentions], ensure_ascii=False)


def read_entities(text: str, source: str) -> Entities:
    """The entities that a generated `text` names, with offsets in `source`; words around the JSON list are ignored."""
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
    """The offsets of `mention` in `source` as entire words; if there are none, all offsets."""
    offsets = list(_all_occurrences(source, mention))
    word_offsets = [start for start in offsets if not _inside_word(source, start, start + len(mention))]
    return word_offsets or offsets


def _all_occurrences(source: str, mention: str) -> Iterator[int]:
    start = source.find(mention) if mention else -1
    while start >= 0:
        yield start
        start = source.find(mention, start + 1)


def _inside_word(source: str, start: int, end: int) -> bool:
    before = start > 0 and source[start - 1].isalnum() and source[start].isalnum()
    return before or (end < len(source) and source[end - 1].isalnum() and source[end].isalnum())


def _items(text: str) -> tuple[list[tuple[str, str]], bool]:
    """`(type, text)` of each valid item of the first JSON list, and whether the list and all items are valid."""
    begin = text.find("[")
    if begin < 0:
        return [], False
    try:
        values, _ = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return list(_valid(_complete_objects(text[begin:]))), False
    items = list(_valid(values))
    return items, len(items) == len(values)


def _valid(values: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for value in values:
        if isinstance(value, dict) and isinstance(value.get("type"), str) and isinstance(value.get("text"), str):
            mention = value["text"].strip()
            if mention and value["type"].strip():
                yield value["type"].strip(), mention


def _complete_objects(text: str) -> Iterator[Any]:
    """The complete objects of a truncated list, as when generation stops at its limit."""
    decoder, offset = json.JSONDecoder(), text.find("{")
    while offset >= 0:
        try:
            value, offset = decoder.raw_decode(text, offset)
        except (ValueError, RecursionError):
            return
        yield value
        offset = text.find("{", offset)
