"""Ollama's templates against the chat templates they stand for, and the small reader of Go templates."""

from __future__ import annotations

import pytest

from lora_med.export.go_template import RAW, TEMPLATES, choose_template, render
from lora_med.export.ollama import modelfile
from tests.tiny import make_tokenizer

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Fever?"},
    {"role": "assistant", "content": "Since when?"},
    {"role": "user", "content": "Monday."},
]
# Chat templates as the families publish them, cut to what plain turns need.
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{% set first = '' %}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') + message['content'] | trim + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def test_chatml_by_hand() -> None:
    assert render(TEMPLATES["chatml"], TURNS) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nFever?<|im_end|>\n"
        "<|im_start|>assistant\nSince when?<|im_end|>\n<|im_start|>user\nMonday.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_gemma_by_hand_puts_the_system_words_into_the_first_user_turn() -> None:
    assert render(TEMPLATES["gemma"], TURNS) == (
        "<start_of_turn>user\nBe brief.\n\nFever?<end_of_turn>\n<start_of_turn>model\nSince when?<end_of_turn>\n"
        "<start_of_turn>user\nMonday.<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize(("jinja", "name"), [(LLAMA3, "llama3"), (GEMMA2, "gemma"), (GEMMA3, "gemma")])
def test_each_family_gets_its_own(jinja: str, name: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = jinja
    assert choose_template(tokenizer) == (name, TEMPLATES[name])


def test_micro_s_own_template_is_chatml() -> None:
    assert choose_template(make_tokenizer()) == ("chatml", TEMPLATES["chatml"])


def test_a_base_without_a_template_takes_the_prompt_as_typed() -> None:
    assert choose_template(make_tokenizer(chat=False)) == ("plain", RAW)


def test_a_template_that_differs_by_one_space_is_not_taken() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = LLAMA3.replace("assistant<|end_header_id|>", "assistant <|end_header_id|>")
    assert choose_template(tokenizer) is None


@pytest.mark.parametrize("template", ["{{ len .Messages }}", "{{ if .System }}a{{ end }}", "a{{ end }}", "{{ else }}b"])
def test_what_the_reader_does_not_know_is_an_error(template: str) -> None:
    with pytest.raises(ValueError, match=r"not a|without"):
        render(template, TURNS)


def test_the_modelfile_names_files_beside_it() -> None:
    files = {"model": "base-q8_0.gguf", "adapter": "a-adapter.gguf"}
    assert modelfile(files, RAW, ["<|im_end|>", 'a"b'], 1024) == (
        'FROM ./base-q8_0.gguf\nADAPTER ./a-adapter.gguf\nTEMPLATE """{{ .Prompt }}"""\n'
        'PARAMETER stop "<|im_end|>"\nPARAMETER stop """a"b"""\nPARAMETER num_ctx 1024\n'
    )
