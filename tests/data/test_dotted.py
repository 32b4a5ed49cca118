"""Dotted names in data.columns reach into nested values, as JSON objects and Arrow structs have them."""

from __future__ import annotations

import pytest

from lora_med.data.shapes.dotted import value_at

ROW = {
    "answer": {"text": "a", "parts": [{"n": 1}, {"n": 2}], "b.c": 5},
    "note": None,
    "meta.id": 7,
    "meta": {"id": 8, "x": 9},
    "labels": ["p", "q"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("answer.text", "a"),
        ("answer.parts.1.n", 2),
        ("answer.parts", [{"n": 1}, {"n": 2}]),
        ("answer.b.c", 5),
        ("meta.id", 7),
        ("meta.x", 9),
        ("labels.0", "p"),
        ("note", None),
        ("note.text", None),
    ],
)
def test_a_dotted_name_reaches_inside(name: str, value: object) -> None:
    assert value_at(ROW, name) == value


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("other", "other"),
        ("other.text", "other"),
        ("answer.txt", "answer.txt"),
        ("answer.text.more", "answer.text.more"),
        ("labels.2", "labels.2"),
        ("labels.x", "labels.x"),
        ("answer.parts.0.m", "answer.parts.0.m"),
    ],
)
def test_what_is_missing_is_named(name: str, missing: str) -> None:
    with pytest.raises(KeyError) as caught:
        value_at(ROW, name)
    assert caught.value.args == (missing,)
