"""The playground: a plain form that gives a complete page, and for the script a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lora_med.data.access import strictest
from lora_med.review.playground.answer_flow import WhileRead, parts, whole
from lora_med.review.playground.answering import (
    FORMS,
    MOST_PROMPT,
    MOST_TOKENS,
    USUAL_TOKENS,
    Answering,
    PlaygroundPrompt,
    RunningText,
)
from lora_med.review.web.page_templates import NO_DATA, page
from lora_med.visible import visible

EVENT_STREAM = "text/event-stream; charset=utf-8"
MOST_FIELDS = 20


class PlaygroundPages:
    """The pages of one base with its adapters; without one the page says how to start it."""

    def __init__(self, answering: Answering | None) -> None:
        self._answering = answering
        self._asking = ThreadPoolExecutor(1, "ask")  # tokenizers keep state, so one thread uses them

    @property
    def access(self) -> str:
        """The strictest class of what can be asked."""
        if self._answering is None:
            return NO_DATA
        return strictest(each.access for each in self._subjects if each.access is not None)

    def routes(self) -> list[Route]:
        """The addresses of this page."""
        if self._answering is None:
            return [Route("/playground", self.missing, methods=["GET"])]
        return [
            Route("/playground", self.form, methods=["GET"]),
            Route("/playground", self.answered, methods=["POST"]),
            Route("/playground/stream", self.streamed, methods=["POST"]),
        ]

    def missing(self, request: Request) -> Response:
        """How to start it."""
        return page("no_playground.html.j2", access=self.access)

    def form(self, request: Request) -> Response:
        """The empty form."""
        return self._page({}, [])

    async def answered(self, request: Request) -> Response:
        """The page with every answer, once all are there."""
        given = await _fields(request)
        try:
            prompt = read_prompt(given, len(self._subjects))
        except ValueError as error:
            return self._page(given, [], str(error), 422)
        running = await self._ask(prompt)

        async def send_page(scope: Scope, receive: Receive, send: Send) -> None:
            answers = await whole(running)
            chosen = [self._subjects[number] for number in prompt.subjects]
            shown = [{"subject": subject, "answer": answer} for subject, answer in zip(chosen, answers, strict=True)]
            await self._page(given, shown)(scope, receive, send)

        return WhileRead(running, send_page)

    async def streamed(self, request: Request) -> Response:
        """The answers as events: first the subjects, then their parts as they come."""
        given = await _fields(request)
        try:
            prompt = read_prompt(given, len(self._subjects))
        except ValueError as error:
            body = _event({"problem": str(error)})
            return Response(body, 422, media_type=EVENT_STREAM)
        running = await self._ask(prompt)
        names = [self._subjects[number].name for number in prompt.subjects]

        async def send_events(scope: Scope, receive: Receive, send: Send) -> None:
            headers = [(b"content-type", EVENT_STREAM.encode()), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

            async def event(**values: object) -> None:
                await send({"type": "http.response.body", "body": _event(values), "more_body": True})

            await event(subjects=[visible(name, one_line=True) for name in names])
            async for number, part in parts(running):
                texts = {"text": part.text, "end": part.end, "problem": part.problem}
                await event(subject=number, **{name: visible(text) for name, text in texts.items() if text})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        return WhileRead(running, send_events)

    @property
    def _subjects(self) -> Sequence[Any]:
        return self._answering.subjects if self._answering is not None else ()

    async def _ask(self, prompt: PlaygroundPrompt) -> list[RunningText]:
        assert self._answering is not None
        return await asyncio.get_running_loop().run_in_executor(self._asking, self._answering.ask, prompt)

    def _page(
        self, given: Mapping[str, list[str]], answers: list[dict[str, Any]], problem: str = "", status: int = 200
    ) -> Response:
        chosen = given.get("subject", [str(number) for number in range(len(self._subjects))])
        return page(
            "playground.html.j2",
            status,
            access=self.access,
            subjects=[(number, each, str(number) in chosen) for number, each in enumerate(self._subjects)],
            forms=FORMS,
            given={name: values[-1] for name, values in given.items()},
            usual_tokens=USUAL_TOKENS,
            most_tokens=MOST_TOKENS,
            most_prompt=MOST_PROMPT,
            answers=answers,
            problem=problem,
        )


def read_prompt(given: Mapping[str, list[str]], subjects: int) -> PlaygroundPrompt:
    """The prompt in the fields of a form, where `subjects` can be chosen.

    Raises:
        ValueError: a sentence for the reader on what is wrong.
    """
    text = given.get("prompt", [""])[-1].replace("\r\n", "\n")
    form, most = given.get("form", ["trained"])[-1], given.get("most_tokens", [str(USUAL_TOKENS)])[-1]
    chosen = given.get("subject", [])
    if not text.strip():
        raise ValueError("Write a prompt.")
    if len(text) > MOST_PROMPT:
        raise ValueError(f"The prompt has {len(text):,} characters; at most {MOST_PROMPT:,} are sent.")
    if form not in FORMS:
        raise ValueError("Choose how the prompt is sent.")
    if not (most.isascii() and most.isdecimal() and len(most) < 6 and 1 <= int(most) <= MOST_TOKENS):
        raise ValueError(f"The longest answer is a whole number from 1 to {MOST_TOKENS}.")
    numbers = [int(each) for each in dict.fromkeys(chosen) if each in map(str, range(subjects))]
    if not numbers or len(numbers) != len(set(chosen)):
        raise ValueError("Choose the base or an adapter.")
    return PlaygroundPrompt(text, tuple(sorted(numbers)), form, int(most))


async def _fields(request: Request) -> dict[str, list[str]]:
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return parse_qs(body, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return {}  # too many fields: nothing is asked


def _event(values: Mapping[str, object]) -> bytes:
    return f"data: {json.dumps(values)}\n\n".encode()
