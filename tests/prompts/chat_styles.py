"""Chat templates in the styles of published bases, written for these tests, and tokenizers that hold their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.tiny import CHAT_TEMPLATE, make_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ m['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' }}"
    "{{ m['content'] | trim }}{{ '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant are known, not ' + m['role']) }}{% endif %}{% endfor %}"
)
SMOLLM2 = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN3 = (
    "{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{%- for m in messages %}{%- if m.role == 'assistant' %}"
    "{%- set content = m.content %}{%- set thought = '' %}{%- if m.reasoning_content is string %}"
    "{%- set thought = m.reasoning_content %}{%- elif '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].split('<think>')[-1] %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\\n' }}{%- if loop.index0 > ns.last %}"
    "{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{- content + '<|im_end|>\\n' }}{%- else %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ '<|Assistant|>' + m['content'].split('</think>')[-1] + eos_token }}"
    "{% else %}{{ '<|User|>' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)
ENDLESS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
MARKUP = ("<think>", "</think>", "<tool_call>", "</tool_call>")


@dataclass(frozen=True)
class Style:
    """A chat template, the special tokens it writes, and what stands before and after an answer's own text.

    `takes_system` is false if it refuses a system turn; `answer` is what is trained of the answer `So.`.
    """

    template: str
    special: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
    takes_system: bool = True
    answer: str = "So.<|im_end|>"


STYLES = {
    "chatml": Style(CHATML),
    "marked": Style(MARKED),
    "micro": Style(CHAT_TEMPLATE),
    "llama3": Style(LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), answer="So.<|eot_id|>"),
    "gemma": Style(GEMMA, ("<start_of_turn>", "<end_of_turn>"), takes_system=False, answer="So.<end_of_turn>"),
    "mistral": Style(MISTRAL, ("[INST]", "[/INST]"), takes_system=False, answer=" So.<|end_of_text|>"),
    "smollm2": Style(SMOLLM2),
    "qwen3": Style(QWEN3, answer="<think>\n\n</think>\n\nSo.<|im_end|>"),
    "r1": Style(R1, ("<|User|>", "<|Assistant|>"), answer="So.<|end_of_text|>"),
}


def style_tokenizer(style: Style, *, merges: bool = True, structure_is_special: bool = True) -> Any:
    """A byte-level tokenizer with the style's tokens and template; `<think>` and `<tool_call>` are plain added tokens.

    Args:
        merges: join `ab`, two line breaks, and a blank with a capital S.
        structure_is_special: else the tokens around turns are added tokens that are not special.
    """
    tokenizer = make_tokenizer()
    if merges:
        from tokenizers import models

        vocab = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
        pairs = [("a", "b"), ("Ċ", "Ċ"), ("Ġ", "S")]
        vocab |= {first + second: len(vocab) + number for number, (first, second) in enumerate(pairs)}
        tokenizer.backend_tokenizer.model = models.BPE(vocab=vocab, merges=pairs)
    if structure_is_special:
        tokenizer.add_special_tokens({"additional_special_tokens": [*style.special]})
    else:
        tokenizer.add_tokens([*style.special])
    tokenizer.add_tokens([*MARKUP])
    tokenizer.chat_template = style.template
    return tokenizer
