"""The sample's questions in PubMedQA's shape: the evidence answers them, the wording of the question does not."""

from __future__ import annotations

import json
import random
from typing import Any

from tools.sample.studies import Study, draw_small_study, draw_study
from tools.sample.words import load, say, say_all

FIRST_PMID = 91_000_001
SHARES = {"yes": 0.5, "no": 0.35, "maybe": 0.15}
# Kind of question -> the design that answers it, how often, and the verdict that means yes.
KINDS = {
    "treatment": ("trial_event", 34, "better"),
    "measure": ("trial_measure", 30, "better"),
    "risk": ("cohort", 22, "linked"),
    "test": ("diagnostic", 14, "accurate"),
}
NEGATIVE = {"better": "same", "linked": "same", "accurate": "poor"}
SUMMED_UP_SHARE = 0.8  # of the results that end with one plain sentence; the others must be read in full
CONTEXT_WORDS = (60, 84)
HARM_SHARE = 0.15  # of the treatments that do not help, those that do harm: significant, and yet a no


def _study(rng: random.Random, kind: str, answer: str) -> Study:
    design, _, positive = KINDS[kind]
    if answer == "maybe":
        return draw_small_study(rng, design)
    if answer == "yes":
        return draw_study(rng, design, positive)
    harmful = kind == "treatment" and rng.random() < HARM_SHARE
    return draw_study(rng, design, "worse" if harmful else NEGATIVE[positive])


def _in_bounds(item: dict[str, Any]) -> bool:
    low, high = CONTEXT_WORDS
    return low <= sum(len(context.split()) for context in item["CONTEXTS"]) <= high


def _item(rng: random.Random, kind: str, answer: str) -> dict[str, Any]:
    words, study = load("questions"), _study(rng, kind, answer)
    phrases, facts = words[kind], study.facts
    people = words["shared"]["infants" if study.of_infants else "adults"]
    evidence = phrases["results"]["harm" if study.verdict == "worse" else answer]
    if rng.random() < SUMMED_UP_SHARE:
        evidence = [*evidence, words["summary"][answer]]
    parts = {
        "BACKGROUND": facts["fact"],
        "METHODS": say_all(rng, [*phrases["methods"], people, words["shared"]["check"]], facts),
        "RESULTS": say_all(rng, evidence, facts),
    }
    return {
        "QUESTION": say(rng, rng.choice(phrases["question"]), facts),
        "CONTEXTS": list(parts.values()),
        "LABELS": list(parts),
        "MESHES": [study.mesh, "Humans", *(["Female"] if facts["sex"] == "all were women" else [])],
        "YEAR": facts["year1"],
        "reasoning_required_pred": answer,
        "reasoning_free_pred": answer,
        "final_decision": answer,
        "LONG_ANSWER": say(rng, rng.choice(phrases["conclusion"][answer]), facts),
    }


def write_questions(rng: random.Random, items: int) -> bytes:
    """The JSON file: identifier -> item, `items` of them, no question twice.

    Kind and answer are drawn independently, so that neither the kind nor its wording gives the answer away.
    """
    answers = [answer for answer, share in SHARES.items() for _ in range(round(items * share))]
    rng.shuffle(answers)
    kinds, weights = list(KINDS), [weight for _, weight, _ in KINDS.values()]
    items_by_question: dict[str, dict[str, Any]] = {}
    for answer in answers:
        kind = rng.choices(kinds, weights)[0]
        item = _item(rng, kind, answer)
        while item["QUESTION"] in items_by_question or not _in_bounds(item):
            item = _item(rng, kind, answer)
        items_by_question[item["QUESTION"]] = item
    numbered = {str(FIRST_PMID + number): item for number, item in enumerate(items_by_question.values())}
    return (json.dumps(numbered, indent=0, ensure_ascii=False) + "\n").encode()
