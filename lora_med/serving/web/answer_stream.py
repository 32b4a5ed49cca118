"""An answer on its way to a client: whole or as server-sent events, and stopped when the client leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.responses import JSONResponse, Response

from lora_med.serving.requests import Done
from lora_med.serving.web.answer_shapes import END_OF_STREAM, Envelope, Json, Shapes, event_line, usage
from lora_med.serving.web.error_bodies import as_api_error, place
from lora_med.serving.web.request_guard import FACTS, Facts, Receive, Scope, Send
from lora_med.serving.web.running_answer import RunningAnswer

EVENT_STREAM = "text/event-stream; charset=utf-8"
UNBUFFERED = {"x-accel-buffering": "no"}  # nginx would hold a stream back
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class AnswerResponse(Response):
    """The answer to one request; the client's leaving cancels what still runs.

    `choices` is how many answers each prompt gets. With `chunks`, it is a stream, whose last chunk has the token counts
    if `include_usage`.
    """

    def __init__(
        self,
        answer: RunningAnswer,
        shapes: Shapes,
        envelope: Envelope,
        *,
        choices: int,
        chunks: bool,
        include_usage: bool,
        headers: dict[str, str],
    ) -> None:
        super().__init__(headers=headers)
        self._answer, self._shapes, self._envelope = answer, shapes, envelope
        self._choices, self._chunks, self._include_usage = choices, chunks, include_usage
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; an error before the first byte is raised, so that it has its own status."""
        facts: Facts = scope[FACTS]
        work = self._stream(facts, send) if self._chunks else self._whole(facts, scope, receive, send)
        try:
            await _until_gone(receive, work)
        finally:
            self._answer.cancel()

    async def _whole(self, facts: Facts, scope: Scope, receive: Receive, send: Send) -> None:
        choices = await self._answer.whole()
        self._count(facts, [choice.done for choice in choices])
        content = self._envelope.wrap(
            self._shapes.whole,
            [self._shapes.answer(index, one.text, one.tokens, one.done.reason) for index, one in enumerate(choices)],
            usage([choice.done for choice in choices], self._choices),
        )
        await JSONResponse(content, headers=self._headers)(scope, receive, send)

    async def _stream(self, facts: Facts, send: Send) -> None:
        events = self._events(facts)
        first = await anext(events)
        headers = [(name.encode(), value.encode()) for name, value in (self._headers | UNBUFFERED).items()]
        headers.append((b"content-type", EVENT_STREAM.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        try:
            async for line in events:
                await send({"type": "http.response.body", "body": line, "more_body": True})
        except ConnectionError:
            raise
        except Exception as error:  # the status is sent: the stream itself says what happened
            answer = as_api_error(error, facts.id)
            facts.status = answer.status
            logger.error("request %s broke off: %s", facts.id, place(error))
            await send({"type": "http.response.body", "body": event_line(answer.body()), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, facts: Facts) -> AsyncIterator[bytes]:
        """The lines of the stream."""
        offsets: dict[int, int] = {}
        done: list[Done] = []
        async for part in self._answer.parts():
            choices = []
            if part.index not in offsets:
                offsets[part.index] = 0
                choices.append(self._shapes.first(part.index))
            if part.text or part.tokens:
                choices.append(self._shapes.part(part.index, part.text, part.tokens, offsets[part.index]))
                offsets[part.index] += len(part.text)
            if part.done is not None:
                done.append(part.done)
                choices.append(self._shapes.last(part.index, part.done.reason))
            lines = [self._chunk(choice) for choice in choices if choice is not None]
            if lines:
                yield b"".join(lines)
        self._count(facts, done)
        if self._include_usage:
            yield event_line(self._envelope.wrap(self._shapes.chunk, [], usage(done, self._choices)))
        yield END_OF_STREAM

    def _chunk(self, choice: Json) -> bytes:
        return event_line(self._envelope.wrap(self._shapes.chunk, [choice]))

    def _count(self, facts: Facts, done: list[Done]) -> None:
        counts = usage(done, self._choices)
        facts.prompt_tokens, facts.completion_tokens = counts["prompt_tokens"], counts["completion_tokens"]
        facts.first_token_at = self._answer.first_token_at


async def _until_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled if the client leaves first.

    Raises:
        ConnectionResetError: the client left.
    """
    worker, watcher = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((worker, watcher), return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            return worker.result()
        raise ConnectionResetError
    finally:
        for task in (worker, watcher):
            task.cancel()
        await asyncio.gather(worker, watcher, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
