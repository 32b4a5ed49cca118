"""Identifiers replaced, alike throughout a document, and dates moved: found by our patterns and presidio's recognizers.

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
from lora_med.data.formats.placeholders import TAG
from lora_med.data.record import Annotated, Pair, Passage, Question, Record, Span
from lora_med.errors import DependencyMissingError

# presidio's recognizer -> our tag; all of them need no model and no network, and check what they find.
RECOGNIZERS = {
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
BETWEEN = "\n\x00\n"  # two texts of a document: no pattern reaches across
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
    recognizers = [(getattr(predefined_recognizers, name)(), tag) for name, tag in RECOGNIZERS.items()]

    def find(text: str) -> list[Identifier]:
        tags = [match.span() for match in TAG.finditer(text)]
        more = [
            Identifier(one.start, one.end, tag)
            for recognizer, tag in recognizers
            for one in recognizer.analyze(text, recognizer.supported_entities, None) or []
            if one.score >= SURE and not any(one.start < end and start < one.end for start, end in tags)
        ]
        return longest([*find_identifiers(text), *more])

    return find


@dataclass
class Replacer:
    """Replaces the identifiers of one document, alike wherever they stand: `[NAME-1]` is one name throughout.

    A word of a name stands for that name if no other has it. Numbers go on from those of tags that stand in the texts.
    Dates are moved back by `days`; one of a form that is not known becomes `[DATE-1]`.
    """

    days: int
    _numbers: Counter[str] = field(default_factory=Counter)
    _tags: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, found: Sequence[Identifier], days: int) -> Replacer:
        """For all that was found in a document's whole text; the longer names are known before their words."""
        by = cls(days)
        for match in TAG.finditer(text):
            kind, _, number = match[0].strip("[]").partition("-")
            by._numbers[kind] = max(by._numbers[kind], int(number or 0))
        names = [_folded(text[one.start : one.end]) for one in found if one.type == "NAME"]
        whole = {name: set(name.split()) for name in dict.fromkeys(names) if " " in name}
        for name in dict.fromkeys(names):
            longer = [full for full, words in whole.items() if set(name.split()) < words]
            by._tags["NAME", name] = by._tag("NAME", longer[0] if len(longer) == 1 else name)
        return by

    def instead(self, kind: str, text: str) -> str:
        """What stands in the place of an identifier."""
        if kind == "DATE" and (moved := shifted(text, self.days)) is not None:
            return moved
        return self._tag(kind, _folded(text))

    def _tag(self, kind: str, name: str) -> str:
        if (kind, name) not in self._tags:
            self._numbers[kind] += 1
            self._tags[kind, name] = f"[{kind}-{self._numbers[kind]}]"
        return self._tags[kind, name]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


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

    What is found in one of its texts is looked for in all: a name after a title in the first section is known in the
    last. Dates move by a number of days that `secret` and the record's group give: a patient's keep their distances.
    Spans move with the text; one that overlaps an identifier is left out.
    """
    texts = _texts(record)
    between = BETWEEN
    while any(between in text for text in texts):
        between = f"{between[:-1]}\x00\n"
    whole = between.join(texts)
    found = find(whole)
    by = Replacer.of(whole, found, days_of(secret, record.group))
    # A passage says its sections twice, in `text` and one by one: the second time is not counted.
    counted = len(between.join(texts[:2])) if isinstance(record, Passage) else len(whole)
    counts = Counter(one.type for one in found if one.start < counted)
    clean = replaced(whole, found, by.instead).split(between)
    if isinstance(record, Annotated):
        return replace(record, text=clean[0], spans=_spans(record, found, by)), counts
    return _with(record, clean), counts


def _texts(record: Record) -> list[str]:
    """All texts of a record, in the order in which `_with` takes them."""
    if isinstance(record, Annotated):
        return [record.text]
    if isinstance(record, Passage):
        parts = [text for part in record.sections for text in (part.label or "", part.text)]
        return [record.title, record.text, *parts]
    if isinstance(record, Pair):
        return [*(content for _, content in record.history), record.input, record.output, record.section]
    return [record.question, record.answer, record.explanation, *record.contexts, *record.options]


def _with(record: Passage | Pair | Question, texts: Sequence[str]) -> Record:
    if isinstance(record, Passage):
        title, text, *rest = texts
        sections = tuple(
            replace(part, label=label or None, text=said)
            for part, label, said in zip(record.sections, rest[::2], rest[1::2], strict=True)
        )
        return replace(record, title=title, text=text, sections=sections)
    if isinstance(record, Pair):
        *history, asked, answered, section = texts
        turns = tuple((role, content) for (role, _), content in zip(record.history, history, strict=True))
        return replace(record, input=asked, output=answered, section=section, history=turns)
    question, answer, explanation, *rest = texts
    contexts, options = tuple(rest[: len(record.contexts)]), tuple(rest[len(record.contexts) :])
    answer = options[record.right_option] if options else answer
    return replace(
        record, question=question, answer=answer, explanation=explanation, contexts=contexts, options=options
    )


def _spans(record: Annotated, found: Sequence[Identifier], by: Replacer) -> tuple[Span, ...]:
    lengths = [len(by.instead(one.type, record.text[one.start : one.end])) - (one.end - one.start) for one in found]
    spans: list[Span] = []
    for span in record.spans:
        if any(one.start < span.end and span.start < one.end for one in found):
            continue
        shift = sum(length for one, length in zip(found, lengths, strict=True) if one.end <= span.start)
        spans.append(replace(span, start=span.start + shift, end=span.end + shift))
    return tuple(spans)


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
