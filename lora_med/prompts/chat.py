"""A tokenizer's own chat template taken apart: the text it writes around the contents, known apart from them.

The template never sees what the turns say, only a mark for each. So no content can pass for a control token, and one
rendering serves all conversations with the same roles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.errors import SettingsError

MARK = "\ue000"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a conversation: text of the template, or (with `turn`) the content of that turn."""

    text: str
    turn: int | None = None


@dataclass(frozen=True)
class Skeleton:
    """A conversation of certain roles: what generation starts from, and the answer with its end-of-turn token.

    `needs_eos` says that the template ends the answer with no control token, so the end of text has to do.
    """

    prompt: tuple[Part, ...]
    answer: tuple[Part, ...]
    needs_eos: bool


def _apply(tokenizer: Any, roles: Sequence[str], generation_prompt: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise SettingsError(
            "the base's tokenizer has no chat template",
            where="data.template",
            fix="choose a template that is no conversation, such as pubmedqa or pair, or a base tuned for chat",
        )
    from jinja2 import TemplateError

    messages = [{"role": role, "content": f"{MARK}{turn}{MARK}"} for turn, role in enumerate(roles)]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
    except TemplateError as error:
        raise SettingsError(
            f"the base's chat template refuses a conversation of the turns {', '.join(roles)}",
            where="data.template",
            fix="some bases know no system turn, and want user and assistant to alternate",
        ) from error


def _parts(text: str) -> list[Part]:
    cut = text.split(MARK)
    parts = [Part("", int(piece)) if place % 2 else Part(piece) for place, piece in enumerate(cut)]
    return [part for part in parts if part.text or part.turn is not None]


def skeleton(tokenizer: Any, roles: Sequence[str], control: re.Pattern[str] | None) -> Skeleton:
    """The conversation of `roles`, the last the assistant's. The answer ends right after its end-of-turn token.

    What a template writes after that token, such as a line break, is left out: generation has stopped by then.
    `control` finds control tokens in the template's text.

    Raises:
        SettingsError: no chat template, or one that refuses these roles.
    """
    last = len(roles) - 1
    start = _apply(tokenizer, roles[:-1], True)
    whole = _apply(tokenizer, roles, False)
    if whole.startswith(start):
        answer = _parts(whole[len(start) :])
    else:  # a generation prompt that the template does not write before past answers: generation decides
        found = _parts(whole)
        answer = found[next(place for place, part in enumerate(found) if part.turn == last) :]
    place = next((place for place, part in enumerate(answer) if part.turn == last), None)
    if place is None:
        raise SettingsError("the base's chat template leaves out the assistant's answer", where="data.template")
    closing = "".join(part.text for part in answer[place + 1 :])
    end = control.search(closing) if control else None
    closing = closing[: end.end()] if end else closing.rstrip()
    kept = (*answer[: place + 1], *((Part(closing),) if closing else ()))
    return Skeleton(tuple(_parts(start)), kept, needs_eos=end is None)
