"""Possible identifiers of persons, found by shape: dates, numbers, addresses, names with a title. No guarantee.

Patterns find shapes; a bare surname in running text has none. A match is reported as type and offsets, and its text is
never logged. The types are the tags of data/formats/placeholders.py. The time is linear in the length of a text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lora_med.audit.shapes.identifier_patterns import SHAPES, Places
from lora_med.audit.shapes.pattern_words import TURN, UPPER
from lora_med.data.formats.placeholders import TAG
from lora_med.data.record import Record, texts_of

_NAME_WORD = re.compile(rf"[{UPPER}][\w'’-]{{3,}}")
_NAME_RUN = re.compile(rf"(?<![\w'’-])[{UPPER}][\w'’-]{{3,}}")
_PATIENT = re.compile(r"[ \t]*+patient[ \t]*+:[ \t]*+", re.IGNORECASE)
_TURN = re.compile(TURN)
_QUOTE = re.compile("['’]")
_FREE = re.compile(rb"\x00+")
MOST_QUOTES = 64  # in one word: no name that a pattern finds has more


@dataclass(frozen=True, slots=True)
class Identifier:
    """A possible identifier: character offsets, end exclusive, and its type."""

    start: int
    end: int
    type: str


Finder = Callable[[str], list[Identifier]]


class Ranges:
    """Ranges of a text that do not overlap each other, to ask which other ranges overlap one of them."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(ranges)
        self._starts = [start for start, _ in ordered]
        self._ends = [end for _, end in ordered]

    def overlap(self, start: int, end: int) -> bool:
        """Whether a range shares a character with one of these."""
        first = bisect_right(self._ends, start)
        return first < len(self._starts) and self._starts[first] < end

    def before(self, offset: int) -> int:
        """How many of these end at or before `offset`."""
        return bisect_right(self._ends, offset)


def find_identifiers(text: str) -> list[Identifier]:
    """The possible identifiers of a text, by offset; of two that overlap, the longer. Typed tags are excluded."""
    tags = Ranges(match.span() for match in TAG.finditer(text))
    places = Places(text)
    matches = [Identifier(start, end, shape.kind) for shape in SHAPES for start, end in shape.spans(places)]
    matches = [match for match in matches if not (match.type == "NAME" and _is_answer(text, match.start))]
    untagged = longest(match for match in matches if not tags.overlap(match.start, match.end))
    return longest([*untagged, *repeated_names(text, untagged)])


def _is_answer(text: str, start: int) -> bool:
    """Whether what begins at `start` follows "Patient:" in a dialogue: the line before or behind is someone's turn."""
    begin = text.rfind("\n", 0, start) + 1
    if not _PATIENT.fullmatch(text, begin, start):
        return False
    before, behind = begin, text.find("\n", start) % (len(text) + 1)
    while before > 0 and text[before - 1].isspace():
        before -= 1
    while behind < len(text) and text[behind].isspace():
        behind += 1
    return any(_TURN.match(text, offset) for offset in (text.rfind("\n", 0, before) + 1, behind))


def repeated_names(text: str, identifiers: Iterable[Identifier]) -> Iterator[Identifier]:
    """Other occurrences of the words of names that were found, each alone or before an apostrophe; not in a tag."""
    words = {
        word
        for identifier in identifiers
        if identifier.type == "NAME"
        for word in _NAME_WORD.findall(text[identifier.start : identifier.end])
    }
    if not words:
        return
    tags = Ranges(match.span() for match in TAG.finditer(text))
    for match in _NAME_RUN.finditer(text):
        run = match[0]
        if tags.overlap(*match.span()):
            continue
        if run in words:
            yield Identifier(match.start(), match.end(), "NAME")
            continue
        cuts = [quote.start() for quote, _ in zip(_QUOTE.finditer(run), range(MOST_QUOTES), strict=False)]
        size = next((cut for cut in reversed(cuts) if run[:cut] in words), 0)
        if size:
            yield Identifier(match.start(), match.start() + size, "NAME")


def longest(identifiers: Iterable[Identifier]) -> list[Identifier]:
    """The identifiers that do not overlap a longer one, in the order of the text."""
    ordered = sorted(identifiers, key=lambda identifier: (identifier.start - identifier.end, identifier.start))
    # A retained one is at least as long as those after it: it overlaps one of them only at that one's ends.
    covered = bytearray(max((identifier.end for identifier in ordered), default=0))
    retained: list[Identifier] = []
    for identifier in ordered:
        start, end = identifier.start, identifier.end
        if not (covered[start] or covered[end - 1]):
            covered[start:end] = b"\x01" * (end - start)
            retained.append(identifier)
    return sorted(retained, key=lambda identifier: identifier.start)


def united(text: str, identifiers: Iterable[Identifier]) -> list[Identifier]:
    """All identifiers as ranges that do not overlap: the longest stay, and of a shorter one what they do not cover.

    So nothing that was found is lost, whoever found it. A rest without letter or digit is dropped.
    """
    every = sorted(set(identifiers), key=lambda identifier: (identifier.start - identifier.end, identifier.start))
    covered = bytearray(len(text))
    retained: list[Identifier] = []
    for identifier in every:
        for run in _FREE.finditer(covered, identifier.start, identifier.end):
            start, end = run.span()
            while start < end and not text[start].isalnum():
                start += 1
            while start < end and not text[end - 1].isalnum():
                end -= 1
            if run.span() == (identifier.start, identifier.end):
                start, end = run.span()
            if start < end:
                retained.append(Identifier(start, end, identifier.type))
        covered[identifier.start : identifier.end] = b"\x01" * (identifier.end - identifier.start)
    return sorted(retained, key=lambda identifier: identifier.start)


def scan(records: Iterable[Record]) -> Iterator[tuple[str, Counter[str]]]:
    """For each record with possible identifiers: its uid, and the count of each type."""
    for record in records:
        counts = Counter(identifier.type for text in texts_of(record) for identifier in find_identifiers(text))
        if counts:
            yield record.uid, counts
