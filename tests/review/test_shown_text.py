"""Answers in one form: whitespace and markup give no model away."""

from __future__ import annotations

import pytest

from lora_med.review.blind.shown_text import differ_much, sentence_ranges, shown_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  a  b \r\n\r\n\r\n\r\n c\t", "a b\n\nc"),
        ("## Plan\n* **rest**\n• fluids\n- __water__", "Plan\n- rest\n- fluids\n- water"),
        ("2 * 3 ** 4, #1 choice, snake__case", "2 * 3 ** 4, #1 choice, snake__case"),
        ("no break\u00a0space\u2028line", "no break space\nline"),
        ("", ""),
    ],
)
def test_form_is_made_equal(text: str, shown: str) -> None:
    assert shown_text(text) == shown


def test_showing_twice_changes_nothing() -> None:
    text = shown_text("# A\n\n\n* b  **c**\r\n")
    assert shown_text(text) == text


def test_sentences_are_ranges_of_the_text() -> None:
    text = "Takes 2.5 mg daily. No fever!\n- rest\n\nEnd"
    assert [text[start:end] for start, end in sentence_ranges(text)] == [
        "Takes 2.5 mg daily.", "No fever!", "- rest", "End",
    ]  # fmt: skip


def test_a_text_of_ten_megabytes_is_split_at_once() -> None:
    assert len(sentence_ranges("a " * 5_000_000)) == 1


def test_lengths_that_differ_more_than_twice_are_flagged() -> None:
    assert differ_much("a b c d e", "a b") and not differ_much("a b c d", "a b")
    assert differ_much("", "a b c")
