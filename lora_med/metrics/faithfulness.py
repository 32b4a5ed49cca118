"""Medical faithfulness of a written text to its source, counted without a model and without a reference.

Of the output are counted: numbers, doses and units that stand nowhere in the source (quantities.py); findings that are
denied in the one and affirmed in the other, and those on another side (findings.py); words that say something and are
not supported by the source (content.py); persons of a sex that the source does not tell; headings of the reference or
source that the output lacks. Each is a pair of counts, so that shares over many texts can be resampled.

What none of it sees: what was left out but for headings, true facts put together wrongly, other words for the same
thing beyond a short table. How far each goes along with human judgement: benchmarks/faithfulness.py measures it on the
400 judged summaries of MTS-Dialog (Ben Abacha et al. 2023).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lora_med.metrics.content_words import akin, content_words, implied
from lora_med.metrics.findings import SIDES, sides, statuses
from lora_med.metrics.quantities import Quantity, quantities, supported

FEMALE = re.compile(
    r"\b(?:she|her|hers|herself|female|woman|girl|lady|miss|mrs|ms|ma['’]am|gal|pregnant|mother of)\b", re.I
)
MALE = re.compile(r"\b(?:he|him|his|himself|male|man|boy|gentleman|mister|mr|sir|guy)\b", re.I)
HEADING = re.compile(r"^\s*([A-Z][A-Z /&,()-]{2,60}?)\s*:?\s*$|^\s*([A-Z][A-Za-z /&,()-]{2,60}):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Counts of one output: how many there are of each kind, and how many of them are at fault."""

    quantities: int
    unsupported_quantities: int
    words: int
    unsupported_words: int
    findings: int
    flipped_findings: int
    sides: int
    flipped_sides: int
    persons: int
    unsupported_persons: int
    headings: int
    missing_headings: int

    @property
    def facts(self) -> int:
        """Everything of the output that the source should support."""
        return self.quantities + self.words + self.findings + self.sides

    @property
    def faults(self) -> int:
        """What the source does not support, or says otherwise."""
        return self.unsupported_quantities + self.unsupported_words + self.flipped_findings + self.flipped_sides


def faithfulness(source: str, output: str, reference: str = "") -> Faithfulness:
    """The counts of an output against its source; headings are those of the reference."""
    counted = [one for one in dict.fromkeys(quantities(output)) if one != Quantity(1.0)]
    known = quantities(source)
    words = [one for one in dict.fromkeys(content_words(output)) if one not in SIDES]
    told = content_words(source)
    given = {*told, *implied(told)}
    persons, strange = _persons(source, output)
    wanted, kept = headings(reference), headings(output)
    said, flipped = _flips(source, output)
    turned = _side_flips(source, output)
    return Faithfulness(
        quantities=len(counted),
        unsupported_quantities=sum(not supported(one, known) for one in counted),
        words=len(words),
        unsupported_words=sum(not _supported(one, given) for one in words),
        findings=said,
        flipped_findings=flipped,
        sides=turned[0],
        flipped_sides=turned[1],
        persons=persons,
        unsupported_persons=strange,
        headings=len(wanted),
        missing_headings=len(set(wanted) - set(kept)),
    )


def headings(text: str) -> list[str]:
    """The headings of a note, casefolded: lines in capitals, and what stands at a line's beginning before a colon."""
    found = ((match[1] or match[2]).strip().casefold() for match in HEADING.finditer(text))
    return list(dict.fromkeys(found))


def _supported(word: str, given: set[str]) -> bool:
    return word in given or any(akin(word, one) for one in given)


def _flips(source: str, output: str) -> tuple[int, int]:
    """Words of which both tell the status, and how many of them are never in the source as the output has them."""
    known: dict[str, set[bool | None]] = {}
    for one in statuses(source):
        known.setdefault(one.word, set()).add(one.there)
    said = {(one.word, one.there) for one in statuses(output) if one.word in known and one.word not in SIDES}
    clear = [(word, there) for word, there in said if None not in known[word]]
    return len(clear), sum(there not in known[word] for word, there in clear)


def _side_flips(source: str, output: str) -> tuple[int, int]:
    """Sided words that the source puts on a side too, and how many of them are on another one there."""
    known: dict[str, set[str]] = {}
    for word, side in sides(source):
        known.setdefault(word, set()).add(side)
    both = [(word, side) for word, side in dict.fromkeys(sides(output)) if word in known]
    wrong = [
        (word, side)
        for word, side in both
        if side not in known[word] and not (side == "both" and {"left", "right"} <= known[word])
    ]
    return len(both), len(wrong)


def _persons(source: str, output: str) -> tuple[int, int]:
    """Whether the output tells a sex, and whether the source does not tell that one."""
    told: Sequence[re.Pattern[str]] = [one for one in (FEMALE, MALE) if one.search(output)]
    return len(told), sum(one.search(source) is None for one in told)
