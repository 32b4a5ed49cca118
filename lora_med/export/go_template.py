"""Ollama's TEMPLATE for the commonest chat templates, and a renderer of the subset of Go templates that they use.

A template is used only if `render` gives the same prompts as the base's own chat template. Nothing is assumed from a
model's name. BOS is omitted: llama.cpp adds it before the prompt itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.export.gguf.gguf_check import CHATS, rendered

RAW = "{{ .Prompt }}"
TEMPLATES = {
    "chatml": (
        "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
    ),
    "llama3": (
        "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    # The system message precedes the text of the first user turn.
    "gemma": (
        "{{ $open := false }}{{ range .Messages }}"
        '{{ if eq .Role "system" }}<start_of_turn>user\n{{ .Content }}\n\n{{ $open = true }}'
        '{{ else }}{{ if $open }}{{ $open = false }}{{ else }}<start_of_turn>{{ if eq .Role "assistant" }}model'
        "{{ else }}{{ .Role }}{{ end }}\n{{ end }}{{ .Content }}<end_of_turn>\n{{ end }}{{ end }}"
        "<start_of_turn>model\n"
    ),
}
ACTION = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)
ASSIGNMENT = re.compile(r"(\$\w+) :?= (true|false)")
EQUALITY = re.compile(r'if eq \.Role "(\w+)"')


def choose_template(tokenizer: Any) -> tuple[str, str] | None:
    """`(name, Go template)` of the template that gives the base's own prompts; None where there is none.

    A base without a chat template gets the prompt as typed.
    """
    if not tokenizer.chat_template:
        return "plain", RAW
    expected = [(messages, prompt) for messages in CHATS if (prompt := rendered(tokenizer, messages)) is not None]
    begins = tokenizer.bos_token or ""
    for name, template in TEMPLATES.items():
        if expected and all(render(template, messages) == prompt.removeprefix(begins) for messages, prompt in expected):
            return name, template
    return None


def render(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """`template` as Go renders it: only `range .Messages`, `if`, `else`, `end`, and variables of true or false.

    Raises:
        ValueError: the template contains anything else.
    """
    parts = ACTION.split(template)  # text, action, text, action, ... text
    written, index = _block(parts, 0, list(messages), None, {})
    if index != len(parts):
        raise ValueError("an `end` or `else` without its beginning")
    return written


def _block(
    parts: list[str],
    index: int,
    messages: list[Mapping[str, str]],
    message: Mapping[str, str] | None,
    variables: dict[str, bool],
) -> tuple[str, int]:
    """The text from `index` to the `else` or `end` that closes the block, and the index of that action."""
    written = [parts[index]]
    index += 1
    while index < len(parts):
        action = parts[index]
        if action in ("else", "end"):
            break
        if action == "range .Messages":
            inner = index
            for turn in messages:
                text, inner = _block(parts, index + 1, messages, turn, variables)
                written.append(text)
            index = inner if messages else _closing(parts, index + 1)
        elif action.startswith("if "):
            text, index = _condition(parts, index, messages, message, variables)
            written.append(text)
        else:
            written.append(_value(action, message, variables))
        written.append(parts[index + 1])
        index += 2
    return "".join(written), index


def _condition(
    parts: list[str],
    index: int,
    messages: list[Mapping[str, str]],
    message: Mapping[str, str] | None,
    variables: dict[str, bool],
) -> tuple[str, int]:
    otherwise = _closing(parts, index + 1)
    if _holds(parts[index], message, variables):
        text, _ = _block(parts, index + 1, messages, message, variables)
    elif parts[otherwise] == "else":
        text, _ = _block(parts, otherwise + 1, messages, message, variables)
    else:
        text = ""
    return text, _closing(parts, otherwise + 1) if parts[otherwise] == "else" else otherwise


def _closing(parts: list[str], index: int) -> int:
    """The index of the `else` or `end` of the block whose first text is at `index`."""
    depth = 0
    for number in range(index + 1, len(parts), 2):
        action = parts[number]
        if action.startswith(("if ", "range ")):
            depth += 1
        elif depth == 0 and action in ("else", "end"):
            return number
        elif action == "end":
            depth -= 1
    raise ValueError("a block without its `end`")


def _holds(action: str, message: Mapping[str, str] | None, variables: Mapping[str, bool]) -> bool:
    equality = EQUALITY.fullmatch(action)
    if equality and message is not None:
        return message["role"] == equality[1]
    name = action.removeprefix("if ")
    if name not in variables:
        raise ValueError(f"not a supported condition: {action}")
    return variables[name]


def _value(action: str, message: Mapping[str, str] | None, variables: dict[str, bool]) -> str:
    assignment = ASSIGNMENT.fullmatch(action)
    if assignment:
        variables[assignment[1]] = assignment[2] == "true"
        return ""
    if message is None or action not in (".Role", ".Content"):
        raise ValueError(f"not a supported action: {action}")
    return message[action[1:].lower()]
