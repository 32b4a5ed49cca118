"""Row and Template: what a model is to see of a record, and one way to make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from lora_med.data.record import Record

TooLong = Literal["error", "drop", "trim_context", "chunk_by_section"]
ANSWERED: tuple[TooLong, ...] = ("error", "drop")
WITH_CONTEXT: tuple[TooLong, ...] = ("error", "drop", "trim_context")
RUNNING: tuple[TooLong, ...] = ("chunk_by_section", "error", "drop")


@dataclass(frozen=True, slots=True)
class Row:
    """A record as the model is to see it: plain text, a prompt with its completion, or a conversation.

    Plain text: `turns` and `prompt` are empty and the whole `completion` is trained. Prompt: only the completion is
    trained. Conversation: `turns` are `(role, content)` and end with the assistant's, which `completion` repeats and
    which alone is trained.

    What a row too long for the model may lose: `context` is the stretch (start and end) of the prompt, or of the last
    question of a conversation, that may be shortened from its end; `breaks` are the places in plain text where it is
    best cut; `too_long` says which of it, or what else, is to be done.
    """

    uid: str
    group: str
    turns: tuple[tuple[str, str], ...]
    prompt: str
    completion: str
    context: tuple[int, int] = (0, 0)
    breaks: tuple[int, ...] = ()
    too_long: TooLong = "error"


@dataclass(frozen=True)
class Template:
    """One way to put a record. `takes` is the kind of record; `options` gives what the completion may be, if closed.

    The options are in the form and order of the record's own options and hold the completion itself. `needs` says in
    words what a record must have besides its kind, and `fits` whether it has it: one that has not is left out.
    `too_long` are the ways a row may be fitted to a length, the default first. `description` gives the beginning of the
    prompt that stands only once where solved examples come before the question. `lettered` says that the options are
    shown with letters, which are the completions.
    """

    name: str
    summary: str
    takes: type
    render: Callable[[Any], Row]
    options: Callable[[Any], tuple[str, ...]] | None = None
    too_long: tuple[TooLong, ...] = ANSWERED
    needs: str = ""
    fits: Callable[[Any], bool] = lambda record: True
    description: Callable[[Any], str] = lambda record: ""
    lettered: bool = False


def plain(record: Record, text: str, breaks: tuple[int, ...] = ()) -> Row:
    """Running text, all of it trained; `breaks` are the places where a section begins."""
    return Row(record.uid, record.group, (), "", text, breaks=breaks)


def prompted(record: Record, prompt: str, completion: str, context: tuple[int, int] = (0, 0)) -> Row:
    """A prompt and its completion, which alone is trained."""
    return Row(record.uid, record.group, (), prompt, completion, context)


def chat(record: Record, turns: tuple[tuple[str, str], ...], answer: str, context: tuple[int, int] = (0, 0)) -> Row:
    """A conversation; contents are stripped, as many chat templates do and others then would not agree with.

    `context` counts in the last turn that is given.
    """
    stripped = tuple((role, content.strip()) for role, content in turns)
    asked, kept = turns[-1][1], stripped[-1][1]
    blanks = len(asked) - len(asked.lstrip())
    start, end = (min(max(place - blanks, 0), len(kept)) for place in context)
    return Row(record.uid, record.group, (*stripped, ("assistant", answer.strip())), "", answer.strip(), (start, end))


def shortened(row: Row, letters: int) -> Row:
    """The row with the first `letters` of its context, nothing else of it changed."""
    start, end = row.context
    asked = row.turns[-2][1] if row.turns else row.prompt
    kept = asked[start : start + letters].rstrip()
    asked = asked[:start] + kept + asked[end:]
    context = (start, start + len(kept))
    if row.turns:
        turns = (*row.turns[:-2], (row.turns[-2][0], asked), row.turns[-1])
        return replace(row, turns=turns, context=context)
    return replace(row, prompt=asked, context=context)
