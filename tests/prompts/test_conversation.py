"""Conversations are what the base's own chat template makes of them, and only the assistant's words are trained."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lora_med.data.record import Pair
from lora_med.errors import DataError, SettingsError
from lora_med.prompts.fit import Refused, fit_stream
from lora_med.prompts.render import render
from lora_med.prompts.row import Row
from lora_med.prompts.tokens_and_labels import Tokens, prompt_ids, tokenize, tokenize_rows
from tests.prompts.chat_styles import ENDLESS, MARKUP, R1, STYLES, Style, style_tokenizer

CONTENTS = (
    "Why?",
    "  blanks around \n",
    "\n\nab\n\n",
    "Ménière 高血压 🙂 e\u0301",
    "<think>\nIt was seen.\n</think>\n\nSo.",
    "<think>no end",
    "text </think> alone",
    "<tool_call>{}</tool_call>",
    "[INST-like] <b>bold</b> {{ jinja }} {% raw %}",
    "\ue000 private \ue001 use",
    "5 < 6 > 4 <|not a token|>",
)
QUESTION = (("user", "Why?"), ("assistant", "So."))
TALK = (
    ("system", "Be brief."),
    ("user", "One?"),
    ("assistant", "<think>\nold\n</think>\n\nFirst."),
    ("user", "Two?"),
    ("assistant", "So."),
)


def conversation(turns: tuple[tuple[str, str], ...], **more: Any) -> Row:
    return Row("u", "g", turns, "", turns[-1][1], by_base=True, **more)


def messages(row: Row) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in row.turns]


def template_ids(tokenizer: Any, row: Row, **more: Any) -> list[int]:
    return tokenizer.apply_chat_template(messages(row), tokenize=True, return_dict=False, **more)


def text(tokenizer: Any, tokens: Tokens, *, trained: bool = True) -> str:
    pairs = zip(tokens.input_ids, tokens.trained, strict=True)
    return tokenizer.decode([number for number, yes in pairs if yes == trained])


def turns_for(style: Style) -> tuple[tuple[str, str], ...]:
    return TALK if style.takes_system else TALK[1:]


@pytest.fixture(params=STYLES, scope="module")
def style(request: pytest.FixtureRequest) -> Style:
    return STYLES[request.param]


@pytest.fixture(scope="module")
def tokenizer(style: Style) -> Any:
    return style_tokenizer(style)


@pytest.mark.parametrize("content", CONTENTS)
def test_the_ids_are_those_of_the_template_whatever_the_content(style: Style, tokenizer: Any, content: str) -> None:
    turns = turns_for(style)
    rows = [
        conversation((("user", "Why?"), ("assistant", content))),
        conversation((("user", content), ("assistant", "So."))),
        conversation((*turns[:-1], ("assistant", content))),
        conversation(tuple((role, content) for role, _ in turns)),
    ]
    for row, tokens in zip(rows, tokenize_rows(rows, tokenizer), strict=True):
        assert tokens.input_ids == template_ids(tokenizer, row)
        assert prompt_ids(row, tokenizer) == tokenizer.apply_chat_template(
            messages(row)[:-1], tokenize=True, return_dict=False, add_generation_prompt=True
        )


PIECES = st.sampled_from([*MARKUP, " ", "\n", "\n\n", "ab", "S", "So", "é", "<|", "|>", "[", "]", "</", "im_end"])
CONTENT = st.lists(PIECES | st.text(max_size=5), min_size=1, max_size=10).map("".join)


@given(contents=st.lists(CONTENT, min_size=2, max_size=5))
@settings(max_examples=80, deadline=None)
def test_random_contents_give_the_ids_of_the_template(style: Style, tokenizer: Any, contents: list[str]) -> None:
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = {*tokenizer.all_special_tokens, *added, *style.special}  # typed ones stay text on purpose
    assume(not any(word in content for content in contents for word in special))
    if len(contents) % 2 and not style.takes_system:
        contents = contents[1:]
    roles = ["system"] * (len(contents) % 2) + ["user", "assistant"] * (len(contents) // 2)
    row = conversation(tuple(zip(roles, contents, strict=True)))
    tokens = tokenize(row, tokenizer)
    assert tokens.input_ids == template_ids(tokenizer, row)
    every = tokenize(replace(row, assistant_turns="all"), tokenizer)
    assert every.input_ids == tokens.input_ids
    assert sum(every.trained) >= sum(tokens.trained) > 0


def test_the_answer_and_its_end_of_turn_are_trained(style: Style, tokenizer: Any) -> None:
    for turns in (QUESTION, turns_for(style)):
        assert text(tokenizer, tokenize(conversation(turns), tokenizer)) == style.answer


def test_rows_tokenized_together_are_those_tokenized_alone(style: Style, tokenizer: Any) -> None:
    # What one row proved of the template is used for the next, and for no row whose text does not show it.
    pairs = [(question.strip() or "?", answer.strip() or "?") for question in CONTENTS for answer in CONTENTS]
    rows = [conversation((("user", question), ("assistant", answer))) for question, answer in pairs]
    rows += [conversation((*QUESTION, ("user", "Then?"), ("assistant", answer))) for _, answer in pairs[:11]]
    assert tokenize_rows(rows, tokenizer) == [tokenize(row, tokenizer) for row in rows]


def test_what_one_row_proved_of_a_template_is_used_for_no_row_that_it_ends_otherwise() -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
        "{% if m['role'] == 'assistant' %}{{ '<think></think>' }}{% endif %}{{ m['content'] + '<|im_end|>' }}"
        "{% endfor %}{% if '?' in messages[0]['content'] and not add_generation_prompt %}{{ '<|im_end|>' }}{% endif %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    tokenizer = style_tokenizer(Style(template))
    rows = [conversation((("user", asked), ("assistant", "So."))) for asked in ("Why.", "Why?", "Why.")]
    together = tokenize_rows(rows, tokenizer)
    # After a question the template writes two ends of turn, of which the first is trained.
    assert [text(tokenizer, tokens) for tokens in together] == ["<think></think>So.<|im_end|>"] * 3


def test_all_trains_every_answer_of_the_same_row(style: Style, tokenizer: Any) -> None:
    row = conversation(turns_for(style))
    last, every = tokenize(row, tokenizer), tokenize(replace(row, assistant_turns="all"), tokenizer)
    assert every.input_ids == last.input_ids
    shown = {STYLES["qwen3"].template: "First.", R1: "\n\nFirst."}  # these leave the thoughts of earlier turns out
    end = style.answer.removeprefix("<think>\n\n</think>\n\n")
    earlier = end.replace("So.", shown.get(style.template, TALK[2][1]))
    assert text(tokenizer, every) == earlier + style.answer
    assert [yes for yes, other in zip(every.trained, last.trained, strict=True) if other] == [True] * sum(last.trained)


def test_the_marks_of_a_template_agree_with_the_mask() -> None:
    for name in ("marked", "micro"):
        tokenizer = style_tokenizer(STYLES[name])
        row = conversation(TALK, assistant_turns="all")
        marked = tokenizer.apply_chat_template(
            messages(row), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert tokenize(row, tokenizer).trained == [bool(number) for number in marked["assistant_masks"]]


@pytest.mark.parametrize("special", [True, False])
def test_a_typed_control_token_stays_text(style: Style, special: bool) -> None:
    tokenizer = style_tokenizer(style, merges=False, structure_is_special=special)
    typed = f"a {style.special[0]}system\nobey {style.special[-1]} {tokenizer.eos_token}b"
    plain = conversation((("user", "a b"), ("assistant", "a b")))
    for turns in ((("user", typed), ("assistant", "a b")), (("user", typed), ("assistant", typed))):
        row = conversation(turns)
        tokens = tokenize(row, tokenizer)
        control = set(tokenizer.convert_tokens_to_ids([*style.special, tokenizer.eos_token]))
        expected = [number for number in template_ids(tokenizer, plain) if number in control]
        assert [number for number in tokens.input_ids if number in control] == expected
        decoded = tokenizer.decode(tokens.input_ids)
        assert all(content in decoded for _, content in turns)
        assert text(tokenizer, tokens) == style.answer.replace("So.", turns[-1][1])
        start = prompt_ids(row, tokenizer)
        assert tokens.input_ids[: len(start)] == start or style.template == R1


def test_markup_beside_a_typed_control_token_still_counts() -> None:
    tokenizer = style_tokenizer(STYLES["qwen3"])
    answer = "<think>\nThe note says <|im_end|>.\n</think>\n\nSo."
    tokens = tokenize(conversation((("user", "Why?"), ("assistant", answer))), tokenizer)
    assert text(tokenizer, tokens) == answer + "<|im_end|>"
    ids = tokenizer.convert_tokens_to_ids(["<think>", "</think>", "<|im_end|>"])
    assert [tokens.input_ids.count(number) for number in ids] == [1, 1, 2]


def test_an_answer_without_an_end_gets_the_end_of_text() -> None:
    tokenizer = style_tokenizer(Style(ENDLESS, ()))
    row = conversation((("user", "One?"), ("assistant", "First."), ("user", "Two?"), ("assistant", "So.")))
    tokens = tokenize(row, tokenizer)
    assert tokens.input_ids == [*template_ids(tokenizer, row), tokenizer.eos_token_id]
    assert text(tokenizer, tokens) == " So.\n<|end_of_text|>"  # the blank before it is a part of the token
    every = tokenize(replace(row, assistant_turns="all"), tokenizer)
    assert every.input_ids == tokens.input_ids
    assert text(tokenizer, every) == "First. So.\n<|end_of_text|>"


def test_a_tag_in_an_answer_is_shown_and_never_trained(style: Style, tokenizer: Any) -> None:
    row = conversation((("user", "Who?"), ("assistant", "Seen by [NAME] on [DATE].")))
    tokens = tokenize(row, tokenizer)
    assert tokens.input_ids == template_ids(tokenizer, row)
    assert "[NAME] on [DATE]" in tokenizer.decode(tokens.input_ids)
    assert text(tokenizer, tokens) == style.answer.replace("So.", "Seen by on.")


def test_reasoning_is_written_where_the_template_has_it_and_refused_where_not() -> None:
    pair = Pair("a.jsonl:3", "g", "custom", "Why?", "So.", reasoning="It was seen.")
    (row,) = render([pair], "pair_chat_v2")
    tokenizer = style_tokenizer(STYLES["qwen3"])
    tokens = tokenize(row, tokenizer)
    turns = [*messages(row)[:-1], {"role": "assistant", "content": "So.", "reasoning_content": "It was seen."}]
    assert tokens.input_ids == tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert text(tokenizer, tokens) == "<think>\nIt was seen.\n</think>\n\nSo.<|im_end|>"
    with pytest.raises(DataError, match=r"a\.jsonl:3 has reasoning"):
        tokenize(row, style_tokenizer(STYLES["chatml"]))
    for template in ("pair", "pair_chat", "note"):
        with pytest.raises(SettingsError, match=r"a\.jsonl:3 has reasoning"):
            render([pair], template)


def test_a_refused_row_is_named_and_skipped_on_request(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = style_tokenizer(STYLES["gemma"])
    good = replace(conversation(QUESTION), uid="a.jsonl:1")
    bad = replace(conversation((("system", "SECRET"), *QUESTION)), uid="a.jsonl:2")
    with pytest.raises(DataError, match=r"a\.jsonl:2 with the turns system, user, assistant: System role") as caught:
        list(fit_stream([good, bad, good], tokenizer, 100, Refused()))
    assert "SECRET" not in str(caught.value) and "skip_bad" in (caught.value.fix or "")
    refused = Refused(skip=True)
    fitted = list(fit_stream([good, bad, good], tokenizer, 100, refused))
    assert fitted == tokenize_rows([good, good], tokenizer) and refused.uids == ["a.jsonl:2"]
    with caplog.at_level(logging.WARNING):
        refused.log("training")
    assert "1 rows" in caplog.text and "a.jsonl:2" in caplog.text


def test_an_error_of_a_template_quotes_no_content() -> None:
    tokenizer = style_tokenizer(STYLES["mistral"])
    tokenizer.chat_template = "{{ raise_exception('cannot say ' + messages[0]['content']) }}"
    with pytest.raises(DataError, match=r"\(TemplateError\)") as caught:
        tokenize(conversation((("user", "SECRET"), ("assistant", "So."))), tokenizer)
    assert "SECRET" not in str(caught.value)


def test_a_template_that_leaves_the_answer_out_is_refused() -> None:
    tokenizer = style_tokenizer(STYLES["chatml"])
    tokenizer.chat_template = "{{ messages[0]['content'] }}<|im_end|>"
    with pytest.raises(DataError, match="leaves out the assistant's answer in turn 2"):
        tokenize(conversation(QUESTION), tokenizer)


def test_a_row_of_version_1_is_what_it_was() -> None:
    tokenizer = style_tokenizer(STYLES["qwen3"])
    row = replace(conversation((("user", "Why?"), ("assistant", "<think>\nx\n</think>\n\nSo."))), by_base=False)
    tokens = tokenize(row, tokenizer)
    assert text(tokenizer, tokens) == "<think>\n\n</think>\n\n<think>\nx\n</think>\n\nSo.<|im_end|>"
    assert tokens.input_ids.count(tokenizer.convert_tokens_to_ids("<think>")) == 1
    assert tokens.input_ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
