"""Named entities as token tags, and back: B- where a mention begins, I- where it continues, O elsewhere.

A text longer than a row is cut into pieces that are tagged one by one. The cut is at the end of a sentence, otherwise
at a blank. Blanks at the ends of a token do not belong to it, and a token of blanks alone has no tag. Tags cannot
represent every mention; `recovered_mentions` counts what they keep. Of mentions that share a token, mostly nested ones,
only the longer one remains. A mention that ends inside a token comes back wider. A mention across two pieces comes back
as two.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.data.record import Annotated, Span
from lora_med.errors import DataError, SettingsError

OUTSIDE = "O"
UNTAGGED = -100
SENTENCE_END = re.compile(r"[.!?;]\s+|\n\s*")
BLANK = re.compile(r"\s+")
# Letters of scripts that write blanks between words, and digits.
WORD = re.compile(r"[A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u03ff\u0400-\u052f]+")


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of a piece of a text: `offsets` are (start, end) in characters of the full text, empty for no tag."""

    uid: str
    input_ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class TagCoverage:
    """What tags can represent: of `mentions` gold mentions, the gold tags give back `recovered`."""

    mentions: int
    recovered: int


def tag_labels(records: Iterable[Any]) -> tuple[str, ...]:
    """The tags for the types of the records' mentions: O, then B- and I- of each type in alphabetical order.

    Raises:
        SettingsError: a record is not an annotated text.
        DataError: no record has a mention.
    """
    types: set[str] = set()
    for record in records:
        if not isinstance(record, Annotated):
            raise SettingsError(
                f"tags need annotated texts, and {record.source} gives a {type(record).__name__}",
                where="data.source",
                fix="bc5cdr, ncbi_disease, conll, bioc, brat and n2c2 give them",
            )
        types |= {span.type for span in record.spans}
    if not types:
        raise DataError("no record has an annotated mention", fix="check data.paths: the files must hold annotations")
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(types) for prefix in "BI"))


def cut_pieces(record: Annotated, tokenizer: Any, max_length: int) -> list[Piece]:
    """The record's text in pieces of at most `max_length` tokens, the tokenizer's special tokens included.

    Raises:
        SettingsError: `max_length` leaves no space for a token of the text.
    """
    pieces: list[Piece] = []
    start, text = 0, record.text
    while start < len(text):
        end = len(text)
        piece, ends = _piece(record, tokenizer, start, end)
        while (over := len(piece.input_ids) - max_length) > 0:
            usable_ends = [offset for offset in ends[: max(0, len(ends) - over)] if offset < end]
            if not usable_ends:
                raise SettingsError(
                    f"a row of {max_length} tokens has no space for text", where="train.max_length", fix="raise it"
                )
            end = _cut(text, start, usable_ends[-1])
            piece, ends = _piece(record, tokenizer, start, end)
        if any(first < last for first, last in piece.offsets):
            pieces.append(piece)
        start = end
    return pieces


def write_tags(piece: Piece, spans: Iterable[Span], labels: Sequence[str]) -> list[int]:
    """The number of each token's label, UNTAGGED for tokens that have none.

    Raises:
        DataError: a mention's type has no label.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    tags = [0 if start < end else UNTAGGED for start, end in piece.offsets]
    taken: set[int] = set()
    for span in sorted(spans, key=lambda span: (span.start - span.end, span.start, span.type)):
        touched = [n for n, (start, end) in enumerate(piece.offsets) if start < min(end, span.end) and span.start < end]
        if not touched or taken.intersection(touched):
            continue
        if f"B-{span.type}" not in numbers:
            raise DataError(
                f"mentions of type {span.type!r}, which the training records lack",
                where=f"record {piece.uid}",
                fix="leave the record out, or train on records that have the type",
            )
        taken.update(touched)
        for n in touched:
            tags[n] = numbers[f"I-{span.type}"]
        tags[touched[0]] = numbers[f"B-{span.type}"]
    return tags


def read_tags(piece: Piece, tags: Sequence[int], labels: Sequence[str], text: str) -> list[Span]:
    """The mentions that the tags encode; an I- without a preceding tag of its type begins one, as in CoNLL's scorer."""
    spans: list[Span] = []
    kind, begin, last = "", 0, 0
    for (start, end), tag in [*zip(piece.offsets, tags, strict=True), ((0, 1), 0)]:
        if start >= end:
            continue
        prefix, _, tag_type = labels[tag].partition("-")
        if kind and not (prefix == "I" and tag_type == kind):
            spans.append(Span(begin, last, kind, text[begin:last]))
            kind = ""
        if prefix != OUTSIDE:
            begin, kind = (begin if kind else start), tag_type
            last = end
    return spans


def whole_words(spans: Iterable[Span], text: str) -> list[Span]:
    """The mentions, each widened to the words it begins and ends in; those that then overlap become one.

    A decoder cannot know the first token of a word that it has not read to the end, so it often tags the rest alone.
    Where types differ within a word, the last counts: by then most is read. In scripts without blanks nothing changes.
    """
    words = [match.span() for match in WORD.finditer(text)]
    ends = [end for _, end in words]
    wide: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        start, end = span.start, span.end
        first, last = bisect_right(ends, start), bisect_left(ends, end)
        if first < len(words) and words[first][0] < start:
            start = words[first][0]
        if last < len(words) and words[last][0] < end:
            end = words[last][1]
        if wide and start < wide[-1].end:
            before = wide.pop()
            start, end = before.start, max(end, before.end)
        wide.append(Span(start, end, span.type, text[start:end]))
    return wide


def recovered_mentions(
    record: Annotated, pieces: Sequence[Piece], tags: Sequence[Sequence[int]], labels: Sequence[str]
) -> int:
    """How many mentions of a record the tags of its pieces give back."""
    back: set[tuple[int, int, str]] = set()
    for piece, own in zip(pieces, tags, strict=True):
        back |= {(span.start, span.end, span.type) for span in read_tags(piece, own, labels, record.text)}
    return len(back & {(span.start, span.end, span.type) for span in record.spans})


def _piece(record: Annotated, tokenizer: Any, start: int, end: int) -> tuple[Piece, list[int]]:
    """The piece from `start` to `end`, and the end offset of each of its tokens, special tokens left out."""
    text = record.text[start:end]
    coded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    offsets, ends = [], []
    for (first, last), special in zip(coded["offset_mapping"], coded["special_tokens_mask"], strict=True):
        inside = text[first:last]
        left = len(inside) - len(inside.lstrip())
        if not special:
            ends.append(start + last)
        if special or not inside.strip():
            offsets.append((0, 0))
        else:
            offsets.append((start + first + left, start + first + len(inside.rstrip())))
    return Piece(record.uid, tuple(coded["input_ids"]), tuple(offsets)), ends


def _cut(text: str, start: int, limit: int) -> int:
    """The offset to cut at: after the last sentence before `limit`, else after the last blank, else `limit`."""
    for pattern in (SENTENCE_END, BLANK):
        ends = [match.end() for match in pattern.finditer(text, start, limit)]
        if ends and text[start : ends[-1]].strip():
            return ends[-1]
    return limit
