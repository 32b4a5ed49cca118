"""What a request may hold: a field that is not supported is refused by name, and nothing of a prompt is repeated."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lora_med.serving.requests import Constraint
from lora_med.serving.web.chat_request import ChatRequest
from lora_med.serving.web.completion_request import CompletionRequest
from lora_med.serving.web.error_bodies import ApiError
from lora_med.serving.web.json_body import parse_object
from lora_med.serving.web.request_fields import Fields, parse_fields

ASKED = [{"role": "user", "content": "PATIENT Meier"}]
SCHEMA = {"type": "object", "properties": {"dose": {"type": "integer"}}}


def chat(**fields: Any) -> ChatRequest:
    return parse_fields(ChatRequest, {"model": "a", "messages": ASKED, **fields})


def completion(**fields: Any) -> CompletionRequest:
    return parse_fields(CompletionRequest, {"model": "a", "prompt": "PATIENT Meier", **fields})


def refused(kind: type[Fields], **fields: Any) -> ApiError:
    text = {"messages": ASKED} if kind is ChatRequest else {"prompt": "PATIENT Meier"}
    with pytest.raises(ApiError) as caught:
        parse_fields(kind, {"model": "a", **text, **fields})
    assert caught.value.status == 400
    assert "Meier" not in caught.value.what
    return caught.value


UNSUPPORTED = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "auto",
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "parallel_tool_calls": True,
    "frequency_penalty": 0.5,
    "presence_penalty": -1,
    "logit_bias": {"5": 10},
    "user": "dr-weber",
    "metadata": {"a": "b"},
    "store": True,
    "modalities": ["text", "audio"],
    "audio": {"voice": "x"},
    "prediction": {"type": "content"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "service_tier": "priority",
    "web_search_options": {},
    "top_k": 40,
    "min_p": 0.1,
    "repetition_penalty": 1.2,
    "suffix": "x",
    "best_of": 3,
    "use_beam_search": True,
    "lora_path": "/etc/passwd",
    "nonsense": 1,
}


@pytest.mark.parametrize("name", UNSUPPORTED)
@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_a_field_that_is_not_supported_is_refused_by_name(kind: type[Fields], name: str) -> None:
    error = refused(kind, **{name: UNSUPPORTED[name]})
    assert (error.param, error.error_code) == (name, "unsupported_parameter")
    assert f"{name} is not supported" in error.what


def test_chat_fields_are_no_completion_fields_and_the_other_way_round() -> None:
    assert refused(CompletionRequest, top_logprobs=2).param == "top_logprobs"
    assert refused(CompletionRequest, max_completion_tokens=2).param == "max_completion_tokens"
    assert refused(ChatRequest, echo=True).param == "echo"
    assert refused(ChatRequest, prompt="x").param == "prompt"


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "best_of": 1, "tools": []},
        {"user": None, "tools": None, "seed": None, "temperature": None, "stop": None, "logprobs": None},
        {"response_format": {"type": "text"}, "store": False, "tool_choice": "none", "n": 1, "stream": False},
    ],
)
def test_a_field_that_changes_nothing_is_accepted(fields: dict[str, Any]) -> None:
    plain = chat()
    assert chat(**fields).model_dump(exclude={"response_format"}) == plain.model_dump(exclude={"response_format"})
    assert chat(**fields).constraint is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": 1.0}, "n"),
        ({"seed": 2**63}, "seed"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": 5}, "stop"),
        ({"model": 5}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, None),
        ({"stream": True, "stream_options": {"chunk": 5}}, "stream_options.chunk"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "text"}, "structured_outputs": {"regex": "a"}}, None),
        ({"structured_outputs": {"grammar": "a"}}, "structured_outputs.regex"),
    ],
)
@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_an_impossible_value_is_refused_with_its_path(
    kind: type[Fields], fields: dict[str, Any], param: str | None
) -> None:
    assert refused(kind, **fields).param == param


def test_a_number_with_many_digits_is_cut_in_the_message() -> None:
    error = refused(CompletionRequest, n=10**4000)
    assert len(error.what) < 200 and "got 1" + "0" * 23 + "..." in error.what


def test_a_body_of_very_many_faults_is_refused_at_once() -> None:
    begun = time.process_time()
    many = {f"key{number}": 1 for number in range(100_000)}
    assert "at most 64 keys, and has 100002" in refused(CompletionRequest, **many).what
    message = {"role": "user", "content": "x", **many}
    assert "messages[0]: should have at most 64 keys" in refused(ChatRequest, messages=[message]).what
    parts = [{"type": "text", "text": ""}] * 100_000
    error = refused(ChatRequest, messages=[{"role": "user", "content": parts}])
    assert "at most 1000 parts, and has 100000" in error.what
    error = refused(ChatRequest, messages=[{"role": "nobody", "content": "x"}] * 900)
    assert error.what.endswith("; and 880 more faults") and error.what.count("messages[") == 20
    assert time.process_time() - begun < 2


def test_every_fault_is_in_one_message() -> None:
    error = refused(ChatRequest, temperature=3, top_k=5, n=0)
    assert error.what == (
        "temperature: should be less than or equal to 2, got 3; n: should be greater than or equal to 1, got 0; "
        "top_k is not supported"
    )


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": None}, "messages[0].content"),
        ({"role": "user", "content": []}, "messages[0].content"),
        ({"role": "user", "content": "x", "name": "Weber"}, "messages[0].name"),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
            "messages[0].content[0].type",
        ),
        ("x", "messages[0]"),
    ],
)
def test_a_message_that_cannot_be_answered_is_refused_with_its_place(message: Any, param: str) -> None:
    assert refused(ChatRequest, messages=[message, *ASKED]).param == param


def test_there_must_be_something_to_answer() -> None:
    assert refused(ChatRequest, messages=[]).param == "messages"
    assert "nothing to answer" in refused(ChatRequest, messages=[*ASKED, {"role": "assistant", "content": "y"}]).what


def test_parts_are_joined_and_an_earlier_answer_may_come_back_as_it_was() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": " b"}]
    earlier = {"role": "assistant", "content": "x", "refusal": None, "tool_calls": None, "annotations": []}
    request = chat(
        messages=[{"role": "developer", "content": "s"}, {"role": "user", "content": parts}, earlier, *ASKED]
    )
    assert [tuple(message.values()) for message in request.as_messages] == [
        ("system", "s"),
        ("user", "a  b"),
        ("assistant", "x"),
        ("user", "PATIENT Meier"),
    ]


def test_two_names_of_the_limit_must_agree() -> None:
    assert chat(max_tokens=5).limit == chat(max_completion_tokens=5).limit == 5
    assert chat().limit is None
    assert "different values" in refused(ChatRequest, max_tokens=5, max_completion_tokens=6).what


def test_scores_are_asked_for_in_two_ways() -> None:
    assert [
        chat().alternatives,
        chat(logprobs=True).alternatives,
        chat(logprobs=True, top_logprobs=3).alternatives,
    ] == [
        None,
        0,
        3,
    ]
    assert "needs logprobs" in refused(ChatRequest, top_logprobs=3).what
    assert refused(ChatRequest, logprobs=True, top_logprobs=21).param == "top_logprobs"
    assert completion(logprobs=0).logprobs == 0


def test_the_form_of_an_answer_is_a_schema_or_a_regular_expression() -> None:
    named = {"name": "dose", "schema": SCHEMA, "strict": True}
    found = chat(response_format={"type": "json_schema", "json_schema": named}).constraint
    assert found is not None and (found.kind, json.loads(found.text)) == ("json_schema", SCHEMA)
    found = chat(response_format={"type": "json_object"}).constraint
    assert found is not None and json.loads(found.text) == {"type": "object"}
    assert chat(structured_outputs={"regex": "yes|no"}).constraint == Constraint("regex", "yes|no")


@pytest.mark.parametrize(
    ("prompt", "parsed"),
    [
        ("x", ("x",)),
        (["x", "y"], ("x", "y")),
        ([5, 6], ((5, 6),)),
        ([[5, 6], [7]], ((5, 6), (7,))),
    ],
)
def test_prompts_are_texts_or_token_ids(prompt: Any, parsed: tuple[Any, ...]) -> None:
    assert completion(prompt=prompt).prompt == parsed


@pytest.mark.parametrize("prompt", [[], [[]], ["x", [5]], [5, "x"], [True], 5, {"a": 1}, [[5, 1.0]], [None]])
def test_other_prompts_are_refused(prompt: Any) -> None:
    assert refused(CompletionRequest, prompt=prompt).param == "prompt"


def test_no_answer_at_all_needs_echo() -> None:
    assert completion(max_tokens=0, echo=True).max_tokens == 0
    assert "needs echo" in refused(CompletionRequest, max_tokens=0).what
    assert refused(ChatRequest, max_tokens=0).param == "max_tokens"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1, column 2"),
        (b"[1]", "expected an object, got list"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": {"b": 1, "b": 1}}', "twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not"),
        (b'{"a": 1e400}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too long"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        ("\ufeff{}".encode(), "line 1, column 1"),
    ],
)
def test_a_body_that_is_no_strict_json_object_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(ApiError, match=reason) as caught:
        parse_object(body)
    assert (caught.value.status, caught.value.error_code) == (400, "invalid_json")


def test_text_beyond_ascii_comes_through() -> None:
    assert parse_object('{"a": "37,2 °C \U0001f600", "b": "\\ud83d\\ude00"}'.encode()) == {
        "a": "37,2 °C \U0001f600",
        "b": "\U0001f600",
    }
