"""Prompt templates: pure functions from a record to a row. Once released one is frozen; a change is a new `_v2`.

The wording of `pubmedqa` is that of lm-evaluation-harness, byte for byte, so that scores compare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lora_med.config.names import unknown
from lora_med.data.record import Pair, Passage, Question, Record
from lora_med.errors import SettingsError


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


def _plain(record: Record, text: str) -> Row:
    return Row(record.uid, record.group, (), "", text)


def _chat(record: Record, turns: tuple[tuple[str, str], ...], answer: str) -> Row:
    """A conversation; contents are stripped, as many chat templates do and others then would not agree with."""
    stripped = tuple((role, content.strip()) for role, content in turns)
    return Row(record.uid, record.group, (*stripped, ("assistant", answer.strip())), "", answer.strip())


def _text(record: Passage) -> Row:
    return _plain(record, f"{record.title}\n{record.text}" if record.title else record.text)


def _abstract_and_question(record: Question) -> str:
    return "Abstract: {}\nQuestion: {}\nAnswer:".format("\n".join(record.contexts), record.question)


def _pubmedqa(record: Question) -> Row:
    return Row(record.uid, record.group, (), _abstract_and_question(record), f" {record.answer}")


def _spaced_options(record: Question) -> tuple[str, ...]:
    return tuple(f" {option}" for option in record.options)


def _pubmedqa_chat(record: Question) -> Row:
    asked = _abstract_and_question(record).removesuffix("Answer:") + "Answer with yes, no or maybe."
    return _chat(record, (("user", asked),), record.answer)


def _bare_options(record: Question) -> tuple[str, ...]:
    return record.options


def _pair(record: Pair) -> Row:
    if record.history:
        raise SettingsError(
            f"record {record.uid}: `pair` takes no conversation, and {len(record.history)} turns come before",
            where="data.template",
            fix="data.template=pair_chat",
        )
    return Row(record.uid, record.group, (), record.input, record.output)


def _pair_chat(record: Pair) -> Row:
    return _chat(record, (*record.history, ("user", record.input)), record.output)


def _question_chat(record: Question) -> Row:
    lines = [*record.contexts, record.question]
    lines += [
        f"{letter}. {option}" for letter, option in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", record.options, strict=False)
    ]
    return _chat(record, (("user", "\n".join(lines)),), record.answer)


TEMPLATES: dict[str, Template] = {
    "text": Template("text", "title and labelled sections as plain text, every token trained", Passage, _text),
    "pubmedqa": Template(
        "pubmedqa",
        "abstract, question, `Answer:`, as lm-evaluation-harness words it",
        Question,
        _pubmedqa,
        _spaced_options,
    ),
    "pubmedqa_chat": Template("pubmedqa_chat", "the same as a conversation", Question, _pubmedqa_chat, _bare_options),
    "pair": Template("pair", "the prompt and its completion as they are, nothing between them", Pair, _pair),
    "pair_chat": Template("pair_chat", "a conversation whose last answer is trained", Pair, _pair_chat),
    "question_chat": Template(
        "question_chat", "contexts, question and lettered options as a conversation", Question, _question_chat
    ),
}


def find_template(name: str) -> Template:
    """The template called `name`.

    Raises:
        SettingsError: there is none; the message gives the nearest name.
    """
    if name not in TEMPLATES:
        raise SettingsError(unknown("prompt template", name, TEMPLATES), where="data.template")
    return TEMPLATES[name]
