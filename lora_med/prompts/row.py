"""Row and Template: what a model is to see of a record, and one way to make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lora_med.data.record import Record


@dataclass(frozen=True, slots=True)
class Row:
    """A record as the model is to see it: plain text, a prompt with its completion, or a conversation.

    Plain text: `turns` and `prompt` are empty and the whole `completion` is trained. Prompt: only the completion is
    trained. Conversation: `turns` are `(role, content)` and end with the assistant's, which `completion` repeats and
    which alone is trained.
    """

    uid: str
    group: str
    turns: tuple[tuple[str, str], ...]
    prompt: str
    completion: str


@dataclass(frozen=True)
class Template:
    """One way to put a record. `takes` is the kind of record; `options` gives what the completion may be, if closed.

    The options are in the form and order of the record's own options and hold the completion itself.
    """

    name: str
    summary: str
    takes: type
    render: Callable[[Any], Row]
    options: Callable[[Any], tuple[str, ...]] | None = None


def plain(record: Record, text: str) -> Row:
    """Running text, all of it trained."""
    return Row(record.uid, record.group, (), "", text)


def prompted(record: Record, prompt: str, completion: str) -> Row:
    """A prompt and its completion, which alone is trained."""
    return Row(record.uid, record.group, (), prompt, completion)


def chat(record: Record, turns: tuple[tuple[str, str], ...], answer: str) -> Row:
    """A conversation; contents are stripped, as many chat templates do and others then would not agree with."""
    stripped = tuple((role, content.strip()) for role, content in turns)
    return Row(record.uid, record.group, (*stripped, ("assistant", answer.strip())), "", answer.strip())
