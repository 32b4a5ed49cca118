"""Rows fitted to a length: what is lost is context, counted to the token; sections are where running text is cut."""

from __future__ import annotations

from typing import Any

import pytest

from lora_med.data.record import Passage, Question, Section
from lora_med.errors import SettingsError
from lora_med.prompts.fit import chunk, fit_rows
from lora_med.prompts.render import render
from lora_med.prompts.tokens_and_labels import tokenize_rows
from tests.tiny import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(chat=True)


def question(number: int, words: int) -> Question:
    context = " ".join(f"w{place}" for place in range(words))
    return Question(f"q{number}", "g", "pubmedqa", "Is iron a metal?", "yes", (context,), ("yes", "no", "maybe"))


@pytest.mark.parametrize("template", ["pubmedqa", "pubmedqa_chat", "question_chat"])
def test_a_context_is_shortened_and_every_lost_token_counted(tokenizer: Any, template: str) -> None:
    rows = render([question(number, number) for number in range(1, 60)], template, "trim_context")
    whole = tokenize_rows(rows, tokenizer)
    fitted = fit_rows(rows, tokenizer, 150)
    assert any(len(one.input_ids) > 150 for one in whole)
    for before, after in zip(whole, fitted, strict=True):
        assert len(after.input_ids) <= 150
        assert after.lost == len(before.input_ids) - len(after.input_ids)
        text = tokenizer.decode(after.input_ids)
        assert "Is iron a metal?" in text.replace("  ", " ") and text.count("yes") >= 1
        trained = [n for n, yes in zip(after.input_ids, after.trained, strict=True) if yes]
        assert trained == [n for n, yes in zip(before.input_ids, before.trained, strict=True) if yes]


def test_a_question_too_long_without_its_context_is_left_to_preflight(tokenizer: Any) -> None:
    rows = render([question(1, 3)], "pubmedqa", "trim_context")
    (fitted,) = fit_rows(rows, tokenizer, 20)
    assert fitted.lost == 0 and len(fitted.input_ids) > 20


def passage(*lengths: int) -> Passage:
    sections = tuple(Section("x" * length + ".", f"S{number}") for number, length in enumerate(lengths))
    text = "\n".join(f"{part.label}: {part.text}" for part in sections)
    return Passage("p", "g", "pubmed", text, "", sections)


def test_running_text_is_cut_where_a_section_begins(tokenizer: Any) -> None:
    rows = render([passage(20, 20, 20)], "text")
    (whole,) = fit_rows(rows, tokenizer, 60)
    parts = chunk(whole, 60)
    assert [tokenizer.decode(part.input_ids[1:]).strip()[:3] for part in parts] == ["S0:", "S2:"]
    kept = [n for part in parts for n, yes in zip(part.input_ids, part.trained, strict=True) if yes]
    assert kept == [n for n, yes in zip(whole.input_ids, whole.trained, strict=True) if yes]


def test_a_section_longer_than_a_row_is_cut_at_the_length(tokenizer: Any) -> None:
    (whole,) = fit_rows(render([passage(2, 200, 5)], "text"), tokenizer, 50)
    parts = chunk(whole, 50)
    assert [len(part.input_ids) for part in parts[:3]] == [50, 50, 50]
    assert sum(sum(part.trained) for part in parts) == sum(whole.trained)


def test_a_context_with_what_looks_like_a_control_token_is_shortened_by_its_own_tokens(tokenizer: Any) -> None:
    record = Question("a", "g", "custom", "Why?", "Because.", ("</s> " * 60,))
    (row,) = render([record], "question_chat", "trim_context")
    (whole,) = tokenize_rows([row], tokenizer)
    (tokens,) = fit_rows([row], tokenizer, 150)
    assert len(whole.input_ids) > 300 and 140 <= len(tokens.input_ids) <= 150
    assert tokens.lost == len(whole.input_ids) - len(tokens.input_ids)


def test_a_chunk_with_nothing_to_learn_is_left_out(tokenizer: Any) -> None:
    text = "Seen. " + "[NAME] " * 40 + "Better."
    (tokens,) = tokenize_rows(render([Passage("a", "g", "custom", text)], "text"), tokenizer)
    rows = chunk(tokens, 40)
    assert all(any(row.trained[1:]) for row in rows) and len(rows) < len(tokens.input_ids) // 40
    assert sum(sum(row.trained) for row in rows) == sum(tokens.trained)


def test_in_a_mixture_each_template_is_fitted_as_it_can_be() -> None:
    records = [question(1, 4), Passage("b", "g", "other", "Some text.")]
    names = {"custom": "question_chat", "other": "text"}
    names[records[0].source] = "question_chat"
    assert [row.too_long for row in render(records, names, "trim_context")] == ["trim_context", "chunk_by_section"]
    with pytest.raises(SettingsError, match="cannot be fitted by 'trim_context'"):
        render(records[1:], "text", "trim_context")
