"""The serving engine behind the playground of the review pages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lora_med.adapters.store.base_data import base_access
from lora_med.cli.serving.serving_options import limits_of
from lora_med.data.access import require_permission
from lora_med.errors import LoraMedError, SettingsError
from lora_med.prompts.templates.templates import is_chat
from lora_med.review.playground.answering import (
    MOST_ADAPTERS,
    MOST_TOKENS,
    AnswerPart,
    PlaygroundPrompt,
    PlaygroundSubject,
    RunningText,
)
from lora_med.serving.engine import Engine
from lora_med.serving.requests import Ask, Done, Piece, Running, Sampling
from lora_med.serving.served_models import Audience, ServedModel
from lora_med.serving.start import Wanted, open_all, running_engine

READERS = 4  # whose answers run at once; others wait
MOST_PROMPT_TOKENS = 8192


@contextmanager
def playground_engine(wanted: Wanted, kv_memory: float, permission: str | None) -> Iterator[EngineAnswering]:
    """The base and adapters of `wanted` in a running engine, until the end of the block.

    Raises:
        SettingsError: too many adapters.
        NotPermittedError: an adapter or the base is of credentialed data, and no permission is stated.
        LoraMedError: as `open_all`; nothing of the base is in memory then.
    """
    if len(wanted.names) > MOST_ADAPTERS:
        raise SettingsError(
            f"{len(wanted.names)} adapters do not fit on one page",
            where="--adapter",
            fix=f"name at most {MOST_ADAPTERS}",
        )
    audience = Audience(is_local=True)  # the page is on loopback; what it shows needs the permission below
    opened = open_all(wanted, audience)
    classes = {each.name: each.data.access for each in opened.adapters}
    of_base = base_access(opened.base, *(each.base for each in opened.adapters)) or "open"
    for name, access in [*classes.items(), (opened.base, of_base)]:
        require_permission(access, f"showing answers of {name!r} on a page", permission)
    together = READERS * (MOST_ADAPTERS + 1)
    limits = limits_of(MOST_ADAPTERS, kv_memory, together, together, together, MOST_PROMPT_TOKENS, MOST_TOKENS)
    with running_engine(opened, limits, audience) as (engine, models, _):
        yield EngineAnswering(engine, models.all)


class EngineAnswering:
    """The models of an engine, the base first; it fulfils the protocol `Answering`."""

    def __init__(self, engine: Engine, models: list[ServedModel]) -> None:
        self._engine, self._models = engine, models
        self._numbers = itertools.count(1)
        self._base_form = next((_is_chat(model) for model in models if model.adapter is not None), None)

    @property
    def subjects(self) -> list[PlaygroundSubject]:
        """What can be asked."""
        return [
            PlaygroundSubject(model.name, model.adapter is None, model.facts.get("access")) for model in self._models
        ]

    def ask(self, prompt: PlaygroundPrompt) -> list[RunningText]:
        """One running answer for each chosen subject."""
        number = next(self._numbers)
        return [self._ask_one(self._models[position], prompt, f"page-{number}") for position in prompt.subjects]

    def _ask_one(self, model: ServedModel, prompt: PlaygroundPrompt, ask_id: str) -> RunningText:
        try:
            if self._sends_chat(model, prompt):
                messages = [{"role": "user", "content": prompt.text}]
                tokens = self._engine.encode_chat(model.adapter, messages)
            else:
                tokens = self._engine.encode_text(model.adapter, prompt.text)
            context = self._engine.context
            most = prompt.most_tokens if context is None else min(prompt.most_tokens, context - len(tokens))
            ask = Ask(f"{ask_id}-{model.name}", model.adapter, tokens, Sampling(max(1, most)), identity=model.identity)
            return EngineText(self._engine.submit(ask))
        except LoraMedError as error:
            return NoText(error.what)

    def _sends_chat(self, model: ServedModel, prompt: PlaygroundPrompt) -> bool:
        if prompt.form != "trained":
            return prompt.form == "chat"
        return bool(self._base_form) if model.adapter is None else _is_chat(model)


def _is_chat(model: ServedModel) -> bool:
    return is_chat(str(model.facts.get("template", "")))


class NoText:
    """An answer that cannot begin: its problem is its only part."""

    def __init__(self, problem: str) -> None:
        self._parts = [AnswerPart(problem=problem)]

    def on_part(self, call: Callable[[], None]) -> None:
        """The problem can be taken at once."""
        call()

    def take(self) -> AnswerPart | None:
        """The problem, once."""
        return self._parts.pop() if self._parts else None

    def cancel(self) -> None:
        """Nothing runs."""


@dataclass(frozen=True)
class EngineText:
    """A request in the engine as the page takes it."""

    running: Running

    def on_part(self, call: Callable[[], None]) -> None:
        """Whenever an event can be taken."""
        self.running.on_event(call)

    def take(self) -> AnswerPart | None:
        """All events that are there."""
        text = ""
        while True:
            try:
                event = self.running.next_event(timeout=0)
            except TimeoutError:
                return AnswerPart(text) if text else None
            except LoraMedError as error:
                return AnswerPart(text, problem=error.what)
            if event is None:
                return AnswerPart(text, problem="the answer ended early")
            if isinstance(event, Done):
                return AnswerPart(text + event.text, end=_end(event))
            text += event.text if isinstance(event, Piece) else ""

    def cancel(self) -> None:
        """Stop the request."""
        self.running.cancel()


def _end(done: Done) -> str:
    """How an answer ended, and whose weights gave it."""
    how = "ended by itself" if done.reason == "stop" else "cut at the longest answer"
    whose = (
        f"the bare base, weights SHA-256 {done.base_fingerprint}"
        if done.adapter_sha256 is None
        else f"adapter weights SHA-256 {done.adapter_sha256}"
    )
    return f"{done.completion_tokens:,} tokens after {done.prompt_tokens:,} of the prompt, {how}. By {whose}."
