"""A request inside the engine: the handle that its caller holds, and the state that the engine's thread alone uses."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from lora_med.serving.decoding.answer_form import AnswerForm
from lora_med.serving.decoding.answer_text import AnswerText
from lora_med.serving.decoding.loaded_adapters import Version
from lora_med.serving.decoding.model_steps import Memory
from lora_med.serving.requests import Ask, Done, EngineError, Event, Loaded, Scored, Stopped


class RunningRequest:
    """What `Engine.submit` returns; see `requests.Running`."""

    def __init__(self, ask: Ask, loaded: Loaded | None, wake: Callable[[], None]) -> None:
        self.id = ask.id
        self.loaded = loaded
        self.adapter_sha256 = None if loaded is None else loaded.sha256
        self.is_cancelled = False
        self._wake = wake
        self._changed = threading.Condition()
        self._events: deque[Event | EngineError] = deque()
        self._has_ended = False
        self._call: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[Event]:
        while (event := self.next_event()) is not None:
            yield event

    def next_event(self, timeout: float | None = None) -> Event | None:
        """The next event, or None after the last; waits for it.

        Raises:
            TimeoutError: none came in time.
            EngineError: the request ended so.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._events or self._has_ended, timeout):
                raise TimeoutError(f"no event of request {self.id} within {timeout} s")
            if not self._events:
                return None
            event = self._events.popleft()
        if isinstance(event, EngineError):
            raise event
        return event

    def on_event(self, call: Callable[[], None]) -> None:
        """Call `call()` whenever an event can be taken, at once if one can be taken now."""
        with self._changed:
            self._call = call
            waiting = bool(self._events) or self._has_ended
        if waiting:
            call()

    def cancel(self) -> None:
        """Stop the request: at most one further token is computed."""
        self.is_cancelled = True
        self._wake()

    def deliver(self, event: Event | EngineError) -> None:
        """Give the caller an event, from the engine's thread; nothing after the last one."""
        with self._changed:
            if self._has_ended:
                return
            self._events.append(event)
            self._has_ended = isinstance(event, Done | EngineError)
            call = self._call
            self._changed.notify_all()
        if call is not None:
            call()

    def stopped(self) -> None:
        """Tell the caller that the request was stopped."""
        self.deliver(Stopped(f"request {self.id} was stopped"))


@dataclass(eq=False)
class Sequence:
    """A request's state in the engine's thread.

    `slots` keep its adapter in memory, and are None until it is there; `failure` is why it is not. `computed` counts
    the prompt's tokens whose keys and values are known, `cached` those of them that were cached. `last` is the newest
    token, which the next step takes; `written` counts the answer's tokens.
    """

    handle: RunningRequest
    ask: Ask
    version: Version
    text: AnswerText
    form: AnswerForm | None
    generator: torch.Generator | None
    size_bytes: int
    memory: Memory | None = None
    slots: Any = None
    alone: bool = False
    failure: EngineError | None = None
    computed: int = 0
    cached: int = 0
    last: int = -1
    written: int = 0
    has_ended: bool = False
    logprobs: list[float | None] = field(default_factory=lambda: [None])
    alternatives: list[tuple[Scored, ...]] = field(default_factory=lambda: [()])

    @property
    def is_decoding(self) -> bool:
        """Whether its prompt is computed."""
        return self.last >= 0


def tokens_of(ask: Ask) -> int:
    """How many tokens a request's memory must take; the last token of an answer is not read."""
    return len(ask.tokens) + max(0, ask.sampling.max_tokens - 1)
