"""Answers on their way to a page, for as long as its reader is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lora_med.review.playground.answering import AnswerPart, RunningText


async def parts(running: Sequence[RunningText]) -> AsyncIterator[tuple[int, AnswerPart]]:
    """Each part with the position of its answer, as soon as it is there, until all have ended."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(ready.set)

    for answer in running:
        answer.on_part(wake)
    remaining = dict(enumerate(running))
    while remaining:
        ready.clear()
        waits = True
        for number, answer in list(remaining.items()):
            part = answer.take()
            if part is None:
                continue
            waits = False
            if part.is_last:
                del remaining[number]
            yield number, part
        if waits:
            await ready.wait()


async def whole(running: Sequence[RunningText]) -> list[AnswerPart]:
    """Each answer, complete."""
    answers = [AnswerPart() for _ in running]
    async for number, part in parts(running):
        answers[number] = AnswerPart(answers[number].text + part.text, part.end, part.problem)
    return answers


class WhileRead(Response):
    """A response made by `work(scope, receive, send)` from running answers, which stop when the reader leaves."""

    def __init__(self, running: Sequence[RunningText], work: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        super().__init__()
        self._running, self._work = running, work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; return early if the reader leaves."""
        work = asyncio.ensure_future(self._work(scope, receive, send))
        gone = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            for answer in self._running:
                answer.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
