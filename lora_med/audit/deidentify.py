"""Identifiers replaced, alike throughout a document, and dates moved: found by our patterns and presidio's recognisers.

No model is downloaded, so a name is found only by what stands beside it. This never makes a text anonymous: the recall
on the invented notes that ship is told with every result, and what is missed is still there.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from lora_med.audit.dates import days_of, shifted
from lora_med.audit.identifiers import Identifier, find_identifiers, longest
from lora_med.data.placeholders import TAG
from lora_med.data.record import Annotated, Pair, Passage, Record, Span
from lora_med.errors import DependencyMissingError

# presidio's recogniser -> our tag; all of them need no model and no network, and check what they find.
RECOGNISERS = {
    "CreditCardRecognizer": "ID",
    "IbanRecognizer": "ID",
    "MacAddressRecognizer": "ID",
    "MedicalLicenseRecognizer": "ID",
    "NhsRecognizer": "ID",
    "UkNinoRecognizer": "ID",
    "UsItinRecognizer": "ID",
    "UsSsnRecognizer": "ID",
    "IpRecognizer": "URL",
}
SURE = 0.5
Finder = Callable[[str], list[Identifier]]


@cache
def load_finder() -> Finder:
    """What finds identifiers in a text, ours and presidio's together; loaded once, some seconds.

    Raises:
        DependencyMissingError: presidio is not installed.
    """
    try:
        from presidio_analyzer import predefined_recognizers
    except ImportError as error:
        raise DependencyMissingError(
            "de-identification needs presidio-analyzer", fix="pip install 'lora-med[deid]'"
        ) from error
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    recognisers = [(getattr(predefined_recognizers, name)(), tag) for name, tag in RECOGNISERS.items()]

    def find(text: str) -> list[Identifier]:
        tags = [match.span() for match in TAG.finditer(text)]
        more = [
            Identifier(one.start, one.end, tag)
            for recogniser, tag in recognisers
            for one in recogniser.analyze(text, recogniser.supported_entities, None) or []
            if one.score >= SURE and not any(one.start < end and start < one.end for start, end in tags)
        ]
        return longest([*find_identifiers(text), *more])

    return find


@dataclass
class Replacer:
    """Replaces the identifiers of one document, alike wherever they stand: `[NAME-1]` is one name throughout.

    Dates are moved back by `days`; one of a form that is not known becomes `[DATE-1]`.
    """

    find: Finder
    days: int
    counts: Counter[str] = field(default_factory=Counter)
    _names: dict[tuple[str, str], str] = field(default_factory=dict)

    def clean(self, text: str) -> str:
        """The text with its identifiers replaced, and counted."""
        found = self.find(text)
        self.counts.update(one.type for one in found)
        return replaced(text, found, self.instead)

    def instead(self, kind: str, text: str) -> str:
        """What stands in the place of an identifier."""
        if kind == "DATE" and (moved := shifted(text, self.days)) is not None:
            return moved
        key = kind, " ".join(text.casefold().split())
        if key not in self._names:
            self._names[key] = f"[{kind}-{1 + sum(known == kind for known, _ in self._names)}]"
        return self._names[key]


def replaced(
    text: str, found: Sequence[Identifier], instead: Callable[[str, str], str] = lambda kind, _: f"[{kind}]"
) -> str:
    """The text with `instead(type, identifier)` in place of each identifier; by default a typed tag."""
    parts: list[str] = []
    place = 0
    for one in found:
        parts += [text[place : one.start], instead(one.type, text[one.start : one.end])]
        place = one.end
    return "".join([*parts, text[place:]])


def deidentified(record: Record, find: Finder, secret: bytes) -> tuple[Record, Counter[str]]:
    """The record with the identifiers of all its texts replaced, and how many of each type; uid and group stay.

    Dates move by a number of days that `secret` and the record's group give: a patient's keep their distances. Spans
    move with the text; one that overlaps an identifier is left out.
    """
    by = Replacer(find, days_of(secret, record.group))
    if isinstance(record, Annotated):
        return _annotated(record, by), by.counts
    if isinstance(record, Passage):
        text, title = by.clean(record.text), by.clean(record.title)
        sections = tuple(
            replace(part, text=replaced(part.text, find(part.text), by.instead)) for part in record.sections
        )
        return replace(record, text=text, title=title, sections=sections), by.counts
    if isinstance(record, Pair):
        history = tuple((role, by.clean(content)) for role, content in record.history)
        return replace(record, input=by.clean(record.input), output=by.clean(record.output), history=history), by.counts
    options = tuple(map(by.clean, record.options))
    answer = options[record.options.index(record.answer)] if options else by.clean(record.answer)
    cleaned = replace(
        record,
        question=by.clean(record.question),
        answer=answer,
        contexts=tuple(map(by.clean, record.contexts)),
        options=options,
        explanation=by.clean(record.explanation),
    )
    return cleaned, by.counts


def _annotated(record: Annotated, by: Replacer) -> Annotated:
    found = by.find(record.text)
    by.counts.update(one.type for one in found)
    lengths = [len(by.instead(one.type, record.text[one.start : one.end])) - (one.end - one.start) for one in found]
    spans: list[Span] = []
    for span in record.spans:
        if any(one.start < span.end and span.start < one.end for one in found):
            continue
        shift = sum(length for one, length in zip(found, lengths, strict=True) if one.end <= span.start)
        spans.append(replace(span, start=span.start + shift, end=span.end + shift))
    return replace(record, text=replaced(record.text, found, by.instead), spans=tuple(spans))


@dataclass(frozen=True)
class Recall:
    """Of the identifiers marked in invented notes: how many were taken out whole, and what was replaced and is none.

    `late` is `(found, marked)` in sentences that were written after the patterns were frozen: the figure to trust.
    """

    marked: int
    found: int
    replaced: int
    beside: int
    by_type: dict[str, tuple[int, int]]
    late: tuple[int, int]

    @property
    def recall(self) -> float:
        """Share of the marked identifiers of which no letter is left."""
        return self.found / self.marked

    @property
    def precision(self) -> float:
        """Share of the replacements that touch a marked identifier."""
        return 1 - self.beside / self.replaced

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {found / marked:.2f}" for kind, (found, marked) in self.by_type.items())
        return (
            f"on 200 invented notes {self.recall:.2f} of the identifiers are found "
            f"({self.late[0] / self.late[1]:.2f} in sentences the patterns were not made for): {kinds}"
        )


def gold_notes() -> list[dict[str, Any]]:
    """The invented notes that ship: uid, text, and spans of `{start, end, type}`."""
    text = (files("lora_med") / "assets" / "deid" / "notes.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def measure(find: Finder, notes: Iterable[dict[str, Any]]) -> Recall:
    """Recall and precision of `find`; an identifier counts as found if all its letters and digits are covered."""
    marked: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    late = [0, 0]
    total = beside = 0
    for note in notes:
        text, found = note["text"], find(note["text"])
        covered = {place for one in found for place in range(one.start, one.end)}
        meant = {place for span in note["spans"] for place in range(span["start"], span["end"])}
        total += len(found)
        beside += sum(meant.isdisjoint(range(one.start, one.end)) for one in found)
        for span in note["spans"]:
            marked[span["type"]] += 1
            letters = {place for place in range(span["start"], span["end"]) if text[place].isalnum()}
            hit[span["type"]] += letters <= covered
            if span["late"]:
                late[0] += letters <= covered
                late[1] += 1
    by_type = {kind: (hit[kind], count) for kind, count in sorted(marked.items())}
    return Recall(marked.total(), hit.total(), total, beside, by_type, (late[0], late[1]))
