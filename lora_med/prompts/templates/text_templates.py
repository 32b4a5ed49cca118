"""Texts: passages as they are, pairs of prompt and completion, dialogues and the notes written from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lora_med.data.record import Pair, Passage
from lora_med.errors import SettingsError
from lora_med.prompts.row import Row, chat, conversation, plain, prompted


def text(record: Passage) -> Row:
    """Title and text, every token trained; a text too long is cut where a section begins."""
    full_text = f"{record.title}\n{record.text}" if record.title else record.text
    return plain(record, full_text, tuple(_starts(record, full_text)))


def _starts(record: Passage, full_text: str) -> Iterator[int]:
    """The offsets at which the sections begin, labels included; a section whose text does not occur has none."""
    offset = len(full_text) - len(record.text)
    for section in record.sections:
        start_of_text = full_text.find(section.text, offset)
        if start_of_text < 0:
            continue
        label = full_text.rfind(section.label, offset, start_of_text) if section.label else -1
        start = start_of_text if label < 0 else label
        if start > 0:
            yield start
        offset = start_of_text + len(section.text)


def pair(record: Pair) -> Row:
    """Prompt and completion with nothing between them."""
    _single(record, "pair")
    return prompted(record, record.input, record.output)


def pair_chat(record: Pair) -> Row:
    """A conversation whose last answer is trained."""
    _without_reasoning(record, "pair_chat")
    return chat(record, (*record.history, ("user", record.input)), record.output)


def pair_chat_v2(record: Pair) -> Row:
    """The same as the base's own chat template renders it, contents as they are, with the reasoning if there is one."""
    row = conversation(record, (*record.history, ("user", record.input)), record.output)
    return replace(row, reasoning=record.reasoning)


def note(record: Pair) -> Row:
    """A dialogue, the section wanted if there is one, and the note."""
    _single(record, "note")
    section = f"\nSection: {record.section}" if record.section else ""
    before = "Dialogue:\n"
    context = (len(before), len(before) + len(record.input))
    return prompted(record, f"{before}{record.input}\n{section}\nNote:\n", record.output, context)


def question_summary(record: Pair) -> Row:
    """A consumer's question as mailed, then its summary in one sentence."""
    _single(record, "question_summary")
    before = "Question:\n"
    context = (len(before), len(before) + len(record.input))
    return prompted(record, f"{before}{record.input}\n\nSummary:", f" {record.output}", context)


def _single(record: Pair, template: str) -> None:
    if record.history:
        raise SettingsError(
            f"record {record.uid}: `{template}` takes no conversation; there are {len(record.history)} earlier turns",
            where="data.template",
            fix="data.template=pair_chat_v2",
        )
    _without_reasoning(record, template)


def _without_reasoning(record: Pair, template: str) -> None:
    if record.reasoning:
        raise SettingsError(
            f"record {record.uid} has reasoning before its answer, and `{template}` has no place for it",
            where="data.template",
            fix="data.template=pair_chat_v2",
        )
