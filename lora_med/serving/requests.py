"""What the engine takes and what it returns: a request, its sampling, its events, its errors and its limits.

This module loads no torch, so that a web interface or a client can import it at once. A running request is an iterator
of events: with `echo_logprobs` first one `PromptScores`, then a `Piece` for each token, and last one `Done`. A request
that cannot end so raises an `EngineError` from the iterator.

The texts of all pieces of a request, joined, are its answer. The text of one piece may be empty: bytes of a character
that is not complete, or the possible beginning of a stop string, are held back until they are decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from lora_med.errors import LoraMedError

MEBIBYTE = 1024**2


@dataclass(frozen=True)
class Constraint:
    """The form of an answer: a JSON schema (as JSON text) or a regular expression that the whole answer matches."""

    kind: Literal["json_schema", "regex"]
    text: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; temperature 0 is greedy.

    `seed` makes a sampled answer repeatable, whatever else is in its batch. `stop` strings end the answer and are not
    part of it. `logprobs` is the number of alternatives for each token, or None for no log-probabilities at all.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True)
class Ask:
    """A request. `adapter` is a name as loaded; None is the bare base. `tokens` come from `encode_chat`/`encode_text`.

    `key` identifies the API key; "" stands for none. Nothing cached is ever shared between two keys. `echo_logprobs`
    asks for the scores of the prompt's own tokens; with it, `sampling.max_tokens` may be 0. With `identity` (that of
    `Loaded`), a request whose adapter was replaced since its tokens were made is refused with NotLoaded.
    """

    id: str
    adapter: str | None
    tokens: tuple[int, ...]
    sampling: Sampling
    key: str = ""
    echo_logprobs: bool = False
    identity: str | None = None


@dataclass(frozen=True)
class Scored:
    """A token with its log-probability (natural logarithm); `text` alone may be an incomplete character."""

    token: int
    text: str
    logprob: float


@dataclass(frozen=True)
class PromptScores:
    """The prompt's tokens, each scored after those before it; the first one has no score, so its logprob is None.

    `alternatives[i]` are the best tokens at the place of token i, best first; empty for the first token.
    """

    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    logprobs: tuple[float | None, ...]
    alternatives: tuple[tuple[Scored, ...], ...]


@dataclass(frozen=True)
class Piece:
    """One generated token and the text that is now certain.

    `logprob` is None unless log-probabilities were asked for. It and `alternatives` (best first) are those of the model
    before temperature, top_p and constraint.
    """

    text: str
    token: int
    logprob: float | None = None
    alternatives: tuple[Scored, ...] = ()


@dataclass(frozen=True)
class Done:
    """The end: by an end token, a stop string or a finished constraint ("stop"), or by the token limit ("length").

    `text` is what was still held back. `adapter_sha256` is the hash of the adapter's weights that gave every token of
    the answer, and None for the bare base.
    """

    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    adapter_sha256: str | None
    base_fingerprint: str
    text: str = ""


Event = PromptScores | Piece | Done


class Running(Protocol):
    """A request in the engine: its id, what answers it (None: the bare base), and its events. Thread-safe."""

    id: str
    loaded: Loaded | None
    adapter_sha256: str | None

    def __iter__(self) -> Iterator[Event]:
        """The events, each once; waits for the next one. Ends after `Done` or raises an EngineError."""
        ...

    def next_event(self, timeout: float | None = None) -> Event | None:
        """The next event, or None if the request has ended; TimeoutError if none comes in time."""
        ...

    def on_event(self, call: Any) -> None:
        """Call `call()` from the engine's thread whenever an event can be taken: it must return at once."""
        ...

    def cancel(self) -> None:
        """Stop: at most one further token is computed. The iterator then raises `Stopped`."""
        ...


@dataclass(frozen=True)
class Loaded:
    """An adapter that can be asked: its name and the SHA-256 of its weights file.

    `identity` is a digest of all that shapes its answers: weights, settings, chat template, trained tokens.
    """

    name: str
    sha256: str
    identity: str


@dataclass(frozen=True)
class Limits:
    """Bounds of an engine.

    `kv_memory` is the most bytes that the keys and values of all running requests and of cached prefixes take. A
    request is admitted when its prompt and its whole `max_tokens` fit in it. `max_queue` requests wait at most;
    `max_per_key` is the most that one key has running and waiting.
    """

    most_resident: int = 8
    kv_memory: int = 1024 * MEBIBYTE
    max_batch: int = 32
    max_queue: int = 256
    max_per_key: int = 64
    max_prompt_tokens: int = 8192
    max_tokens: int = 4096


@dataclass(frozen=True)
class Statistics:
    """Counts since the start, and the state now; they hold no text and no identifier of a record."""

    running: int = 0
    waiting: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    steps: int = 0
    kv_bytes: int = 0
    kv_limit_bytes: int = 0
    swaps_from_disk: int = 0
    split_passes: int = 0
    loaded: tuple[Loaded, ...] = ()
    resident: tuple[str, ...] = field(default=())
    out_of_service: tuple[Loaded, ...] = ()


class EngineError(LoraMedError):
    """Why a request has no answer, or not all of it."""

    name = "serving"


class NotLoaded(EngineError):
    """No adapter of this name is loaded, or it was taken out of service."""

    exit_code = 66
    name = "not-loaded"


class QueueFull(EngineError):
    """Too many requests wait, or this key has too many; `retry_after` is in seconds."""

    exit_code = 75
    name = "queue-full"

    def __init__(self, what: str, *, retry_after: int = 1, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.retry_after = retry_after


class TooLong(EngineError):
    """The prompt, or the prompt and the answer together, exceed the context, a limit or the KV memory."""

    exit_code = 2
    name = "too-long"


class BadRequest(EngineError):
    """A value of the request is impossible: no tokens, a negative temperature, a schema that is not one."""

    exit_code = 2
    name = "bad-request"


class NotFinite(EngineError):
    """The model's logits for this request were not finite; `adapter` (None: the bare base) is out of service."""

    exit_code = 78
    name = "not-finite"

    def __init__(
        self, what: str, *, adapter: str | None = None, where: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.adapter = adapter


class Stopped(EngineError):
    """The request was cancelled, or the engine stopped."""

    exit_code = 75
    name = "stopped"
