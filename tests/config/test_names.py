"""Did you mean: near names are found whatever their case, and far ones are not."""

from __future__ import annotations

import pytest

from lora_med.config.near_names import edit_distance, nearest, unknown

KNOWN = ("pubmedqa", "pubmed", "mimic", "MedQA")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("pubmedqq", "pubmedqa"),
        ("PUBMED", "pubmed"),
        ("medqa", "MedQA"),
        ("mimic3", "mimic"),
        ("zebra", None),
        ("", None),
        ("mmiic", "mimic"),
        ("mediqa", "MedQA"),
    ],
)
def test_the_nearest_name_is_found(name: str, near: str | None) -> None:
    assert nearest(name, KNOWN) == near


@pytest.mark.parametrize(
    ("first", "second", "errors"),
    [("stage", "store", 2), ("comapre", "compare", 1), ("", "abc", 3), ("kitten", "sitting", 3), ("seed", "seed", 0)],
)
def test_the_distance_counts_typing_errors(first: str, second: str, errors: int) -> None:
    assert edit_distance(first, second) == edit_distance(second, first) == errors


def test_an_abbreviation_finds_its_name_and_a_far_word_finds_none() -> None:
    assert nearest("bf16", ("bfloat16", "float16")) == "bfloat16"
    assert nearest("stage", ("store", "source", "seed")) is None
    assert nearest("b", ("r",)) is None
    assert nearest("plane", ("plain",)) == "plain"


def test_an_unknown_name_gets_the_near_one_and_all_others() -> None:
    message = unknown("data source", "pubmedqq", ("pubmedqa", "pubmed", "mimic"))
    assert message == "no data source named 'pubmedqq'; did you mean 'pubmedqa'? known: mimic, pubmed, pubmedqa"
    assert unknown("adapter", "x", ()) == "no adapter named 'x'; known: none"
