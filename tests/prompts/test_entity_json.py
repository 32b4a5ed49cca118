"""Entities as JSON and back to offsets."""

from __future__ import annotations

import json

import pytest

from lora_med.data.outcome import ReadOptions
from lora_med.data.record import Annotated, Span
from lora_med.data.sources import bc5cdr, ncbi_disease
from lora_med.prompts.templates.entity_json import occurrences, read_entities, write_entities
from tests.data.real_files import REAL, needs_real

TEXT = "APC2 and APC: loss of APC leads to colon cancer; cancer of the colon."


def spans(*found: tuple[int, int, str]) -> tuple[Span, ...]:
    return tuple(Span(start, end, kind, TEXT[start:end]) for start, end, kind in found)


def listed(*items: tuple[str, str]) -> str:
    return json.dumps([{"type": kind, "text": text} for kind, text in items])


def test_repeated_mentions_are_placed_from_left_to_right() -> None:
    found = read_entities(listed(("Gene", "APC"), ("Gene", "APC"), ("Disease", "cancer")), TEXT)
    assert found.spans == spans((9, 12, "Gene"), (22, 25, "Gene"), (41, 47, "Disease"))
    assert found.sound and not found.hallucinated


def test_a_mention_goes_behind_the_one_before_it() -> None:
    found = read_entities(listed(("Disease", "colon cancer"), ("Disease", "cancer"), ("Disease", "cancer")), TEXT)
    assert found.spans == spans((35, 47, "Disease"), (41, 47, "Disease"), (49, 55, "Disease"))


def test_out_of_order_a_mention_takes_the_first_free_offsets() -> None:
    found = read_entities(listed(("Disease", "cancer"), ("Gene", "APC")), TEXT)
    assert found.spans == spans((41, 47, "Disease"), (9, 12, "Gene"))


def test_nested_mentions_come_back() -> None:
    gold = spans((35, 47, "Disease"), (35, 40, "Organ"), (41, 47, "Disease"))
    assert read_entities(write_entities(Annotated("u", "g", "s", TEXT, gold)), TEXT).spans == gold


def test_a_part_of_a_word_counts_only_where_the_word_is_never_alone() -> None:
    assert occurrences(TEXT, "APC") == [9, 22]
    assert occurrences(TEXT, "lead") == [26]
    assert occurrences(TEXT, "absent") == occurrences(TEXT, "") == []


def test_what_is_not_in_the_text_is_hallucinated() -> None:
    found = read_entities(listed(("Gene", "BRCA1"), ("Gene", "APC2"), ("Gene", "APC2")), TEXT)
    assert found.spans == spans((0, 4, "Gene"))
    assert found.hallucinated == (("Gene", "BRCA1"), ("Gene", "APC2"))


@pytest.mark.parametrize(
    ("text", "mentions", "sound"),
    [
        (' Here it is: [{"type": "Gene", "text": "APC"}] and more ]', 1, True),
        ("[]", 0, True),
        ("", 0, False),
        ("none", 0, False),
        ('[{"type": "Gene", "text": "APC"}, {"type": "Gene", "te', 1, False),  # cut by the limit of length
        ('[{"type": "Gene", "text": "APC"}, {"type": "Gene"}, 7]', 1, False),
        ('{"type": "Gene", "text": "APC"}', 0, False),
        ("[" * 100_000, 0, False),
        ('[{"type": "Gene", "text": "  "}]', 0, False),
    ],
)
def test_an_answer_that_is_not_the_requested_list_is_unsound(text: str, mentions: int, sound: bool) -> None:
    found = read_entities(text, TEXT)
    assert (len(found.spans), found.sound) == (mentions, sound)


@needs_real
@pytest.mark.parametrize(
    ("module", "name", "share"),
    [
        (bc5cdr, "bc5cdr/CDR_TrainingSet.PubTator.txt", 0.996),
        (ncbi_disease, "ncbi_disease/original-data/train/NCBItrainset_corpus.txt", 0.916),
    ],
)
def test_gold_lists_come_back_to_their_offsets(module: object, name: str, share: float) -> None:
    found = total = 0
    for record in module.read([REAL / name], ReadOptions()):  # type: ignore[attr-defined]
        gold = {(span.start, span.end, span.type) for span in record.spans}
        back = read_entities(write_entities(record), record.text)
        found += len(gold & {(span.start, span.end, span.type) for span in back.spans})
        total += len(gold)
        assert back.sound
    assert found / total >= share
