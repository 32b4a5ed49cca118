"""Row and Template: a record as the model sees it, and one way to make that row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from lora_med.data.record import Record

AssistantTurns = Literal["last", "all"]
TooLong = Literal["error", "drop", "trim_context", "chunk_by_section"]
ANSWERED: tuple[TooLong, ...] = ("error", "drop")
WITH_CONTEXT: tuple[TooLong, ...] = ("error", "drop", "trim_context")
RUNNING: tuple[TooLong, ...] = ("chunk_by_section", "error", "drop")


@dataclass(frozen=True, slots=True)
class Row:
    """A record as the model sees it: plain text, a prompt with its completion, or a conversation.

    Plain text: `turns` and `prompt` are empty, and the entire `completion` is trained. Prompt: only the completion is
    trained. Conversation: `turns` are `(role, content)`. The last is the assistant's; `completion` repeats it, and only
    that turn is trained.

    Three fields say what to do with a row too long for the model. `context` is the range (start and end, in characters)
    of the prompt, or of a conversation's last question, that may be truncated from its end. `breaks` are the offsets
    at which plain text is best cut. `too_long` is the action.

    With `by_base` the base's own chat template renders the conversation as a whole (prompts/conversation.py). Then
    `reasoning` is what the assistant thought before the last answer, and `assistant_turns` says which of its turns are
    trained.
    """

    uid: str
    group: str
    turns: tuple[tuple[str, str], ...]
    prompt: str
    completion: str
    context: tuple[int, int] = (0, 0)
    breaks: tuple[int, ...] = ()
    too_long: TooLong = "error"
    by_base: bool = False
    reasoning: str = ""
    assistant_turns: AssistantTurns = "last"


@dataclass(frozen=True)
class Template:
    """One way to render a record. `takes` is the kind of record; `options` gives the possible completions, if closed.

    The options have the form and order of the record's own options and include the completion. `needs` states what a
    record must have besides its kind, and `fits` tests it; a record without it is left out. `too_long` lists the ways
    to fit a row to a length, the default first. `description` gives the beginning of the prompt that is written only
    once if solved examples precede the question. `lettered` is true if the options have letters, which are the
    completions. `chat` is true if its rows are conversations, and `by_base` if the base's own template renders them.
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
    chat: bool = False
    by_base: bool = False


def plain(record: Record, text: str, breaks: tuple[int, ...] = ()) -> Row:
    """Running text, all of it trained; `breaks` are the offsets where a section begins."""
    return Row(record.uid, record.group, (), "", text, breaks=breaks)


def prompted(record: Record, prompt: str, completion: str, context: tuple[int, int] = (0, 0)) -> Row:
    """A prompt and its completion; only the completion is trained."""
    return Row(record.uid, record.group, (), prompt, completion, context)


def chat(record: Record, turns: tuple[tuple[str, str], ...], answer: str, context: tuple[int, int] = (0, 0)) -> Row:
    """A conversation; contents are stripped, as many chat templates do, so that all templates give the same text.

    `context` is a range of characters in the last given turn.
    """
    stripped = tuple((role, content.strip()) for role, content in turns)
    question, stripped_question = turns[-1][1], stripped[-1][1]
    blanks = len(question) - len(question.lstrip())
    start, end = (min(max(offset - blanks, 0), len(stripped_question)) for offset in context)
    return Row(record.uid, record.group, (*stripped, ("assistant", answer.strip())), "", answer.strip(), (start, end))


def conversation(
    record: Record, turns: tuple[tuple[str, str], ...], answer: str, context: tuple[int, int] = (0, 0)
) -> Row:
    """A conversation that the base's own chat template renders; contents stay as they are.

    `context` is a range of characters in the last given turn.
    """
    return Row(record.uid, record.group, (*turns, ("assistant", answer)), "", answer, context, by_base=True)


def shortened(row: Row, letters: int) -> Row:
    """The row with only the first `letters` characters of its context, otherwise unchanged."""
    start, end = row.context
    prompt = row.turns[-2][1] if row.turns else row.prompt
    context_text = prompt[start : start + letters].rstrip()
    prompt = prompt[:start] + context_text + prompt[end:]
    context = (start, start + len(context_text))
    if row.turns:
        turns = (*row.turns[:-2], (row.turns[-2][0], prompt), row.turns[-1])
        return replace(row, turns=turns, context=context)
    return replace(row, prompt=prompt, context=context)
