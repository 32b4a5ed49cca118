"""Requests in the engine as the web sees them: submitted together, awaited together, and cancelled together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from lora_med.serving.requests import Done, Event, Piece, PromptScores, Running
from lora_med.serving.web.answer_shapes import Token, answer_token, prompt_tokens

DRAINED = 64  # events of one request before the next one has its turn


@dataclass
class Part:
    """What came of one choice since the last look at it."""

    index: int
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    done: Done | None = None


@dataclass
class Choice:
    """A whole answer."""

    text: str
    tokens: list[Token]
    done: Done


class RunningAnswer:
    """The running requests of one HTTP request, one for each choice; one event loop uses it.

    `echoed` are the texts of the prompts, which come before their answers; None echoes nothing.
    """

    def __init__(
        self, requests: Sequence[Running], token_text: Callable[[int], str], echoed: Sequence[str] | None = None
    ) -> None:
        self._requests, self._token_text = requests, token_text
        self._echoed = dict(enumerate(echoed or ()))  # taken out as they are delivered
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self.first_token_at: float | None = None
        for request in requests:
            request.on_event(self._wake)

    def cancel(self) -> None:
        """Stop all of it; those that have ended are unchanged."""
        for request in self._requests:
            request.cancel()

    async def parts(self) -> AsyncIterator[Part]:
        """What comes, choice by choice, as soon as it is there.

        Raises:
            EngineError: one of the requests failed; the others are cancelled.
        """
        running = dict(enumerate(self._requests))
        while running:
            self._ready.clear()
            waits = True
            for index in list(running):
                part = self._drain(index)
                if part is not None:
                    waits = False
                    if part.done is not None:
                        del running[index]
                    yield part
            if waits:
                await self._ready.wait()

    async def whole(self) -> list[Choice]:
        """All answers, complete."""
        texts: list[list[str]] = [[] for _ in self._requests]
        tokens: list[list[Token]] = [[] for _ in self._requests]
        done: dict[int, Done] = {}
        async for part in self.parts():
            texts[part.index].append(part.text)
            tokens[part.index] += part.tokens
            if part.done is not None:
                done[part.index] = part.done
        return [Choice("".join(texts[index]), tokens[index], done[index]) for index in range(len(texts))]

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._ready.set)

    def _drain(self, index: int) -> Part | None:
        """What one request has now; None if there is nothing yet."""
        part = Part(index)
        for _ in range(DRAINED):
            try:
                event = self._requests[index].next_event(timeout=0)
            except TimeoutError:
                break
            if event is None:
                raise RuntimeError("a request ended without its last event")
            part.text += self._echoed.pop(index, "")
            self._add(part, event)
            if part.done is not None:
                return part
        return part if part.text or part.tokens else None

    def _add(self, part: Part, event: Event) -> None:
        if isinstance(event, PromptScores):
            part.tokens += prompt_tokens(event)
            return
        if self.first_token_at is None:
            self.first_token_at = time.perf_counter()
        part.text += event.text
        if isinstance(event, Piece) and event.logprob is not None:
            part.tokens.append(answer_token(event, self._token_text(event.token)))
        elif isinstance(event, Done):
            part.done = event
