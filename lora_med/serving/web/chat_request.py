"""A request to /v1/chat/completions: its messages and its settings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lora_med.serving.web.request_fields import MOST_ALTERNATIVES, Fields, Strict

MOST_MESSAGES, MOST_PARTS = 1000, 1000
Messages = tuple[dict[str, str], ...]


class TextPart(Strict):
    """A part of a message's content; only text is supported."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """One turn. The role `developer` is OpenAI's newer word for `system`, which is what templates know."""

    role: Literal["system", "developer", "user", "assistant"]
    content: list[TextPart] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        """Clients send an earlier answer back with its null fields, and with empty lists of what it did not use."""
        if not isinstance(value, dict):
            return value
        return {key: one for key, one in value.items() if key == "content" or one not in (None, [])}

    @field_validator("content", mode="before")
    @classmethod
    def _text_is_one_part(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) > MOST_PARTS:
            raise ValueError(f"should have at most {MOST_PARTS} parts, and has {len(value)}")
        return [{"type": "text", "text": value}] if isinstance(value, str) else value

    @property
    def text(self) -> str:
        """The parts joined, as they are."""
        return "".join(part.text for part in self.content)


class ChatRequest(Fields):
    """The fields of a chat; `logprobs` says whether scores are wanted, `top_logprobs` how many alternatives."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)

    @model_validator(mode="after")
    def _fits_together(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise ValueError("max_tokens and max_completion_tokens are two names of one limit, with different values")
        if self.messages[-1].role == "assistant":
            raise ValueError("the last message is the assistant's: there is nothing to answer")
        return self

    @property
    def as_messages(self) -> Messages:
        """Role and content of each message, with the roles that chat templates know."""
        return tuple(
            {"role": "system" if one.role == "developer" else one.role, "content": one.text} for one in self.messages
        )

    @property
    def limit(self) -> int | None:
        """The most tokens of the answer; None leaves it to the server."""
        return self.max_tokens if self.max_tokens is not None else self.max_completion_tokens

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to score for each token; None scores nothing."""
        return (self.top_logprobs or 0) if self.logprobs else None
