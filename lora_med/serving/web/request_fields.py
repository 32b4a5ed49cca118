"""The fields that both kinds of request share, read strictly: a field that is not supported is an error, by name.

A field that is null counts as absent. A field of OpenAI's that would change nothing at the value it has (NEUTRAL) is
accepted at that value only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lora_med.serving.requests import Constraint
from lora_med.serving.web.error_bodies import ApiError, shown, shown_number

MOST_CHOICES, MOST_STOPS, MOST_ALTERNATIVES = 16, 16, 20
MOST_STOP_LETTERS = 256
MOST_KEYS, MOST_FAULTS = 64, 20  # a hundred thousand unknown ones took seconds to name
SEEDS = -(2**63), 2**63 - 1
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "functions": ([],),
    "logit_bias": ({},),
    "metadata": ({},),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none",),
    "tools": ([],),
}
QUOTED = {"model", "role", "type"}  # text fields that hold a word of the interface, and no prompt
Parsed = TypeVar("Parsed", bound="Fields")


class Strict(BaseModel):
    """A part of a request in which every key is known and every value has its own JSON type."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _has_few_keys(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MOST_KEYS:
            raise ValueError(f"should have at most {MOST_KEYS} keys, and has {len(value)}")
        return value


class StreamOptions(Strict):
    """`include_usage` adds a last chunk with the token counts."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class JsonSchema(Strict):
    """The schema of an answer, as openai's `.parse` sends it; it is enforced whether or not `strict` is set."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """`text`, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_goes_with_its_type(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("the type json_schema and the field json_schema go together")
        return self


class StructuredOutputs(Strict):
    """vLLM's field for an answer that matches a regular expression from beginning to end."""

    regex: str


class Fields(Strict):
    """What a chat and a completion have in common."""

    model: str
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    seed: int | None = Field(None, ge=SEEDS[0], le=SEEDS[1])
    stop: list[str] = Field(default_factory=list, max_length=MOST_STOPS)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _stops_have_letters(cls, value: list[str]) -> list[str]:
        if not all(0 < len(text) <= MOST_STOP_LETTERS for text in value):
            raise ValueError(f"each stop string has 1 to {MOST_STOP_LETTERS} characters")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Fields:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        if self.structured_outputs is not None and self.response_format is not None:
            raise ValueError("structured_outputs and response_format exclude each other")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def constraint(self) -> Constraint | None:
        """The form that the answer must have."""
        if self.structured_outputs is not None:
            return Constraint("regex", self.structured_outputs.regex)
        if self.response_format is None or self.response_format.type == "text":
            return None
        schema = self.response_format.json_schema
        return Constraint("json_schema", json.dumps({"type": "object"} if schema is None else schema.schema_))


def parse_fields(kind: type[Parsed], body: Mapping[str, Any]) -> Parsed:
    """The request in a body's object.

    Raises:
        ApiError: 400 with every fault in one message, each with the field's path; `param` is the first.
    """
    given = {key: value for key, value in body.items() if value is not None}
    given = {key: value for key, value in given.items() if key in kind.model_fields or not _is_neutral(key, value)}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        faults = [_fault(dict(found)) for found in error.errors(include_url=False, include_context=False)]
        unsupported = any(found["type"] == "extra_forbidden" for found in error.errors(include_url=False))
        code = "unsupported_parameter" if unsupported else "invalid_value"
        texts = [text for _, text in faults[:MOST_FAULTS]]
        more = [f"and {len(faults) - MOST_FAULTS} more faults"] if len(faults) > MOST_FAULTS else []
        message = "; ".join([*texts, *more])
        raise ApiError(400, message, code=code, param=faults[0][0] or None) from None  # its text quotes the prompt


def _is_neutral(key: str, value: Any) -> bool:
    known = [neutral for neutral in NEUTRAL.get(key, ()) if isinstance(neutral, bool) == isinstance(value, bool)]
    return value in known


def _fault(error: Mapping[str, Any]) -> tuple[str, str]:
    """The path of a field, and what is wrong with it; texts of prompts are never repeated."""
    path = ""
    for step in error["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    path = shown(path)[1:-1]
    kind, got = error["type"], error["input"]
    if kind == "extra_forbidden":
        return path, f"{path} is not supported"
    if kind == "missing":
        return path, f"{path} is missing"
    reason = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if isinstance(got, bool | int | float):
        value = f", got {shown_number(got)}"
    elif isinstance(got, str) and error["loc"] and error["loc"][-1] in QUOTED:
        value = f", got {shown(got)}"
    else:
        value = "" if isinstance(got, BaseModel) or not path else f", got {type(got).__name__}"
    return path, f"{path}: {reason}{value}" if path else f"{reason}{value}"
