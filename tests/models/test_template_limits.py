"""A hostile chat template is refused within seconds, in little memory, with its file; an honest one renders as ever."""
# ruff: noqa: E501 - a template is one line

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from lora_med.errors import IntegrityError, SettingsError
from lora_med.models.limits.rendering import compile_limited
from lora_med.models.tokenizer import load_tokenizer
from lora_med.prompts.chat import skeleton
from tests.tiny import make_tokenizer

MESSAGES = [
    {"role": "user", "content": "Why? é 😀"},
    {"role": "assistant", "content": "So.\n</think> Two.", "n": 12345678},
]
GROW = "{% set ns = namespace(s='ab', l=[1], m=[1]) %}{% for i in range(60) %}"
HOSTILE = {
    "a text repeated": "{{ 'a' * 10**10 }}",
    "a list repeated": "{{ [1] * 10**10 }}",
    "a power": "{{ 9 ** 9999999 }}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "nested loops that write": "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxx{% endfor %}{% endfor %}",
    "a sum that doubles": GROW + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "a concatenation that doubles": GROW + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "a list that holds itself twice": GROW + "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
    "a dictionary that holds itself twice": GROW
    + "{% set ns.l = dict(a=ns.l, b=ns.l) %}{% endfor %}{{ ns.l | tojson }}",
    "a comparison of such": GROW
    + "{% set ns.l = (ns.l, ns.l) %}{% set ns.m = (ns.m, ns.m) %}{% endfor %}{{ ns.l == ns.m }}",
    "a filter's width": "{{ 'a' | center(10**9) }}",
    "a method's width": "{{ 'a'.ljust(2000000000) }}",
    "zeros": "{{ '1'.zfill(10**10) }}",
    "a field of %": "{{ '%1000000000d' % 1 }}",
    "a field of % from a value": "{{ '%*d' % (1000000000, 1) }}",
    "a field of format": "{{ '{:1000000000}'.format(1) }}",
    "a field of format from a value": "{{ '{:{}}'.format(1, 1000000000) }}",
    "a field of the filter": "{{ '%999999999d' | format(1) }}",
    "many fields": "{% set x = 'a' * 9999999 %}{{ ('{0}' * 99999).format(x) }}",
    "a replacement": "{% set x = 'a' * 100000 %}{{ x.replace('a', x) }}",
    "a replacement by a filter": "{% set x = 'a' * 100000 %}{{ x | replace('a', x) }}",
    "a join": "{% set x = 'a' * 1000000 %}{{ range(99999) | join(x) }}",
    "a join by a method": "{% set x = 'a' * 1000000 %}{{ x.join(x) }}",
    "a translation": "{% set x = 'a' * 99999 %}{{ x.translate({97: x}) }}",
    "tabs": "{{ ('\t' * 99999).expandtabs(99999) }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "an indentation": "{{ messages | tojson(indent=10**9) }}",
    "a batch that is filled up": "{{ [1] | batch(10**9, 'x') | list }}",
    "a block that is kept": "{% set x = 'a' * 999999 %}{% set y %}{% for i in range(9999) %}{{ x }}{% endfor %}{% endset %}{{ y }}",
    "a filter over many": "{{ range(99999) | map('center', 99999) | list }}",
    "a search in each step": "{% set x = range(99999) | list %}{% for a in x %}{% if 'z' in x %}{% endif %}{% endfor %}",
    "words": "{{ ('a ' * 9999999).split() }}",
    "an encoding": "{{ ('a' * 1000000).encode('idna') }}",
    "bytes": "{{ (1).to_bytes(10**10, 'big') }}",
    "a template that is long": "{% set a = 'a' %}" * 100000,
}


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def write(folder: Path, template: str) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    return load_tokenizer(folder)[0]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_template_is_refused_with_its_file(kind: str, tmp_path: Path) -> None:
    tokenizer = load(write(tmp_path / "base", HOSTILE[kind]))
    before, start = peak_mb(), time.thread_time()
    with pytest.raises(IntegrityError) as caught:
        tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert caught.value.where == str(tmp_path / "base/chat_template.jinja")
    assert time.thread_time() - start < 8
    assert peak_mb() - before < 300


def test_the_limits_hold_in_a_thread(tmp_path: Path) -> None:
    tokenizer = load(write(tmp_path / "base", HOSTILE["nested loops"]))
    errors: list[str] = []

    def render() -> None:
        try:
            tokenizer.apply_chat_template(MESSAGES, tokenize=False)
        except IntegrityError as error:
            errors.append(error.what)

    threads = [threading.Thread(target=render) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(errors) == 3


@pytest.mark.parametrize("kind", ["a text repeated", "nested loops"])
def test_a_hostile_template_stops_a_prompt_with_its_own_error(kind: str, tmp_path: Path) -> None:
    tokenizer = load(write(tmp_path / "base", HOSTILE[kind]))
    with pytest.raises(IntegrityError, match="chat template"):
        skeleton(tokenizer, ("user", "assistant"), None)


@pytest.mark.parametrize(
    "template", ["{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ " + "(" * 9999 + ")" * 9999]
)
def test_a_template_that_python_cannot_run_is_refused_too(template: str, tmp_path: Path) -> None:
    tokenizer = load(write(tmp_path / "base", template))
    with pytest.raises(SettingsError, match="chat template refuses"):
        skeleton(tokenizer, ("user", "assistant"), None)


HONEST = [
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ m['role'] ~ ': ' ~ m.content | trim + '\n' }}{% endfor %}",
    "{% for m in messages[::-1] %}{% if loop.last %}{{ m.content.split('</think>')[-1].lstrip('\n') }}{% endif %}{% endfor %}",
    "{%- set ns = namespace(a=[], s='') %}{%- for m in messages if m.role == 'user' %}{% set ns.a = ns.a + [m] %}"
    "{%- set ns.s = ns.s + m['content'] %}{%- endfor %}{{ ns.a | tojson(indent=4) }}{{ ns.s }}{{ '-' * 20 }}",
    "{% macro show(m, n=2) %}{{ m.content | upper }}{{ n % 2 }}{% endmacro %}{{ show(messages[0]) }}{{ messages[1].n }}",
    "{{ '{} {:>8}'.format(messages[0].role, 'x') }}{{ '%s-%05d' % ('a', 7) }}{{ messages | map(attribute='role') | join(', ') }}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{% for x in nothing %}{% else %}none{% endfor %}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% if loop.first %}{% continue %}{% endif %}"
    "{% break %}{% endfor %}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ [1, 'a', none] }}",
    "{% for a in [[1, [2]], [3]] recursive %}{{ a if a is number else '(' ~ loop(a) ~ ')' }}{% endfor %}{{ 7 // 2 * 3 ** 2 }}",
    "{% set x %}{{ messages[0].content }}{% endset %}{{ x | length }}{{ bos_token }}{{ strftime_now('%Y') }}{{ undefined }}",
    "{{ (messages[0].content, {'a': messages}) | string }}{{ messages[0].content.replace('W', 'w').encode('utf-8') }}",
]


@pytest.mark.parametrize("number", range(len(HONEST)))
def test_an_honest_template_renders_as_transformers_does(number: int) -> None:
    values = {"messages": MESSAGES, "bos_token": "<s>", "add_generation_prompt": True}
    expected = chat_template_utils._cached_compile_jinja_template(HONEST[number]).render(**values)
    assert compile_limited(HONEST[number]).render(**values) == expected


def test_a_long_conversation_is_no_attack() -> None:
    turns = [{"role": role, "content": "word " * 500} for _ in range(500) for role in ("user", "assistant")]
    assert len(compile_limited(HONEST[0]).render(messages=turns)) > 2_400_000
