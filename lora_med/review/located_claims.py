"""The claims of an answer with their offsets: supported by the source, with the place there, or not.

The rules are those of metrics/faithfulness.py, applied to one claim at a time. A number written in words is counted
there and not located here; `unlocated` lists such numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from lora_med.metrics.content_words import WORD, akin, content_words, implied
from lora_med.metrics.findings import SENTENCE, SIDES, sides, statuses
from lora_med.metrics.quantities import HALF, NUMBER, Quantity, quantities, supported

UNIT_WITHIN = 24  # characters after a number in which its unit ends
NUMBER_KIND, WORD_KIND, FINDING_KIND, SIDE_KIND = "number", "word", "finding", "side"


@dataclass(frozen=True)
class Claim:
    """A claim at `start` to `end` of the answer; `place` is where the source has it, or contradicts it."""

    start: int
    end: int
    kind: str
    is_supported: bool
    place: tuple[int, int] | None = None


def claims(source: str, output: str) -> list[Claim]:
    """All numbers, and the words, findings and sides that the source does not support, in order, without overlap."""
    located = [*_numbers(source, output), *_findings(source, output), *_sides(source, output), *_words(source, output)]
    chosen: list[Claim] = []
    for claim in located:
        if all(claim.end <= other.start or claim.start >= other.end for other in chosen):
            chosen.append(claim)
    return sorted(chosen, key=lambda claim: claim.start)


def unlocated(source: str, output: str) -> list[Quantity]:
    """The unsupported numbers of the answer that are written in a way that `claims` does not locate."""
    of_source = quantities(source)
    known = [quantity for quantity, _, _ in _located_numbers(output)]
    return [
        quantity
        for quantity in dict.fromkeys(quantities(output))
        if quantity != Quantity(1.0) and quantity not in known and not supported(quantity, of_source)
    ]


def _located_numbers(text: str) -> Iterator[tuple[Quantity, int, int]]:
    """Each number in digits, with its unit and its offsets."""
    halves = [match.span() for match in HALF.finditer(text)]
    singles = [match.span() for match in NUMBER.finditer(text)]
    inside = [span for span in singles if all(span[1] <= half[0] or span[0] >= half[1] for half in halves)]
    for start, end in sorted([*halves, *inside]):
        found = quantities(text[start : end + UNIT_WITHIN])
        if found:
            unit_end = end if not found[0].unit else _unit_end(text, start, end, found[0])
            yield found[0], start, unit_end


def _unit_end(text: str, start: int, end: int, quantity: Quantity) -> int:
    """The first offset up to which the text gives the number with its unit."""
    for stop in range(end + 1, min(len(text), end + UNIT_WITHIN) + 1):
        is_word_end = stop == len(text) or not text[stop].isalpha()
        if is_word_end and quantities(text[start:stop])[:1] == [quantity]:
            return stop
    return end


def _numbers(source: str, output: str) -> Iterator[Claim]:
    of_source, places = quantities(source), list(_located_numbers(source))
    for quantity, start, end in _located_numbers(output):
        place = next(((first, last) for other, first, last in places if supported(quantity, [other])), None)
        yield Claim(start, end, NUMBER_KIND, supported(quantity, of_source), place)


def _words(source: str, output: str) -> Iterator[Claim]:
    of_source = content_words(source)
    known = {*of_source, *implied(of_source)}

    @cache
    def has(word: str) -> bool:
        return word in known or any(akin(word, other) for other in known)

    for match in WORD.finditer(output):
        forms = [form for form in content_words(match[0]) if form not in SIDES]
        if forms and not any(map(has, forms)):
            yield Claim(match.start(), match.end(), WORD_KIND, False)


def _findings(source: str, output: str) -> Iterator[Claim]:
    """Words denied in one text and affirmed in the other; the place is the source's sentence."""
    stated: dict[str, set[bool | None]] = {}
    for status in statuses(source):
        stated.setdefault(status.word, set()).add(status.there)
    for sentence in SENTENCE.finditer(output):
        changed = {
            status.word
            for status in statuses(sentence[0])
            if status.there is not None and status.word in stated and status.word not in SIDES
            and not stated[status.word] & {None, status.there}
        }  # fmt: skip
        yield from _at_words(source, sentence, changed, FINDING_KIND)


def _sides(source: str, output: str) -> Iterator[Claim]:
    """Words on another side than in the source; the place is the source's sentence."""
    of_source: dict[str, set[str]] = {}
    for word, side in sides(source):
        of_source.setdefault(word, set()).add(side)
    for sentence in SENTENCE.finditer(output):
        changed = {
            word
            for word, side in sides(sentence[0])
            if word in of_source and side not in of_source[word]
            and not (side == "both" and {"left", "right"} <= of_source[word])
        }  # fmt: skip
        yield from _at_words(source, sentence, changed, SIDE_KIND)


def _at_words(source: str, sentence: re.Match[str], changed: set[str], kind: str) -> Iterator[Claim]:
    text, offset = sentence[0], sentence.start()
    for match in WORD.finditer(text):
        forms = changed.intersection(content_words(match[0]))
        if forms:
            place = _sentence_with(source, forms)
            yield Claim(offset + match.start(), offset + match.end(), kind, False, place)


def _sentence_with(source: str, forms: set[str]) -> tuple[int, int] | None:
    for sentence in SENTENCE.finditer(source):
        if forms.intersection(content_words(sentence[0])):
            return sentence.span()
    return None
