"""Claims of an answer: where they are, and where the source has them."""

from __future__ import annotations

import itertools

import pytest

from lora_med.metrics.faithfulness import faithfulness
from lora_med.review.located_claims import Claim, claims, unlocated

SOURCE = "I take aspirin 80 mg daily. No fever. Pain in the left knee."


def told(source: str, output: str) -> list[tuple[str, str, bool, str | None]]:
    return [
        (output[each.start : each.end], each.kind, each.is_supported, each.place and source[slice(*each.place)])
        for each in claims(source, output)
    ]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Aspirin 80 mg.", [("80 mg", "number", True, "80 mg")]),
        ("Aspirin 81 mg.", [("81 mg", "number", False, None)]),
        ("Aspirin 0.08 g", [("0.08 g", "number", True, "80 mg")]),
        ("Warfarin 80 mg", [("Warfarin", "word", False, None), ("80 mg", "number", True, "80 mg")]),
        ("Fever.", [("Fever", "finding", False, " No fever.")]),
        ("No fever.", []),
        ("Is there fever?", []),  # a question states no finding
        ("Pain in the right knee.", [("knee", "side", False, " Pain in the left knee.")]),
        ("", []),
    ],
)
def test_a_claim_is_located_in_answer_and_source(
    output: str, expected: list[tuple[str, str, bool, str | None]]
) -> None:
    assert told(SOURCE, output) == expected


def test_a_number_in_words_is_listed_if_it_is_not_in_the_source() -> None:
    assert [each.value for each in unlocated(SOURCE, "Aspirin twenty mg, eighty mg")] == [20.0]


def test_claims_do_not_overlap_and_are_in_order() -> None:
    output = "1/2 tablet of warfarin 1,000 mg b.i.d. in the right knee, 3 times. Fever and 5 mg."
    found = claims(SOURCE, output)
    assert all(first.end <= second.start for first, second in itertools.pairwise(found))
    assert Claim(0, 10, "number", False) in found


def test_an_answer_without_unsupported_claims_has_no_faults_in_the_metric_either() -> None:
    output = "Aspirin 80 mg daily for pain in the left knee. No fever."
    assert all(each.is_supported for each in claims(SOURCE, output))
    assert faithfulness(SOURCE, output).faults == 0
