"""Errors as HTTP answers in OpenAI's form: status, message, type, the parameter at fault, and a code.

| status | when |
|---|---|
| 400 | a field is wrong, missing or not supported; the prompt is too long |
| 401, 403 | no key or a wrong one; a host, an origin or a data use agreement that does not allow it |
| 404, 405, 415 | no such model, path or method; a body that is not JSON |
| 408, 413 | the body came too slowly, or is too large |
| 409 | an adapter in the store is torn, or belongs to another base |
| 429, 503 | too many requests of one key, of all keys, or the server is stopping; both with Retry-After |
| 500 | the model gave numbers that are not finite, the disk fails, or a bug; the answer names the request's id |
| 501 | a schema, without the package that enforces it |
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from typing import Any

from lora_med.errors import (
    DataError,
    DependencyMissingError,
    DiskError,
    InputMissingError,
    IntegrityError,
    LoraMedError,
    NotPermittedError,
    SettingsError,
)
from lora_med.serving.requests import NotFinite, NotLoaded, QueueFull, Stopped, TooLong
from lora_med.visible import visible

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
SHOWN_LETTERS, SHOWN_DIGITS = 80, 24  # of a name or a number that a request gives
RETRY_AFTER = "retry-after"


class ApiError(LoraMedError):
    """An error with its HTTP status; `param` is the field of the request at fault, `code` a word for programs."""

    exit_code = 2
    name = "request"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = code
        self.param = param
        self.headers = dict(headers or {})
        if close:  # what is left of the body is not read
            self.headers["connection"] = "close"

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.what, "type": kind, "param": self.param, "code": self.error_code}}


def shown(name: str) -> str:
    """A name from a request, quoted for a message: on one line, and cut where it is long."""
    text = visible(name, one_line=True)
    return repr(text if len(text) <= SHOWN_LETTERS else text[:SHOWN_LETTERS] + "...")


def shown_number(value: bool | int | float) -> str:
    """A JSON value from a request for a message, cut where it has many digits."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN_DIGITS else text[:SHOWN_DIGITS] + "..."


def busy(message: str, seconds: int, *, status: int = 503, code: str = "overloaded") -> ApiError:
    """Too much to do now; the client may ask again after so many seconds."""
    return ApiError(status, message, code=code, headers={RETRY_AFTER: str(max(1, seconds))})


def as_api_error(error: Exception, request_id: str) -> ApiError:
    """Any exception as an answer. Only errors of ours give their words: others may quote a prompt."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, NotFinite):
        what = "the bare base" if error.adapter is None else f"adapter {error.adapter!r}"
        message = f"{what} gave numbers that are not finite and is out of service; request {request_id}"
        return ApiError(500, message, code="not_finite")
    if isinstance(error, QueueFull):
        return busy(error.what, error.retry_after, status=429, code="rate_limit_exceeded")
    if isinstance(error, Stopped):
        return busy(f"the server is stopping; request {request_id} was not finished", 5, code="stopping")
    if isinstance(error, TooLong):
        return ApiError(400, _words(error), code="context_length_exceeded")
    if isinstance(error, NotLoaded):
        # the name was known when the request came: its adapter went while it waited
        return busy(
            f"the adapter was replaced or unloaded, or its files changed, while request {request_id} waited",
            1,
            code="adapter_changed",
        )
    for kind, status, code in (
        (DependencyMissingError, 501, "not_installed"),
        (NotPermittedError, 403, "not_permitted"),
        (InputMissingError, 404, "not_in_store"),
        (IntegrityError, 409, "integrity"),
        (DiskError, 500, "disk"),
        (SettingsError, 400, "invalid_value"),
        (DataError, 400, "invalid_value"),
    ):
        if isinstance(error, kind):
            return ApiError(status, _words(error), code=code)
    if isinstance(error, LoraMedError) and error.exit_code == SettingsError.exit_code:
        return ApiError(400, _words(error), code="invalid_value")
    return ApiError(500, f"the server failed; request {request_id}", code="internal_error")


def place(error: BaseException) -> str:
    """The class and the line of an exception for the log, without its message, which may quote a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__


def _words(error: LoraMedError) -> str:
    """What was wrong and how to fix it, without `where`, which may be a path of this machine."""
    return f"{error.what}; fix: {error.fix}" if error.fix else error.what
