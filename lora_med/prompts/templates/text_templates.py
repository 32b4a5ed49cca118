"""Texts: passages as they are, pairs of prompt and completion, dialogues and the notes written from them."""

from __future__ import annotations

from collections.abc import Iterator

from lora_med.data.record import Pair, Passage
from lora_med.errors import SettingsError
from lora_med.prompts.row import Row, chat, plain, prompted


def text(record: Passage) -> Row:
    """Title and text, every token trained; a text too long is cut where a section begins."""
    whole = f"{record.title}\n{record.text}" if record.title else record.text
    return plain(record, whole, tuple(_starts(record, whole)))


def _starts(record: Passage, whole: str) -> Iterator[int]:
    """Where the sections begin in the text, with their labels; one that is not found there begins nowhere."""
    place = len(whole) - len(record.text)
    for section in record.sections:
        found = whole.find(section.text, place)
        if found < 0:
            continue
        label = whole.rfind(section.label, place, found) if section.label else -1
        start = found if label < 0 else label
        if start > 0:
            yield start
        place = found + len(section.text)


def pair(record: Pair) -> Row:
    """Prompt and completion with nothing between them."""
    _single(record, "pair")
    return prompted(record, record.input, record.output)


def pair_chat(record: Pair) -> Row:
    """A conversation whose last answer is trained."""
    return chat(record, (*record.history, ("user", record.input)), record.output)


def note(record: Pair) -> Row:
    """A dialogue, the section wanted if there is one, and the note."""
    _single(record, "note")
    section = f"\nSection: {record.section}" if record.section else ""
    before = "Dialogue:\n"
    context = (len(before), len(before) + len(record.input))
    return prompted(record, f"{before}{record.input}\n{section}\nNote:\n", record.output, context)


def question_summary(record: Pair) -> Row:
    """A consumer's question as mailed, then what is asked in one sentence."""
    _single(record, "question_summary")
    before = "Question:\n"
    context = (len(before), len(before) + len(record.input))
    return prompted(record, f"{before}{record.input}\n\nSummary:", f" {record.output}", context)


def _single(record: Pair, template: str) -> None:
    if record.history:
        raise SettingsError(
            f"record {record.uid}: `{template}` takes no conversation, and {len(record.history)} turns come before",
            where="data.template",
            fix="data.template=pair_chat",
        )
