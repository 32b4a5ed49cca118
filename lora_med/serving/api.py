"""The HTTP interface over an engine: OpenAI's endpoints, health, metrics, and calls for an administrator.

    app = build_app(engine, models, base, limits, hosts=..., keys=..., admin_keys=..., bounds=...)

What a request may hold is in web/chat_request.py and web/completion_request.py. Every request passes
web/request_guard.py first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router

from lora_med.adapters.store.store import check_name
from lora_med.models.base import Base
from lora_med.serving.requests import Limits, NotLoaded, Sampling
from lora_med.serving.served_models import ServedModels
from lora_med.serving.submission import Submission, Submitter
from lora_med.serving.web.allowed_hosts import AllowedHosts
from lora_med.serving.web.answer_shapes import ChatShapes, CompletionShapes, Envelope, Shapes
from lora_med.serving.web.answer_stream import AnswerResponse
from lora_med.serving.web.api_keys import ApiKeys
from lora_med.serving.web.chat_request import ChatRequest
from lora_med.serving.web.completion_request import CompletionRequest, Prompt
from lora_med.serving.web.error_bodies import ApiError, shown_number
from lora_med.serving.web.json_body import parse_object
from lora_med.serving.web.request_fields import Fields, parse_fields
from lora_med.serving.web.request_guard import FACTS, Bounds, Facts, RequestGuard
from lora_med.serving.web.running_answer import RunningAnswer
from lora_med.serving.web.server_metrics import CONTENT_TYPE, ServerMetrics

if TYPE_CHECKING:
    from lora_med.serving.engine import Engine

MODEL, SHA256, FINGERPRINT = "x-lora-med-model", "x-lora-med-adapter-sha256", "x-lora-med-fingerprint"


class Api:
    """The handlers; each takes a request that the guard has admitted."""

    def __init__(
        self, engine: Engine, models: ServedModels, base: Base, limits: Limits, metrics: ServerMetrics
    ) -> None:
        self._engine, self._models, self._limits, self._metrics = engine, models, limits, metrics
        self._tokenizer = base.tokenizer
        self._submitter = Submitter(engine, models, limits)
        self._encoding = ThreadPoolExecutor(1, "encode")
        self._forming = ThreadPoolExecutor(1, "form")  # a schema may take a second, and the others do not wait for it
        self._loading = ThreadPoolExecutor(1, "load")
        self.guard: RequestGuard | None = None

    def routes(self) -> list[Route]:
        """Path by path."""
        table: tuple[tuple[str, str, Callable[[Request], Any]], ...] = (
            ("GET", "/health", self.health),
            ("GET", "/ready", self.ready),
            ("GET", "/metrics", self.metrics),
            ("GET", "/v1/models", self.list_models),
            ("GET", "/v1/models/{name:path}", self.show_model),
            ("POST", "/v1/chat/completions", self.chat),
            ("POST", "/v1/completions", self.complete),
            ("PUT", "/admin/adapters/{name}", self.load),
            ("DELETE", "/admin/adapters/{name}", self.unload),
        )
        return [Route(path, _named(path, handler), methods=[method]) for method, path, handler in table]

    async def health(self, request: Request) -> Response:
        """200 as long as the process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """200 if requests are taken; 503 while the server stops, or if the base itself is out of service."""
        stopping = self.guard is not None and self.guard.is_draining
        return JSONResponse({"status": "stopping" if stopping else "ready"}, status_code=503 if stopping else 200)

    async def metrics(self, request: Request) -> Response:
        """Counts in Prometheus' format."""
        page = self._metrics.render(self._engine.statistics())
        return PlainTextResponse(page, headers={"content-type": CONTENT_TYPE})

    async def list_models(self, request: Request) -> Response:
        """The base and every loaded adapter."""
        return JSONResponse({"object": "list", "data": [model.as_json() for model in self._models.all]})

    async def show_model(self, request: Request) -> Response:
        """One of them."""
        return JSONResponse(self._models.find(request.path_params["name"]).as_json())

    async def load(self, request: Request) -> Response:
        """Load an adapter of the store, or replace the loaded one of its name by what the store has now."""
        name = check_name(request.path_params["name"])
        loop = asyncio.get_running_loop()
        model, replaced = await loop.run_in_executor(self._loading, self._models.load, name)
        return JSONResponse(model.as_json() | {"replaced": replaced})

    async def unload(self, request: Request) -> Response:
        """Take an adapter out of service; running requests finish."""
        name = check_name(request.path_params["name"])
        await asyncio.get_running_loop().run_in_executor(self._loading, self._models.unload, name)
        return JSONResponse({"id": name, "object": "model", "deleted": True})

    async def chat(self, request: Request) -> Response:
        """/v1/chat/completions."""
        facts: Facts = request.scope[FACTS]
        fields = parse_fields(ChatRequest, parse_object(facts.body))
        sampling = self._sampling(fields, fields.limit or 1, fields.alternatives)
        submission = Submission(
            facts.id,
            facts.key,
            fields.model,
            sampling,
            messages=fields.as_messages,
            choices=fields.n,
            fills_context=fields.limit is None,
        )
        return await self._answer(submission, fields, facts, ChatShapes(fields.logprobs), f"chatcmpl-{facts.id}")

    async def complete(self, request: Request) -> Response:
        """/v1/completions."""
        facts: Facts = request.scope[FACTS]
        fields = parse_fields(CompletionRequest, parse_object(facts.body))
        self._check_count(len(fields.prompt) * fields.n)
        sampling = self._sampling(fields, fields.max_tokens, fields.logprobs)
        submission = Submission(
            facts.id,
            facts.key,
            fields.model,
            sampling,
            prompts=fields.prompt,
            choices=fields.n,
            echo_logprobs=fields.echo and (fields.logprobs is not None or fields.max_tokens == 0),
        )
        shapes = CompletionShapes(fields.logprobs is not None)
        return await self._answer(submission, fields, facts, shapes, f"cmpl-{facts.id}", echo=fields.echo)

    async def _answer(
        self,
        submission: Submission,
        fields: Fields,
        facts: Facts,
        shapes: Shapes,
        answer_id: str,
        *,
        echo: bool = False,
    ) -> Response:
        facts.model = self._models.find(fields.model).name
        loop = asyncio.get_running_loop()
        threads = self._encoding if submission.sampling.constraint is None else self._forming
        model, requests = await loop.run_in_executor(threads, self._submitter.submit, submission)
        prompts = [prompt for prompt in submission.prompts for _ in range(fields.n)]
        echoed = [self._text(prompt) for prompt in prompts] if echo else None
        answer = RunningAnswer(requests, lambda token: self._token_text(model.adapter, token), echoed)
        headers = {MODEL: model.name, SHA256: model.sha256 or "none", FINGERPRINT: model.fingerprint}
        return AnswerResponse(
            answer,
            shapes,
            Envelope(answer_id, model.name, model.fingerprint),
            choices=fields.n,
            chunks=fields.stream,
            include_usage=fields.include_usage,
            headers=headers,
        )

    def _sampling(self, fields: Fields, max_tokens: int, logprobs: int | None) -> Sampling:
        if max_tokens > self._limits.max_tokens:
            raise ApiError(
                400,
                f"max_tokens: at most {self._limits.max_tokens}, got {shown_number(max_tokens)}; fix: --max-tokens",
                code="invalid_value",
                param="max_tokens",
            )
        return Sampling(
            max_tokens,
            fields.temperature,
            fields.top_p,
            fields.seed,
            tuple(fields.stop),
            logprobs,
            fields.constraint,
        )

    def _check_count(self, count: int) -> None:
        most = self._limits.max_per_key
        if count > most:
            message = f"the prompts times n are {count} answers; at most {most} at once here; fix: --max-per-key"
            raise ApiError(400, message, code="invalid_value", param="prompt")

    def _text(self, prompt: Prompt) -> str:
        return prompt if isinstance(prompt, str) else self._tokenizer.decode(list(prompt))

    def _token_text(self, adapter: str | None, token: int) -> str:
        try:
            return self._engine.text_of(adapter, token)
        except NotLoaded:  # it was unloaded while it answers; only the tokens that it trained have no text then
            return self._tokenizer.decode([token])


def _named(path: str, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """The handler, which first writes its path into the request's facts, as the log and the metrics name it."""

    async def named(request: Request) -> Response:
        request.scope[FACTS].endpoint = path
        return await handler(request)

    return named


def build_app(
    engine: Engine,
    models: ServedModels,
    base: Base,
    limits: Limits,
    *,
    hosts: AllowedHosts,
    keys: ApiKeys,
    admin_keys: ApiKeys,
    bounds: Bounds,
) -> RequestGuard:
    """The ASGI application."""
    metrics = ServerMetrics()
    api = Api(engine, models, base, limits, metrics)
    router = Router(api.routes(), redirect_slashes=False)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["app"] = app  # with it, the router raises its errors
        await router(scope, receive, send)

    api.guard = RequestGuard(app, hosts, keys, admin_keys, bounds, metrics)
    return api.guard
