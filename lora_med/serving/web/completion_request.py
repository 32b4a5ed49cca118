"""A request to /v1/completions: one or more prompts, as text or as token ids, and their settings."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from lora_med.serving.web.request_fields import MOST_ALTERNATIVES, Fields

DEFAULT_TOKENS = 16  # OpenAI's, where a request names no limit
MOST_PROMPTS = 256
Prompt = str | tuple[int, ...]


class CompletionRequest(Fields):
    """The fields of a completion; `logprobs` is how many alternatives are scored beside each token."""

    prompt: tuple[Prompt, ...]
    max_tokens: int = Field(DEFAULT_TOKENS, ge=0)
    logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)
    echo: bool = False

    @field_validator("prompt", mode="plain")
    @classmethod
    def _prompts(cls, value: Any) -> tuple[Prompt, ...]:
        """One text, one list of ids, a list of texts, or a list of lists of ids."""
        if isinstance(value, str) or _is_ids(value):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(one, str) or _is_ids(one) for one in value):
            raise ValueError("should be a text, a list of token ids, or a list of either, none of them empty")
        if len({type(one) for one in value}) > 1:
            raise ValueError("should be texts or lists of token ids, not both")
        if not 1 <= len(value) <= MOST_PROMPTS:
            raise ValueError(f"should hold 1 to {MOST_PROMPTS} prompts")
        return tuple(one if isinstance(one, str) else tuple(one) for one in value)

    @model_validator(mode="after")
    def _fits_together(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens: 0 needs echo: true, or there is no answer")
        return self


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)
