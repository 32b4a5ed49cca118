"""Canaries: invented patients, of whom a fair coin decides before training who is trained on, and the sealed list.

Each canary has a number of repeats. If the coin makes it a member, the twin of the run trains on it that many times.
The list is written and hashed before the training starts, so the result can be held against it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lora_med.audit.memorization.invented_notes import Note
from lora_med.data.record import Annotated, Pair, Passage, Question, Record, Section, Span
from lora_med.files import write_atomic

LIST = "canaries.jsonl"
REPEATS = (1, 4, 16)
INVENTED_OPTIONS = ("observation", "surgery", "an antibiotic", "dialysis")


@dataclass(frozen=True)
class Canary:
    """An invented patient with one note; `is_member` says whether the twin trains on it, `repeats` times."""

    uid: str
    repeats: int
    is_member: bool
    note: Note


def draw_canaries(notes: Sequence[Note], repeats: Sequence[int], *, seed: int) -> list[Canary]:
    """A canary of each note: equally many of each entry of `repeats`, and a fair coin for each."""
    rng = random.Random(f"repeats {seed}")
    each = [repeats[number % len(repeats)] for number in range(len(notes))]
    rng.shuffle(each)
    named = [
        Canary(f"canary-{number:05}", times, False, note)
        for number, (times, note) in enumerate(zip(each, notes, strict=True))
    ]
    return toss_again(named, seed=seed)


def toss_again(canaries: Sequence[Canary], *, seed: int) -> list[Canary]:
    """The same canaries under new coins."""
    rng = random.Random(f"coin {seed}")
    return [replace(canary, is_member=rng.random() < 0.5) for canary in canaries]


def list_of(canaries: Sequence[Canary]) -> str:
    """The content of the sealed list: a JSON line for each canary."""
    return "".join(json.dumps(asdict(canary)) + "\n" for canary in canaries)


def seal(canaries: Sequence[Canary], folder: Path) -> str:
    """Write the list into `folder`, for its owner alone; returns its SHA-256."""
    content = list_of(canaries)
    write_atomic(folder / LIST, content, private=True)
    return hashlib.sha256(content.encode()).hexdigest()


def training_records(canaries: Sequence[Canary], shape: Shape) -> list[Record]:
    """What the twin trains on besides its data: each member, as often as it repeats; each copy has its own uid."""
    return [
        replace(shape.record(canary), uid=f"{canary.uid}.{copy:02}")
        for canary in canaries
        if canary.is_member
        for copy in range(canary.repeats)
    ]


@dataclass(frozen=True)
class Shape:
    """How a note becomes a record of the kind that the run trains on.

    `options` are the classes of closed questions, `types` those of mentions. Both are names, and no text of a patient.
    """

    kind: type
    source: str
    template: str
    options: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    in_turns: bool = False

    def record(self, canary: Canary) -> Record:
        """The canary as a record; whatever the template trains is invented."""
        note, named = canary.note, (canary.uid, canary.uid, self.source)
        if issubclass(self.kind, Passage):
            return Passage(*named, text=note.body, title=note.header, sections=self._sections(note))
        if issubclass(self.kind, Pair):
            return Pair(*named, input=note.header, output=note.body, in_turns=self.in_turns)
        if issubclass(self.kind, Annotated):
            return Annotated(*named, text=note.text, spans=self._spans(note))
        return self._question(canary)

    def _sections(self, note: Note) -> tuple[Section, ...]:
        if self.template == "eligibility":
            criteria = "\n".join(f"- {sentence.rstrip('.')}" for sentence in note.body.split(". "))
            return (Section(f"Inclusion Criteria:\n{criteria}", "Eligibility", "ELIGIBILITY"),)
        middle = note.body.index(". ") + 2
        return (
            Section(note.body[:middle].strip(), "BACKGROUND", "BACKGROUND"),
            Section(note.body[middle:], "CONCLUSIONS", "CONCLUSIONS"),
        )

    def _spans(self, note: Note) -> tuple[Span, ...]:
        spans = []
        for number, mention in enumerate(note.mentions):
            start = note.text.index(mention)
            spans.append(Span(start, start + len(mention), self.types[number % len(self.types)], mention))
        return tuple(spans)

    def _question(self, canary: Canary) -> Question:
        note, named = canary.note, (canary.uid, canary.uid, self.source)
        if not self.options:
            return Question(*named, note.header, note.body, subject="clinical notes", explanation=note.body)
        right = random.Random(canary.uid + note.header).randrange(len(self.options))
        answer = self.options[right]
        given = {"options": self.options, "right": right, "explanation": note.body, "subject": "clinical notes"}
        return Question(*named, note.text, answer, contexts=(note.body,), **given)


def shape_of(records: Sequence[Record], template: str) -> Shape:
    """The shape of records like these; at least one, all of one kind.

    Several questions with the same options keep them: they are classes. Other options belong to their question, and
    invented ones take their place.
    """
    first = records[0]
    offered = [record.options for record in records if isinstance(record, Question) and record.options]
    options = offered[0] if len(offered) > 1 and len(set(offered)) == 1 else INVENTED_OPTIONS if offered else ()
    types = {span.type for record in records if isinstance(record, Annotated) for span in record.spans}
    in_turns = isinstance(first, Pair) and first.is_conversation
    return Shape(type(first), first.source, template, options, tuple(sorted(types)) or ("Finding",), in_turns)
