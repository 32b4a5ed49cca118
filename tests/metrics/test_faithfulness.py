"""Faithfulness on sentences made by hand, good ones and bad ones, and against what people judged."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from lora_med.metrics.content_words import akin, content_words, implied, one_form
from lora_med.metrics.faithfulness import faithfulness, headings
from lora_med.metrics.findings import sides, statuses
from tests.data.real_files import REAL, needs_real

DIALOGUE = (
    "Doctor: How old are you?\nPatient: I'm fifty two, sir.\nDoctor: Any fever?\nPatient: No.\n"
    "Doctor: Do you have chest pain?\nPatient: Yes, on the left side of my chest, and my left knee hurts.\n"
    "Doctor: Take aspirin, eighty one milligrams, once a day."
)


def test_a_faithful_note_has_no_unsupported_claims() -> None:
    found = faithfulness(
        DIALOGUE, "52-year-old. No fever. Chest pain on the left. Left knee hurts. Aspirin 81 mg daily."
    )
    assert found.faults == 0
    assert found.facts > 8


@pytest.mark.parametrize(
    ("output", "field"),
    [
        ("A 54-year-old.", "unsupported_quantities"),
        ("Aspirin 81 g.", "unsupported_quantities"),
        ("Aspirin twice a day.", "unsupported_quantities"),
        ("Fever.", "flipped_findings"),
        ("Denies chest pain.", "flipped_findings"),
        ("His right knee hurts.", "flipped_sides"),
        ("Bilateral knee.", "flipped_sides"),
        ("Ibuprofen was given.", "unsupported_words"),
        ("She has chest pain.", "unsupported_persons"),
    ],
)
def test_each_unsupported_claim_is_found_by_its_kind(output: str, field: str) -> None:
    found = faithfulness(DIALOGUE, output)
    assert getattr(found, field) >= 1
    others = {"unsupported_quantities", "flipped_findings", "flipped_sides", "unsupported_words"} - {field}
    assert not any(getattr(found, other) for other in others)


def test_counts_of_one_output_by_hand() -> None:
    found = faithfulness("Aspirin 81 mg. No fever.", "Aspirin 80 mg. Fever and rash.")
    assert (found.quantities, found.unsupported_quantities) == (1, 1)
    assert (found.words, found.unsupported_words) == (3, 1)  # aspirin, fever, rash
    assert (found.findings, found.flipped_findings) == (2, 1)  # aspirin, fever
    assert (found.facts, found.faults) == (6, 3)


def test_a_question_states_no_finding_but_its_words_count() -> None:
    letter = "I have swelling of my ankle. I take aspirin."
    found = faithfulness(letter, "Is swelling caused by statins? I deny swelling.")
    assert (found.findings, found.flipped_findings) == (1, 1)  # the denial; the question asks only
    assert (found.words, found.unsupported_words) == (3, 2)  # swelling is there; caused and statins are not


def test_an_empty_output_claims_nothing() -> None:
    found = faithfulness(DIALOGUE, "")
    assert (found.facts, found.faults) == (0, 0)


@pytest.mark.parametrize(
    ("text", "denied", "there"),
    [
        ("She denies chest pain but has a cough.", {"chest", "pain"}, {"cough"}),
        ("No fever, chills or nausea.", {"febrile", "chill", "nausea"}, set()),
        ("Pneumonia was ruled out. Cough stays.", {"pneumonia"}, {"cough"}),
        ("No change in the tremor.", set(), {"tremor"}),
        ("Doctor: Any rash?\nPatient: Nope.\nDoctor: Cough?\nPatient: Yeah.", {"rash"}, {"cough"}),
        ("Without edema, except at the ankles.", {"edema"}, {"ankl"}),
    ],
)
def test_denials_hold_for_their_scope(text: str, denied: set[str], there: set[str]) -> None:
    found = statuses(text)
    assert denied <= {one.word for one in found if one.there is False}
    assert there <= {one.word for one in found if one.there}
    assert not denied & {one.word for one in found if one.there}


def test_an_unanswered_question_says_nothing() -> None:
    (rash,) = statuses("Doctor: Any rash?\nPatient: Why do you ask me?")[:1]
    assert rash.there is None


def test_a_side_belongs_to_what_follows_and_right_is_not_always_one() -> None:
    assert ("knee", "left") in sides("Pain in the left knee.")
    assert ("lung", "both") in sides("Bilateral lung bases.")
    assert sides("That's right. Right now he left the house.") == []


def test_words_are_brought_to_one_form_and_everyday_ones_imply_those_of_notes() -> None:
    assert one_form("smoking") == one_form("smoker") == "smok"
    assert one_form("htn") == "hypertension"
    assert content_words("The patient reports an E K G today") == ["ecg"]
    assert "cholecystectomy" in implied(content_words("I had my gallbladder removed"))
    assert akin("smok", "smokeless") is False
    assert akin("urinat", "urinary")


def test_headings_that_are_missing_are_counted() -> None:
    reference = "CHIEF COMPLAINT\nCough.\nPlan: rest"
    assert headings(reference) == ["chief complaint", "plan"]
    found = faithfulness("cough rest", "Plan: rest", reference)
    assert (found.headings, found.missing_headings) == (2, 1)


@needs_real
@pytest.mark.skipif(importlib.util.find_spec("rouge_score") is None, reason="rouge-score is not installed")
def test_unsupported_claims_correlate_with_human_judgment_more_than_rouge() -> None:
    """The 400 judged summaries of MTS-Dialog.

    On the dialogues with odd numbers, which no word table was made with, the correlation itself is over zero. It
    differs clearly from ROUGE-L's only on all dialogues, because too few of a half have any hallucination.
    """
    sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks"))
    try:
        study = importlib.import_module("faithfulness")
    finally:
        sys.path.pop(0)
    rows, judgments = study.read(REAL / "mts_dialog" / "Correlation-Study")
    measure, peer = (study.measured(rows)[name] for name in ("unsupported claims, share", study.PEER))
    groups = [row["ID"] for row in rows]
    odd = [index for index, group in enumerate(groups) if int(group) % 2]
    for name in ("hallucination rate", "factual errors"):
        unread = study.correlations(measure[odd], peer[odd], judgments[name][odd], [groups[index] for index in odd])
        assert unread["correlation"][1] > 0 and unread["over_rouge_l"][0] > 0
        complete = study.correlations(measure, peer, judgments[name], groups)
        assert complete["over_rouge_l"][1] > 0
