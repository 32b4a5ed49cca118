"""Medical faithfulness of a generated text to its source, counted without a model and without a reference.

Counted in the output:
- numbers, doses and units that are not in the source (quantities.py);
- findings denied in one and affirmed in the other, and findings on another side (findings.py);
- content words that the source does not support (content_words.py);
- a sex of a person that the source does not state;
- headings of the reference that the output lacks.
Each is a pair of counts, so that shares over many texts can be resampled.

Not detected: omissions other than headings, true facts combined wrongly, synonyms beyond a short table.
benchmarks/faithfulness.py measures the agreement with human judgement on the 400 judged summaries of MTS-Dialog
(Ben Abacha et al. 2023).
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
HEADING = re.compile(
    r"^[^\S\n]*+(?:([A-Z][A-Z /&,()-]{2,60}?)[^\S\n]*+(?::[^\S\n]*+)?$|([A-Z][A-Za-z /&,()-]{2,60}):)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Counts of one output: how many claims of each kind it makes, and how many of them are unsupported or changed."""

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
        """All claims of the output that the source should support."""
        return self.quantities + self.words + self.findings + self.sides

    @property
    def faults(self) -> int:
        """The unsupported and changed claims."""
        return self.unsupported_quantities + self.unsupported_words + self.flipped_findings + self.flipped_sides


def faithfulness(source: str, output: str, reference: str = "") -> Faithfulness:
    """The counts of an output against its source; the expected headings are those of the reference."""
    counted = [claim for claim in dict.fromkeys(quantities(output)) if claim != Quantity(1.0)]
    source_quantities = quantities(source)
    words = [claim for claim in dict.fromkeys(content_words(output)) if claim not in SIDES]
    source_words = content_words(source)
    supported_words = {*source_words, *implied(source_words)}
    persons, unsupported = _persons(source, output)
    expected_headings, output_headings = headings(reference), headings(output)
    findings, changed = _changed_findings(source, output)
    changed_sides = _changed_sides(source, output)
    return Faithfulness(
        quantities=len(counted),
        unsupported_quantities=sum(not supported(claim, source_quantities) for claim in counted),
        words=len(words),
        unsupported_words=sum(not _supported(claim, supported_words) for claim in words),
        findings=findings,
        flipped_findings=changed,
        sides=changed_sides[0],
        flipped_sides=changed_sides[1],
        persons=persons,
        unsupported_persons=unsupported,
        headings=len(expected_headings),
        missing_headings=len(set(expected_headings) - set(output_headings)),
    )


def headings(text: str) -> list[str]:
    """The headings of a note, casefolded: lines in capitals, and the text before a colon at the start of a line."""
    names = ((match[1] or match[2]).strip().casefold() for match in HEADING.finditer(text))
    return list(dict.fromkeys(names))


def _supported(word: str, source_words: set[str]) -> bool:
    return word in source_words or any(akin(word, other) for other in source_words)


def _changed_findings(source: str, output: str) -> tuple[int, int]:
    """Words whose status both texts state, and how many have another one in the source; a question states none."""
    source_statuses: dict[str, set[bool | None]] = {}
    for status in statuses(source):
        source_statuses.setdefault(status.word, set()).add(status.there)
    claims = {
        (status.word, status.there)
        for status in statuses(output)
        if status.there is not None and status.word in source_statuses and status.word not in SIDES
    }
    clear = [(word, there) for word, there in claims if None not in source_statuses[word]]
    return len(clear), sum(there not in source_statuses[word] for word, there in clear)


def _changed_sides(source: str, output: str) -> tuple[int, int]:
    """Words with a side in both texts, and how many of them are on another side in the source."""
    source_sides: dict[str, set[str]] = {}
    for word, side in sides(source):
        source_sides.setdefault(word, set()).add(side)
    both = [(word, side) for word, side in dict.fromkeys(sides(output)) if word in source_sides]
    wrong = [
        (word, side)
        for word, side in both
        if side not in source_sides[word] and not (side == "both" and {"left", "right"} <= source_sides[word])
    ]
    return len(both), len(wrong)


def _persons(source: str, output: str) -> tuple[int, int]:
    """How many sexes the output states, and how many of them the source does not state."""
    named: Sequence[re.Pattern[str]] = [pattern for pattern in (FEMALE, MALE) if pattern.search(output)]
    return len(named), sum(pattern.search(source) is None for pattern in named)
