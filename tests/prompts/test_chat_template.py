"""The chat template of a run: the base's own, a checked file, a thinking switch, or the plain one that ships."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from lora_med.errors import InputMissingError, SettingsError
from lora_med.prompts.chat_template import own_template, tokenizer_of_run
from lora_med.prompts.row import Row
from lora_med.prompts.tokens_and_labels import prompt_ids, tokenize
from tests.prompts.chat_styles import CHATML, ENDLESS, GEMMA, QWEN3, STYLES, style_tokenizer
from tests.tiny import make_tokenizer

ROW = Row("u", "g", (("user", "Why?"), ("assistant", "So.")), "", "So.", by_base=True)
CHAT, NONE = ["pair_chat_v2"], ["text"]


def chosen(tokenizer: Any, templates: list[str] = CHAT, **options: Any) -> str | None:
    return own_template(tokenizer, templates, **{"file": None, "enable_thinking": None, **options})


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "template.jinja"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_a_base_with_a_template_keeps_its_own() -> None:
    assert chosen(style_tokenizer(STYLES["qwen3"])) is None


@pytest.mark.parametrize(("bos", "begin"), [(True, "<|begin_of_text|>"), (False, "")])
def test_a_base_without_a_template_gets_lines_of_user_and_assistant(bos: bool, begin: str) -> None:
    bare = make_tokenizer(bos=bos, chat=False)
    assert chosen(bare, NONE) is None
    tokenizer = tokenizer_of_run(bare, CHAT, file=None, enable_thinking=None)
    assert bare.chat_template is None
    tokens = tokenize(ROW, tokenizer)
    assert tokenizer.decode(tokens.input_ids) == f"{begin}User: Why?\n\nAssistant: So.<|end_of_text|>\n\n"
    trained = [number for number, yes in zip(tokens.input_ids, tokens.trained, strict=True) if yes]
    assert tokenizer.decode(trained) == " So.<|end_of_text|>"


def test_a_file_takes_the_place_of_the_template(tmp_path: Path) -> None:
    tokenizer = style_tokenizer(STYLES["smollm2"])
    assert chosen(tokenizer, file=write(tmp_path, CHATML)) == CHATML
    of_run = tokenizer_of_run(tokenizer, CHAT, file=write(tmp_path, CHATML), enable_thinking=None)
    assert of_run.decode(tokenize(ROW, of_run).input_ids).startswith("<|im_start|>user\nWhy?<|im_end|>")
    assert "You help." in tokenizer.decode(tokenize(ROW, tokenizer).input_ids)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{% for m in messages %}\n{{ m['content'] }}", "line 2 of the chat template"),
        (b"\xff", "not UTF-8"),
        (" \n", "is empty"),
        (ENDLESS, "no control token follows"),
        ("{{ messages[0]['content'] }}{{ eos_token }}", "leaves out the turn of the assistant"),
        ("{{ messages[-1]['content'] }}{{ eos_token }}", "leaves out the turn of the user"),
        ("{{ raise_exception('never') }}", "does not render a question and its answer"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_file_that_would_not_train_a_conversation_is_refused(tmp_path: Path, text: str | bytes, named: str) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        chosen(make_tokenizer(), file=write(tmp_path, text))
    assert caught.value.where == str(tmp_path / "template.jinja")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InputMissingError, match=r"nowhere\.jinja"):
        chosen(make_tokenizer(), file="nowhere.jinja")


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_the_thinking_switch_is_the_templates_own_variable(name: str) -> None:
    tokenizer = style_tokenizer(STYLES["qwen3"])
    tokenizer.chat_template = QWEN3.replace("enable_thinking", name)
    off = tokenizer_of_run(tokenizer, CHAT, file=None, enable_thinking=False)
    messages = [{"role": "user", "content": "Why?"}]
    options: dict[str, Any] = {"tokenize": True, "return_dict": False, "add_generation_prompt": True}
    assert prompt_ids(ROW, off) == tokenizer.apply_chat_template(messages, **options, **{name: False})
    assert prompt_ids(ROW, off) != prompt_ids(ROW, tokenizer)
    assert off.apply_chat_template(messages, **options, **{name: True}) == prompt_ids(ROW, tokenizer)
    tokens = tokenize(ROW, off)
    trained = [number for number, yes in zip(tokens.input_ids, tokens.trained, strict=True) if yes]
    assert off.decode(trained) == "So.<|im_end|>"  # the empty thought is part of what generation begins from
    on = tokenizer_of_run(tokenizer, CHAT, file=None, enable_thinking=True)
    assert tokenize(ROW, on) == tokenize(ROW, tokenizer)


def test_a_template_without_a_thinking_switch_is_refused() -> None:
    for tokenizer in (style_tokenizer(STYLES["gemma"]), make_tokenizer(chat=False)):
        with pytest.raises(SettingsError, match="no thinking switch"):
            chosen(tokenizer, enable_thinking=False)


def test_what_a_template_does_beside_the_turns_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = style_tokenizer(STYLES["r1"])
    with caplog.at_level(logging.WARNING):
        chosen(tokenizer)
        assert "begins a new answer with text that it does not write" in caplog.text
        caplog.clear()
        tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + GEMMA
        chosen(tokenizer)
        assert "writes today's date" in caplog.text
        caplog.clear()
        chosen(style_tokenizer(STYLES["llama3"]))
        assert not caplog.text
