"""Did you mean: near names are found whatever their case, and far ones are not."""

from __future__ import annotations

import pytest

from lora_med.config.near_names import nearest, unknown

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
    ],
)
def test_the_nearest_name_is_found(name: str, near: str | None) -> None:
    assert nearest(name, KNOWN) == near


def test_an_unknown_name_is_told_the_near_one_and_all_others() -> None:
    message = unknown("data source", "pubmedqq", ("pubmedqa", "pubmed", "mimic"))
    assert message == "no data source named 'pubmedqq'; did you mean 'pubmedqa'? known: mimic, pubmed, pubmedqa"
    assert unknown("adapter", "x", ()) == "no adapter named 'x'; known: none"
