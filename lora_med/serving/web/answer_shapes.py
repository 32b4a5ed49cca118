"""Answers as OpenAI's clients expect them: whole, and as the chunks of a stream.

A chunk has no `usage` key unless it is the last one of `include_usage`: some clients fail on a null there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_med.serving.requests import Done, Piece, PromptScores, Scored

END_OF_STREAM = b"data: [DONE]\n\n"
LEAST_LOGPROB = -9999.0  # JSON has no minus infinity
Json = dict[str, Any]
INCOMPLETE = "\ufffd"  # how a tokenizer shows bytes that are no character yet


@dataclass(frozen=True)
class Token:
    """A token in an answer's log-probabilities."""

    id: int
    text: str
    logprob: float | None
    alternatives: tuple[Scored, ...]


@dataclass(frozen=True)
class Envelope:
    """What every part of one answer repeats: its id, when it began, the model's name and the fingerprint."""

    id: str
    model: str
    fingerprint: str
    created: int = field(default_factory=lambda: int(time.time()))

    def wrap(self, kind: str, choices: Sequence[Json], usage: Json | None = None) -> Json:
        """An object of this kind with these choices."""
        content = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        content |= {"system_fingerprint": self.fingerprint, "choices": list(choices)}
        return content if usage is None else {**content, "usage": usage}


def usage(done: Iterable[Done], choices: int) -> Json:
    """Token counts over all answers; a prompt with several choices counts once, as it was sent once."""
    every = list(done)
    prompt_tokens = sum(one.prompt_tokens for one in every) // choices
    completion_tokens = sum(one.completion_tokens for one in every)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def event_line(content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class ChatShapes:
    """The objects of /v1/chat/completions."""

    whole, chunk = "chat.completion", "chat.completion.chunk"

    def __init__(self, scored: bool) -> None:
        self._scored = scored

    def answer(self, index: int, text: str, tokens: Sequence[Token], reason: str) -> Json:
        """A choice of a whole answer."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": self._logprobs(tokens), "finish_reason": reason}

    def first(self, index: int) -> Json | None:
        """The choice of a stream's first chunk, which names the role."""
        return self._delta(index, {"role": "assistant", "content": ""}, None)

    def part(self, index: int, text: str, tokens: Sequence[Token], offset: int) -> Json:
        """The choice of a chunk with new text."""
        return self._delta(index, {"content": text}, None, tokens)

    def last(self, index: int, reason: str) -> Json:
        """The choice of the chunk that says why the answer ended."""
        return self._delta(index, {}, reason)

    def _delta(self, index: int, delta: Json, reason: str | None, tokens: Sequence[Token] = ()) -> Json:
        logprobs = self._logprobs(tokens) if tokens else None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, tokens: Sequence[Token]) -> Json | None:
        if not self._scored:
            return None
        content = [
            {
                **_scored_json(Scored(token.id, token.text, token.logprob or 0.0)),
                "top_logprobs": [_scored_json(one) for one in token.alternatives],
            }
            for token in tokens
        ]
        return {"content": content, "refusal": None}


class CompletionShapes:
    """The objects of /v1/completions."""

    whole = chunk = "text_completion"

    def __init__(self, scored: bool) -> None:
        self._scored = scored

    def answer(self, index: int, text: str, tokens: Sequence[Token], reason: str) -> Json:
        """A choice of a whole answer."""
        return self._choice(index, text, tokens, 0, reason)

    def first(self, index: int) -> Json | None:
        """No chunk goes before the text."""
        return None

    def part(self, index: int, text: str, tokens: Sequence[Token], offset: int) -> Json:
        """The choice of a chunk with new text, which begins at the character `offset` of the answer."""
        return self._choice(index, text, tokens, offset, None)

    def last(self, index: int, reason: str) -> Json:
        """The choice of the chunk that says why the answer ended."""
        return self._choice(index, "", (), 0, reason)

    def _choice(self, index: int, text: str, tokens: Sequence[Token], offset: int, reason: str | None) -> Json:
        logprobs = self._logprobs(text, tokens, offset) if self._scored else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, text: str, tokens: Sequence[Token], offset: int) -> Json:
        """Scores by token. A BOS or a part of a character is not in the text and takes no place in it."""
        offsets, place = [], 0
        for token in tokens:
            offsets.append(offset + place)
            place += len(token.text) if text.startswith(token.text, place) else 0
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [None if token.logprob is None else _least(token.logprob) for token in tokens],
            "top_logprobs": [None if token.logprob is None else _by_text(token) for token in tokens],
            "text_offset": offsets,
        }


Shapes = ChatShapes | CompletionShapes


def _scored_json(one: Scored) -> Json:
    """A token with its bytes; null where its text is a part of a character, whose bytes the text does not show."""
    known = INCOMPLETE not in one.text
    return {"token": one.text, "logprob": _least(one.logprob), "bytes": list(one.text.encode()) if known else None}


def _least(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)


def _by_text(token: Token) -> dict[str, float]:
    """The alternatives by their texts, the token itself among them; a text that two tokens have gets an id for one."""
    found: dict[str, float] = {}
    own = Scored(token.id, token.text, token.logprob or 0.0)
    both = (
        token.alternatives if any(one.token == token.id for one in token.alternatives) else (*token.alternatives, own)
    )
    for one in both:
        found[one.text if one.text not in found else f"token_id:{one.token}"] = _least(one.logprob)
    return found


def prompt_tokens(scores: PromptScores) -> list[Token]:
    """The tokens of an echoed prompt with their scores."""
    return [
        Token(token, text, logprob, alternatives)
        for token, text, logprob, alternatives in zip(
            scores.tokens, scores.texts, scores.logprobs, scores.alternatives, strict=True
        )
    ]


def answer_token(piece: Piece, text: str) -> Token:
    """A generated token with its scores; `text` is the token's own, which may be a part of a character."""
    return Token(piece.token, text, piece.logprob, piece.alternatives)
