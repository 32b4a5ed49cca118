"""Identifiers replaced consistently within a document, and dates shifted; our patterns and presidio find them.

No model is downloaded, so a name is found only by the words next to it. This never makes a text anonymous. Every result
reports the recall on the invented notes that ship; identifiers that are missed remain in the text.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from itertools import accumulate, islice
from typing import Any

from lora_med.audit.dates import days_of, shifted
from lora_med.audit.identifiers import Finder, Identifier, Ranges, find_identifiers, longest
from lora_med.audit.surrogates import Surrogates
from lora_med.data.formats.placeholders import TAG
from lora_med.data.record import Annotated, Pair, Passage, Question, Record, Span
from lora_med.errors import DependencyMissingError

# presidio's recognizer -> our tag. None needs a model or a network, and each validates its matches.
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
BETWEEN = "\n\x00\n"  # separates two texts of a document: no pattern matches across it
Instead = Callable[[str, str], str]


@cache
def load_finder() -> Finder:
    """A function that finds identifiers by our patterns and presidio's; loaded once, in some seconds.

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
        tags = Ranges(match.span() for match in TAG.finditer(text))
        from_presidio = [
            Identifier(entity.start, entity.end, tag)
            for recognizer, tag in recognizers
            for entity in recognizer.analyze(text, recognizer.supported_entities, None) or []
            if entity.score >= SURE and not tags.overlap(entity.start, entity.end)
        ]
        return longest([*find_identifiers(text), *from_presidio])

    return find


@dataclass
class Replacer:
    """Replaces the identifiers of one document consistently: `[NAME-1]` is the same name throughout.

    A word of a name gets the tag of that name if no other name has the word. Numbers continue those of tags already in
    the texts. Dates shift back by `days`; one of an unknown format becomes `[DATE-1]`.
    """

    days: int
    _numbers: Counter[str] = field(default_factory=Counter)
    _tags: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, identifiers: Sequence[Identifier], days: int) -> Replacer:
        """A replacer for all identifiers in a document's full text; longer names get their tags before their words."""
        replacer = cls(days)
        for match in TAG.finditer(text):
            kind, _, number = match[0].strip("[]").partition("-")
            replacer._numbers[kind] = max(replacer._numbers[kind], int(number or 0))
        names = [
            _folded(text[identifier.start : identifier.end]) for identifier in identifiers if identifier.type == "NAME"
        ]
        full_names = {name: set(name.split()) for name in dict.fromkeys(names) if " " in name}
        with_word: defaultdict[str, list[str]] = defaultdict(list)
        for name, words in full_names.items():
            for word in words:
                with_word[word].append(name)
        for name in dict.fromkeys(names):
            words = set(name.split())
            rarest = min((with_word[word] for word in words), key=len)
            longer = list(islice((full for full in rarest if words < full_names[full]), 2))
            replacer._tags["NAME", name] = replacer._tag("NAME", longer[0] if len(longer) == 1 else name)
        return replacer

    def instead(self, kind: str, text: str) -> str:
        """The replacement of an identifier."""
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


def replaced(text: str, identifiers: Sequence[Identifier], instead: Instead = lambda kind, _: f"[{kind}]") -> str:
    """The text with `instead(type, identifier)` in place of each identifier; by default a typed tag."""
    parts: list[str] = []
    offset = 0
    for identifier in identifiers:
        parts += [text[offset : identifier.start], instead(identifier.type, text[identifier.start : identifier.end])]
        offset = identifier.end
    return "".join([*parts, text[offset:]])


def deidentified(
    record: Record, find: Finder, secret: bytes, surrogates: Surrogates | None = None
) -> tuple[Record, Counter[str]]:
    """The record with the identifiers of all its texts replaced, and how many of each type; uid and group stay.

    An identifier found in one text is searched in all: a name after a title in the first section is known in the last.
    `secret` and the record's group determine the shift of dates, so a patient's intervals stay. Spans move with the
    text; a span that overlaps an identifier is dropped. With `surrogates` invented identifiers replace the others.
    """
    texts = _texts(record)
    between = BETWEEN
    while any(between in text for text in texts):
        between = f"{between[:-1]}\x00\n"
    full_text = between.join(texts)
    identifiers = find(full_text)
    instead: Instead = Replacer.of(full_text, identifiers, days_of(secret, record.group)).instead
    if surrogates is not None:
        instead = surrogates.of(record.group, instead)
    # A passage holds its sections twice, in `text` and separately: the second copy is not counted.
    counted = len(between.join(texts[:2])) if isinstance(record, Passage) else len(full_text)
    counts = Counter(identifier.type for identifier in identifiers if identifier.start < counted)
    clean = replaced(full_text, identifiers, instead).split(between)
    if isinstance(record, Annotated):
        return replace(record, text=clean[0], spans=_spans(record, identifiers, instead)), counts
    return _with(record, clean), counts


def _texts(record: Record) -> list[str]:
    """All texts of a record, in the order in which `_with` takes them."""
    if isinstance(record, Annotated):
        return [record.text]
    if isinstance(record, Passage):
        parts = [text for part in record.sections for text in (part.label or "", part.text)]
        return [record.title, record.text, *parts]
    if isinstance(record, Pair):
        earlier = (content for _, content in record.history)
        return [*earlier, record.input, record.output, record.section, record.reasoning, record.rejected]
    return [record.question, record.answer, record.explanation, *record.contexts, *record.options]


def _with(record: Passage | Pair | Question, texts: Sequence[str]) -> Record:
    if isinstance(record, Passage):
        title, text, *rest = texts
        sections = tuple(
            replace(part, label=label or None, text=body)
            for part, label, body in zip(record.sections, rest[::2], rest[1::2], strict=True)
        )
        return replace(record, title=title, text=text, sections=sections)
    if isinstance(record, Pair):
        *history, prompt, output, section, reasoning, rejected = texts
        turns = tuple((role, content) for (role, _), content in zip(record.history, history, strict=True))
        answers = {"output": output, "reasoning": reasoning, "rejected": rejected}
        return replace(record, input=prompt, section=section, history=turns, **answers)
    question, answer, explanation, *rest = texts
    contexts, options = tuple(rest[: len(record.contexts)]), tuple(rest[len(record.contexts) :])
    answer = options[record.right_option] if options else answer
    return replace(
        record, question=question, answer=answer, explanation=explanation, contexts=contexts, options=options
    )


def _spans(record: Annotated, identifiers: Sequence[Identifier], instead: Instead) -> tuple[Span, ...]:
    ranges = Ranges((identifier.start, identifier.end) for identifier in identifiers)
    lengths = (
        len(instead(identifier.type, record.text[identifier.start : identifier.end]))
        - (identifier.end - identifier.start)
        for identifier in identifiers
    )
    shifts = [0, *accumulate(lengths)]
    return tuple(
        replace(span, start=span.start + shift, end=span.end + shift)
        for span in record.spans
        if not ranges.overlap(span.start, span.end)
        for shift in (shifts[ranges.before(span.start)],)
    )


@dataclass(frozen=True)
class Recall:
    """Of the identifiers in the invented notes: how many were removed completely, and how many replacements hit none.

    `late` is `(found, marked)` in sentences written after the patterns were frozen: the figure to trust. `late_names`
    are the names among these.
    """

    notes: int
    marked: int
    found: int
    replaced: int
    beside: int
    by_type: dict[str, tuple[int, int]]
    late: tuple[int, int]
    late_names: tuple[int, int]

    @property
    def recall(self) -> float:
        """Share of the marked identifiers of which no letter remains."""
        return self.found / self.marked

    @property
    def precision(self) -> float:
        """Share of the replacements that touch a marked identifier."""
        return 1 - self.beside / self.replaced

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {found / marked:.2f}" for kind, (found, marked) in self.by_type.items())
        return (
            f"on {self.notes} invented notes {self.recall:.2f} of the identifiers are found "
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
    late, late_names = [0, 0], [0, 0]
    total = beside = count = 0
    for note in notes:
        count += 1
        text, identifiers = note["text"], find(note["text"])
        covered = {offset for identifier in identifiers for offset in range(identifier.start, identifier.end)}
        marked_offsets = {offset for span in note["spans"] for offset in range(span["start"], span["end"])}
        total += len(identifiers)
        beside += sum(marked_offsets.isdisjoint(range(identifier.start, identifier.end)) for identifier in identifiers)
        for span in note["spans"]:
            marked[span["type"]] += 1
            letters = {offset for offset in range(span["start"], span["end"]) if text[offset].isalnum()}
            hit[span["type"]] += letters <= covered
            if span["late"]:
                for tally in (late, late_names) if span["type"] == "NAME" else (late,):
                    tally[0] += letters <= covered
                    tally[1] += 1
    by_type = {kind: (hit[kind], number) for kind, number in sorted(marked.items())}
    return Recall(
        count, marked.total(), hit.total(), total, beside, by_type, (late[0], late[1]), (late_names[0], late_names[1])
    )
