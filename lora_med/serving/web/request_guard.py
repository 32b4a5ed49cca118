"""What every request passes before its handler: host, key, method of the body, and bounds; and what it leaves behind.

The outermost layer. It gives each request an id, answers every error in OpenAI's form, counts the request, and writes
one line to the log, with names, counts and times only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from lora_med.serving.web.allowed_hosts import AllowedHosts
from lora_med.serving.web.api_keys import ApiKeys
from lora_med.serving.web.error_bodies import ApiError, as_api_error, busy, place, shown
from lora_med.serving.web.server_metrics import ServerMetrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
FACTS, ABORT = "lora_med.facts", "lora_med.abort"  # keys of a request's scope
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}  # a log names no other, which may be any text
WITHOUT_BODY = METHODS - {"POST", "PATCH"}
WITHOUT_KEY = {"/health", "/ready"}
WHILE_DRAINING = {"/health", "/ready", "/metrics"}
ADMIN = "/admin/"
DISCARD_BYTES, DISCARD_SECONDS = 16 * 1024**2, 1.0
CLIENT_GONE = 499  # nginx's status in logs for a client that left before its answer
SAME_FOR_ALL = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """How much, and how slowly, a client may send and read.

    `body_seconds` is the time for a whole body. A client that takes nothing for `stall_seconds` is cut off, and so is
    a connection on which no request is complete after `header_seconds`.
    """

    body_bytes: int = 4 * 1024**2
    body_seconds: float = 30.0
    header_seconds: float = 30.0
    stall_seconds: float = 60.0
    connections: int = 512


@dataclass
class Facts:
    """What is known of a request while it is answered; `key` is the identity of its API key."""

    id: str = field(default_factory=lambda: secrets.token_hex(12))
    started: float = field(default_factory=time.perf_counter)
    key: str = ""
    body: bytes = b""
    endpoint: str = "other"
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_at: float | None = None
    status: int = 0
    is_gone: bool = False


@dataclass
class RequestGuard:
    """The outermost layer around `app`; `is_draining` is set when the server stops."""

    app: App
    hosts: AllowedHosts
    keys: ApiKeys
    admin_keys: ApiKeys
    bounds: Bounds
    metrics: ServerMetrics
    is_draining: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        facts = scope[FACTS] = Facts()
        sender = _Sender(send, facts, scope, self.bounds.stall_seconds)
        try:
            await self._admit(scope, facts, receive)
            await self.app(scope, receive, sender)
        except HTTPException as error:
            await _answer(_of_router(error), scope, receive, sender)
        except ConnectionError:
            facts.is_gone = True
        except Exception as error:  # whatever it is, its words may quote a prompt
            answer = as_api_error(error, facts.id)
            if answer.error_code == "internal_error":
                logger.error("request %s: a bug in lora_med: %s", facts.id, place(error))
            if facts.status == 0:
                await _answer(answer, scope, receive, sender)
            else:
                scope[ABORT]()
        finally:
            self._record(scope, facts)

    async def _admit(self, scope: Scope, facts: Facts, receive: Receive) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        self.hosts.check(headers.getlist("host"), headers.getlist("origin"))
        if self.is_draining and path not in WHILE_DRAINING:
            error = busy("the server is stopping", 5, code="stopping")
            error.headers["connection"] = "close"
            raise error
        if path.startswith(ADMIN):
            self._check_key(headers, self.admin_keys, facts, is_admin=True)
        elif path not in WITHOUT_KEY:
            self._check_key(headers, self.keys, facts, is_admin=False)
        if scope["query_string"]:
            raise ApiError(400, "no path here takes a query; fix: put fields into the body", code="invalid_query")
        await self._read_body(scope, headers, facts, receive)

    def _check_key(self, headers: Headers, keys: ApiKeys, facts: Facts, *, is_admin: bool) -> None:
        if is_admin and not keys:
            raise ApiError(404, "there are no admin calls here; fix: --admin-key-file", code="not_found", close=True)
        identity = keys.identity(headers.get("authorization"))
        if identity is None:
            raise ApiError(
                401,
                "no key, or a wrong one; fix: send the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
                close=True,
            )
        facts.key = identity

    async def _read_body(self, scope: Scope, headers: Headers, facts: Facts, receive: Receive) -> None:
        """The body, into the facts; only a POST has one."""
        length = headers.get("content-length", "0")
        if "content-length" in headers and "transfer-encoding" in headers:  # a proxy may believe the other one
            raise ApiError(
                400, "a body has a Content-Length or a Transfer-Encoding, not both", code="invalid_body", close=True
            )
        if int(length) > self.bounds.body_bytes:
            if "expect" not in headers:
                await _discard(receive)
            raise self._too_large()
        if scope["method"] in WITHOUT_BODY:
            if length != "0" or "transfer-encoding" in headers:
                raise ApiError(400, f"a {scope['method']} has no body", code="invalid_body", close=True)
            return
        content = bytearray()
        try:
            async with asyncio.timeout(self.bounds.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionResetError
                    content += message.get("body", b"")
                    if len(content) > self.bounds.body_bytes:
                        await _discard(receive)
                        raise self._too_large()
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            seconds = self.bounds.body_seconds
            raise ApiError(408, f"the body was not complete after {seconds:g} s", code="timeout", close=True) from None
        if content and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "the body must have Content-Type: application/json", code="unsupported_media_type")
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if content and encoding != "identity":
            raise ApiError(
                415, f"a body with Content-Encoding {shown(encoding)} is not read here", code="unsupported_media_type"
            )
        facts.body = bytes(content)

    def _too_large(self) -> ApiError:
        most = self.bounds.body_bytes
        return ApiError(413, f"the body has more than {most} bytes; fix: --max-body", code="body_too_large", close=True)

    def _record(self, scope: Scope, facts: Facts) -> None:
        seconds = time.perf_counter() - facts.started
        status = facts.status or CLIENT_GONE
        self.metrics.requests[facts.endpoint, facts.model, status] += 1
        self.metrics.request_seconds.observe(seconds)
        self.metrics.gone += facts.is_gone
        if facts.prompt_tokens:
            self.metrics.prompt_tokens[facts.model] += facts.prompt_tokens
            self.metrics.completion_tokens[facts.model] += facts.completion_tokens
        if facts.first_token_at is not None:
            self.metrics.first_token_seconds.observe(facts.first_token_at - facts.started)
        quiet = facts.endpoint in WHILE_DRAINING and status < 400  # asked again and again by other programs
        logger.log(
            logging.DEBUG if quiet else logging.INFO,
            "%s %s %s %d%s%s, %d + %d tokens, %.3f s",
            facts.id,
            scope["method"] if scope["method"] in METHODS else "?",
            facts.endpoint,
            status,
            f" {facts.model}" if facts.model else "",
            " (client left)" if facts.is_gone else "",
            facts.prompt_tokens,
            facts.completion_tokens,
            seconds,
        )


async def _discard(receive: Receive) -> None:
    """Read what a client still sends, for a short time: closed in the middle, it would not read its answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            left = DISCARD_BYTES
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


class _Sender:
    """ASGI's `send` with the headers of every answer; a client that takes nothing for too long is cut off."""

    def __init__(self, send: Send, facts: Facts, scope: Scope, stall_seconds: float) -> None:
        self._send, self._facts, self._scope, self._stall_seconds = send, facts, scope, stall_seconds

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._facts.status = message["status"]
            own = [*SAME_FOR_ALL, (b"x-request-id", self._facts.id.encode())]
            given = {name for name, _ in message.get("headers", ())}
            message["headers"] = [*message.get("headers", ()), *(pair for pair in own if pair[0] not in given)]
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self._send(message)
        except TimeoutError:
            self._scope[ABORT]()
            raise ConnectionAbortedError from None


def _of_router(error: HTTPException) -> ApiError:
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        headers = {"allow": allowed}
        return ApiError(405, f"this path takes {allowed}", code="method_not_allowed", headers=headers)
    return ApiError(404, "there is no such path; fix: docs/serving.md lists them", code="not_found")


async def _answer(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    response = JSONResponse(error.body(), status_code=error.status, headers=error.headers)
    try:
        await response(scope, receive, send)
    except ConnectionError:
        scope[FACTS].is_gone = True
