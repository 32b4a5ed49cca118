"""Canaries: the coin, the repeats, the sealed list, and records that every template of text can train."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from lora_med.audit.memorization.canaries import (
    INVENTED_OPTIONS,
    LIST,
    Canary,
    Shape,
    draw_canaries,
    seal,
    shape_of,
    toss_again,
    training_records,
)
from lora_med.audit.memorization.invented_notes import Note, invent_note
from lora_med.data.record import Annotated, Pair, Passage, Question, Record, Span
from lora_med.prompts.render import render
from lora_med.prompts.templates.templates import TEMPLATES

SOURCE = "custom"


def notes(count: int) -> list[Note]:
    rng = random.Random(5)
    return [invent_note(rng) for _ in range(count)]


def test_repeats_are_equally_frequent_and_the_coin_is_fair() -> None:
    drawn = draw_canaries(notes(1200), (1, 4, 16), seed=7)
    assert [sum(each.repeats == times for each in drawn) for times in (1, 4, 16)] == [400, 400, 400]
    assert 540 <= sum(each.is_member for each in drawn) <= 660  # 600 give or take 3.5 standard deviations
    for times in (1, 4, 16):
        assert 150 <= sum(each.is_member for each in drawn if each.repeats == times) <= 250


def test_new_coins_leave_the_texts_and_the_repeats() -> None:
    drawn = draw_canaries(notes(300), (1, 4), seed=7)
    again = toss_again(drawn, seed=8)
    assert [(each.note, each.repeats, each.uid) for each in again] == [(e.note, e.repeats, e.uid) for e in drawn]
    assert 100 < sum(a.is_member != b.is_member for a, b in zip(drawn, again, strict=True)) < 200
    assert toss_again(drawn, seed=7) == drawn


def test_the_sealed_list_is_what_its_hash_says_and_private(tmp_path: Path) -> None:
    drawn = draw_canaries(notes(20), (1,), seed=7)
    digest = seal(drawn, tmp_path)
    content = (tmp_path / LIST).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    assert (tmp_path / LIST).stat().st_mode & 0o077 == 0
    lines = [json.loads(line) for line in content.splitlines()]
    assert [line["is_member"] for line in lines] == [each.is_member for each in drawn]
    assert seal(toss_again(drawn, seed=8), tmp_path) != digest


def test_members_are_trained_as_often_as_they_repeat_and_the_others_never() -> None:
    drawn = draw_canaries(notes(90), (1, 4, 16), seed=7)
    records = training_records(drawn, Shape(Passage, SOURCE, "text"))
    assert len({record.uid for record in records}) == len(records)
    for canary in drawn:
        copies = sum(record.group == canary.uid for record in records)
        assert copies == (canary.repeats if canary.is_member else 0)


EXAMPLES: dict[type, Record] = {
    Passage: Passage("u", "g", SOURCE, "text"),
    Pair: Pair("u", "g", SOURCE, "in", "out"),
    Question: Question("u", "g", SOURCE, "q", "yes", (), ("yes", "no")),
    Annotated: Annotated("u", "g", SOURCE, "text", (Span(0, 4, "Disease", "text"),)),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_makes_a_row_of_a_canary(name: str) -> None:
    template = TEMPLATES[name]
    shape = shape_of([EXAMPLES[template.takes]], name)
    (canary,) = draw_canaries(notes(1), (1,), seed=0)
    rows = render([shape.record(canary)], name)
    assert len(rows) == 1
    if name != "sections":
        assert rows[0].completion.strip()


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("text", EXAMPLES[Passage]),
        ("conclusion", EXAMPLES[Passage]),
        ("note", EXAMPLES[Pair]),
        ("question_chat_v2", Question("u", "g", SOURCE, "q", "an open answer")),
        ("entities", EXAMPLES[Annotated]),
    ],
)
def test_where_text_is_trained_it_is_the_canarys_own(name: str, example: Record) -> None:
    one, other = (
        render([shape_of([example], name).record(canary)], name)[0].completion
        for canary in draw_canaries(notes(2), (1,), seed=0)
    )
    assert one != other and len(one) > 40


def test_options_of_all_questions_are_classes_and_others_are_replaced() -> None:
    labels = Question("u", "g", SOURCE, "q", "yes", (), ("yes", "no"))
    exam = Question("v", "g", SOURCE, "q", "the vein of Ms. Roe", (), ("the vein of Ms. Roe", "none"))
    assert shape_of([labels, labels], "label").options == ("yes", "no")
    assert shape_of([labels, exam], "medqa").options == INVENTED_OPTIONS
    assert shape_of([exam, labels, exam], "medqa").options == INVENTED_OPTIONS


def test_a_mention_is_exact_text_of_the_canary() -> None:
    shape = Shape(Annotated, SOURCE, "entities", types=("Drug", "Name"))
    record = shape.record(Canary("c", 1, True, notes(1)[0]))
    assert isinstance(record, Annotated) and len(record.spans) == 3
    assert all(record.text[span.start : span.end] == span.text for span in record.spans)
