"""Texts: passages as they are, pairs of prompt and completion, dialogues and the notes written from them."""

from __future__ import annotations

from lora_med.data.record import Pair, Passage
from lora_med.errors import SettingsError
from lora_med.prompts.row import Row, chat, plain, prompted


def text(record: Passage) -> Row:
    """Title and text, every token trained."""
    return plain(record, f"{record.title}\n{record.text}" if record.title else record.text)


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
    return prompted(record, f"Dialogue:\n{record.input}\n{section}\nNote:\n", record.output)


def _single(record: Pair, template: str) -> None:
    if record.history:
        raise SettingsError(
            f"record {record.uid}: `{template}` takes no conversation, and {len(record.history)} turns come before",
            where="data.template",
            fix="data.template=pair_chat",
        )
