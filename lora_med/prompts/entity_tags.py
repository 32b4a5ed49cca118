"""Named entities as tags of tokens, and back: B- where a mention begins, I- where it goes on, O elsewhere.

A text that is longer than a row is cut where a sentence ends, failing that at a blank, into pieces that are tagged one
by one. Blanks at the ends of a token are no part of it, and a token of blanks alone has no tag. What tags cannot say is
lost, and `reach` counts it: of mentions that share a token the longer one is kept (nested ones, above all), one that
ends inside a token comes back wider, and one across two pieces comes back as two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.data.record import Annotated, Span
from lora_med.errors import DataError, SettingsError

OUTSIDE = "O"
UNTAGGED = -100
SENTENCE_END = re.compile(r"[.!?;]\s+|\n\s*")
BLANK = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of a piece of a text: `places` are (start, end) in characters of the whole text, empty where no tag."""

    uid: str
    input_ids: tuple[int, ...]
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class TagCoverage:
    """What no tagging can say: of `mentions` gold mentions the gold tags themselves give back `kept`."""

    mentions: int
    kept: int


def tag_labels(records: Iterable[Any]) -> tuple[str, ...]:
    """The tags for the types of the records' mentions: O, then B- and I- of each type in the order of the alphabet.

    Raises:
        SettingsError: a record is no annotated text.
        DataError: no record has a mention.
    """
    types: set[str] = set()
    for record in records:
        if not isinstance(record, Annotated):
            raise SettingsError(
                f"tags need annotated texts, and {record.source} gives a {type(record).__name__}",
                where="data.source",
                fix="bc5cdr, ncbi_disease, conll or bioc give them: lora-med data list",
            )
        types |= {span.type for span in record.spans}
    if not types:
        raise DataError("no record has an annotated mention", fix="check data.paths: the gold must be there")
    return (OUTSIDE, *(f"{mark}-{kind}" for kind in sorted(types) for mark in "BI"))


def cut_pieces(record: Annotated, tokenizer: Any, max_length: int) -> list[Piece]:
    """The record's text in pieces of at most `max_length` tokens, those that the tokenizer puts around it counted.

    Raises:
        SettingsError: a row has no room for any token of the text.
    """
    found: list[Piece] = []
    start, text = 0, record.text
    while start < len(text):
        end = len(text)
        piece, ends = _piece(record, tokenizer, start, end)
        while (over := len(piece.input_ids) - max_length) > 0:
            room = [place for place in ends[: max(0, len(ends) - over)] if place < end]
            if not room:
                raise SettingsError(
                    f"a row of {max_length} tokens has no room for a text", where="train.max_length", fix="raise it"
                )
            end = _cut(text, start, room[-1])
            piece, ends = _piece(record, tokenizer, start, end)
        if any(first < last for first, last in piece.places):
            found.append(piece)
        start = end
    return found


def write_tags(piece: Piece, spans: Iterable[Span], labels: Sequence[str]) -> list[int]:
    """The number of each token's label, UNTAGGED for tokens that have none.

    Raises:
        DataError: a mention's type has no label.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    tags = [0 if start < end else UNTAGGED for start, end in piece.places]
    taken: set[int] = set()
    for span in sorted(spans, key=lambda span: (span.start - span.end, span.start, span.type)):
        touched = [n for n, (start, end) in enumerate(piece.places) if start < min(end, span.end) and span.start < end]
        if not touched or taken.intersection(touched):
            continue
        if f"B-{span.type}" not in numbers:
            raise DataError(
                f"mentions of type {span.type!r}, which the training records have not",
                where=f"record {piece.uid}",
                fix="leave the record out, or train on records that have the type",
            )
        taken.update(touched)
        for n in touched:
            tags[n] = numbers[f"I-{span.type}"]
        tags[touched[0]] = numbers[f"B-{span.type}"]
    return tags


def read_tags(piece: Piece, tags: Sequence[int], labels: Sequence[str], text: str) -> list[Span]:
    """The mentions that tags say; an I- that continues nothing of its type begins a mention, as in CoNLL's scorer."""
    found: list[Span] = []
    kind, begin, last = "", 0, 0
    for (start, end), tag in [*zip(piece.places, tags, strict=True), ((0, 1), 0)]:
        if start >= end:
            continue
        mark, _, here = labels[tag].partition("-")
        if kind and not (mark == "I" and here == kind):
            found.append(Span(begin, last, kind, text[begin:last]))
            kind = ""
        if mark != OUTSIDE:
            begin, kind = (begin if kind else start), here
            last = end
    return found


def tag_coverage(records: Sequence[Annotated], tokenizer: Any, labels: Sequence[str], max_length: int) -> TagCoverage:
    """How many gold mentions survive being written as tags and read again."""
    kept = 0
    for record in records:
        back: set[tuple[int, int, str]] = set()
        for piece in cut_pieces(record, tokenizer, max_length):
            spans = read_tags(piece, write_tags(piece, record.spans, labels), labels, record.text)
            back |= {(span.start, span.end, span.type) for span in spans}
        kept += len(back & {(span.start, span.end, span.type) for span in record.spans})
    return TagCoverage(len({(r.uid, s.start, s.end, s.type) for r in records for s in r.spans}), kept)


def _piece(record: Annotated, tokenizer: Any, start: int, end: int) -> tuple[Piece, list[int]]:
    """The piece from `start` to `end`, and where each of its tokens ends, blanks counted, those around it left out."""
    text = record.text[start:end]
    coded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    places, ends = [], []
    for (first, last), special in zip(coded["offset_mapping"], coded["special_tokens_mask"], strict=True):
        inside = text[first:last]
        left = len(inside) - len(inside.lstrip())
        if not special:
            ends.append(start + last)
        if special or not inside.strip():
            places.append((0, 0))
        else:
            places.append((start + first + left, start + first + len(inside.rstrip())))
    return Piece(record.uid, tuple(coded["input_ids"]), tuple(places)), ends


def _cut(text: str, start: int, limit: int) -> int:
    """Where to cut before `limit`: behind the last sentence, else behind the last blank, else at `limit`."""
    for pattern in (SENTENCE_END, BLANK):
        ends = [found.end() for found in pattern.finditer(text, start, limit)]
        if ends and text[start : ends[-1]].strip():
            return ends[-1]
    return limit
