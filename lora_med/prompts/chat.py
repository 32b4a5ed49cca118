"""A tokenizer's own chat template split into segments: its own text, separate from the contents of the turns.

The template is rendered with a marker for each turn instead of its content. So no content can act as a control
token, and one rendering serves all conversations with the same roles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.errors import LoraMedError, SettingsError

MARK = "\ue000"


@dataclass(frozen=True, slots=True)
class TemplateSegment:
    """A segment of a conversation: text of the template, or (with `turn`) the content of that turn."""

    text: str
    turn: int | None = None


@dataclass(frozen=True)
class Skeleton:
    """The segments for a sequence of roles: what generation starts from, and the answer with its end-of-turn token.

    `needs_eos` is true if the template ends the answer without a control token, so the end of text must end it.
    """

    prompt: tuple[TemplateSegment, ...]
    answer: tuple[TemplateSegment, ...]
    needs_eos: bool


def _apply(tokenizer: Any, roles: Sequence[str], generation_prompt: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise SettingsError(
            "the base's tokenizer has no chat template",
            where="data.template",
            fix="choose a template without turns, such as pubmedqa or pair, or a base tuned for chat",
        )
    messages = [{"role": role, "content": f"{MARK}{turn}{MARK}"} for turn, role in enumerate(roles)]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
    except LoraMedError:  # it exceeds the limits
        raise
    except Exception as error:  # a template is a program of its own and may raise anything
        raise SettingsError(
            f"the base's chat template refuses a conversation with the turns {', '.join(roles)}",
            where="data.template",
            fix="some bases accept no system turn and need user and assistant to alternate",
        ) from error


def _segments(text: str) -> list[TemplateSegment]:
    pieces = text.split(MARK)
    segments = [
        TemplateSegment("", int(piece)) if number % 2 else TemplateSegment(piece) for number, piece in enumerate(pieces)
    ]
    return [segment for segment in segments if segment.text or segment.turn is not None]


def skeleton(tokenizer: Any, roles: Sequence[str], control: re.Pattern[str] | None) -> Skeleton:
    """The conversation of `roles`, the last the assistant's. The answer ends right after its end-of-turn token.

    Text of the template after that token, such as a line break, is left out: generation has already stopped.
    `control` matches control tokens in the template's text.

    Raises:
        SettingsError: no chat template, or one that refuses these roles.
    """
    last = len(roles) - 1
    start = _apply(tokenizer, roles[:-1], True)
    rendered = _apply(tokenizer, roles, False)
    if rendered.startswith(start):
        answer = _segments(rendered[len(start) :])
    else:  # the template writes its generation prompt only before a new answer: use what generation sees
        segments = _segments(rendered)
        answer = segments[next(answer_index for answer_index, segment in enumerate(segments) if segment.turn == last) :]
    answer_index = next((answer_index for answer_index, segment in enumerate(answer) if segment.turn == last), None)
    if answer_index is None:
        raise SettingsError("the base's chat template leaves out the assistant's answer", where="data.template")
    closing = "".join(segment.text for segment in answer[answer_index + 1 :])
    end = control.search(closing) if control else None
    closing = closing[: end.end()] if end else closing.rstrip()
    answer_segments = (*answer[: answer_index + 1], *((TemplateSegment(closing),) if closing else ()))
    return Skeleton(tuple(_segments(start)), answer_segments, needs_eos=end is None)
