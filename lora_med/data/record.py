"""Records: the common type of reading, splitting and prompting.

There are four kinds, one for each shape of task. `uid` names the item uniquely within its source. `group` names what
must never straddle a split (patient, PMID, document, question stem). `source` is the name in the catalog. All are
immutable.

A uid of credentialed data may name a patient or an encounter. What is printed, logged or reported of such data shows
hashed uids: `sha256:` and the first 16 hexadecimal digits of the SHA-256 of the uid. Whoever has the data can compute
them too, and nobody else can tell what they stand for unless the uids can be guessed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

Split = Literal["train", "validation", "test"]
HeldOutSplit = Literal["validation", "test"]


@dataclass(frozen=True, slots=True)
class Section:
    """One labeled stretch of a passage: `label` as printed (or None), `category` normalized (or None)."""

    text: str
    label: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a controlled vocabulary: its identifier there (`D006973`) and its name (`Hypertension`)."""

    ui: str
    name: str


@dataclass(frozen=True, slots=True)
class Bibliography:
    """How a published passage is catalogued: `version` and `year` of publication, languages in ISO 639-2 (`eng`).

    `mesh` holds the descriptors of the Medical Subject Headings, without qualifiers.
    """

    version: int = 1
    year: int | None = None
    journal: str = ""
    languages: tuple[str, ...] = ()
    publication_types: tuple[Term, ...] = ()
    mesh: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """Running text: an abstract, an article, a note. `title` may be empty; `sections` may be one.

    `about` is present where the source has catalog data (pubmed).
    """

    uid: str
    group: str
    source: str
    text: str
    title: str = ""
    sections: tuple[Section, ...] = ()
    about: Bibliography | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its contexts and options, and the answer.

    `options` is empty for open answers; otherwise `answer` is one of them, and `right` is its index if two are equal.
    `subject` is the exam's subject where the source names it (mmlu).
    """

    uid: str
    group: str
    source: str
    question: str
    answer: str
    contexts: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    explanation: str = ""
    right: int | None = None
    subject: str = ""

    @property
    def right_option(self) -> int:
        """The index of the answer among the options.

        Raises:
            ValueError: the answer is no option.
        """
        return self.options.index(self.answer) if self.right is None else self.right


@dataclass(frozen=True, slots=True)
class Span:
    """A mention: character offsets into the record's text, end exclusive; `text[start:end] == mention`."""

    start: int
    end: int
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class Annotated:
    """Text with typed spans (named entities); spans may nest."""

    uid: str
    group: str
    source: str
    text: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """A source text and its target: dialogue and note, question and summary, prompt and completion.

    `history` holds the turns of a conversation before `input`, as `(role, content)`; `output` is the assistant's last.
    `reasoning` is what the assistant thought before it. `in_turns` is true if the source gave turns, be it two.
    `rejected` makes the pair a preference: the answer that was preferred less than `output`, empty where there is none.
    """

    uid: str
    group: str
    source: str
    input: str
    output: str
    section: str = ""
    history: tuple[tuple[str, str], ...] = ()
    reasoning: str = field(default="", repr=False)
    in_turns: bool = field(default=False, compare=False, repr=False)
    rejected: str = field(default="", repr=False)

    @property
    def is_conversation(self) -> bool:
        """Whether the source gave turns: a template without turns would not show them as they are."""
        return bool(self.in_turns or self.history or self.reasoning)


Record = Passage | Question | Annotated | Pair


HASHED = re.compile(r"sha256:[0-9a-f]{16}")
SHOWN_CLASSES = ("open", "registered")  # access classes; where there is none yet, rows are handled as credentialed


def hashed_uid(name: str) -> str:
    """The uid or group as it is shown of credentialed data; a hashed one stays as it is."""
    if HASHED.fullmatch(name):
        return name
    return f"sha256:{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def shown_uid(uid: str, access: str | None) -> str:
    """The uid, hashed unless the data's class of access lets it be shown."""
    return uid if access in SHOWN_CLASSES else hashed_uid(uid)


def with_shown_uid(record: Record, access: str | None) -> Record:
    """The record with its uid as it may be shown."""
    uid = shown_uid(record.uid, access)
    return record if uid is record.uid else replace(record, uid=uid)


def texts_of(record: Record) -> tuple[str, ...]:
    """All texts of a record, in reading order."""
    if isinstance(record, Passage):
        return (record.title, record.text)
    if isinstance(record, Question):
        return (record.question, *record.contexts, *record.options, record.answer, record.explanation)
    if isinstance(record, Pair):
        earlier = (content for _, content in record.history)
        before, after = ([text] if text else [] for text in (record.reasoning, record.rejected))
        return (*earlier, record.input, *before, record.output, *after)
    return (record.text,)


def each_answer(records: Iterable[Record]) -> Iterator[Record]:
    """The records; after each preference, the same prompt with the rejected answer in place of the chosen one."""
    for record in records:
        yield record
        if isinstance(record, Pair) and record.rejected:
            yield replace(record, output=record.rejected)


def asked_of(record: Record) -> str:
    """What distinguishes a record within its source: its text, or the question without the answer."""
    if isinstance(record, Passage):
        return f"{record.title}\n{record.text}"
    if isinstance(record, Question):
        return "\n".join((record.question, *record.contexts, *record.options))
    if isinstance(record, Pair):
        return "\n".join((*(content for _, content in record.history), record.input))
    return record.text


def content(record: Record) -> int:
    """A 64-bit digest of the content of a record without its identifier: equal content, equal number."""
    if isinstance(record, Passage):
        parts: tuple[str, ...] = ("passage", record.title, record.text)
    elif isinstance(record, Question):
        parts = ("question", record.question, record.answer, *record.contexts, "", *record.options)
    elif isinstance(record, Pair):
        parts = ("pair", record.input, record.output, *(part for turn in record.history for part in turn))
        parts += ("", record.reasoning) if record.reasoning else ()
        parts += ("", "rejected", record.rejected) if record.rejected else ()
    else:
        assert isinstance(record, Annotated)
        parts = ("annotated", record.text, *(f"{span.start} {span.end} {span.type}" for span in record.spans))
    return digest("\x1f".join(parts))


def digest(text: str) -> int:
    """A 64-bit digest of a text; memory for millions of them stays small."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")
