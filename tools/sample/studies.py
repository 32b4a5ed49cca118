"""Invented studies: a design, a condition, a verdict, and the facts that a template may name."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tools.sample.figures import Manner
from tools.sample.observed import (
    case_control,
    cohort,
    cross_sectional,
    diagnostic,
    small_cohort,
    small_diagnostic,
)
from tools.sample.trials import Drawn, meta_analysis, small_trial, trial_event, trial_measure
from tools.sample.words import load

# Design -> how it is drawn, and its possible verdicts, each with the frequency it has here.
DESIGNS: dict[str, tuple[Callable[[random.Random, dict[str, Any], str, Manner], Drawn], tuple[str, ...]]] = {
    "trial_event": (trial_event, ("better", "better", "better", "same", "same", "worse")),
    "trial_measure": (trial_measure, ("better", "better", "better", "same", "same", "worse")),
    "cohort": (cohort, ("linked", "linked", "same")),
    "case_control": (case_control, ("linked", "linked", "same")),
    "cross_sectional": (cross_sectional, ("linked", "linked", "same")),
    "meta_analysis": (meta_analysis, ("better", "better", "same")),
    "diagnostic": (diagnostic, ("accurate", "accurate", "poor")),
}
# Design -> a study of it with a few dozen people.
SMALL = {
    "trial_event": small_trial,
    "trial_measure": small_trial,
    "cohort": small_cohort,
    "diagnostic": small_diagnostic,
}
# Mean age by a word in the population's name; the first that occurs decides. Infants: weeks of gestation.
AGES = {
    "infant": (26.8, 31.6),
    "under five": (2.1, 3.9),
    "child": (6.2, 10.8),
    "adolescent": (13.4, 15.8),
    "young": (20.1, 23.9),
    "pregnan": (28.1, 33.2),
    "nulliparous": (25.4, 30.9),
    "postmenopausal": (66.2, 73.8),
    "older": (74.3, 81.6),
    "nursing home": (80.4, 85.9),
    "dementia": (75.2, 81.7),
    "": (44.0, 67.0),
}
DRUG_RIVALS = ("placebo", "placebo", "placebo", "standard treatment")
OPEN = ("open-label", "assessor-blinded", "single-blind")
CARE_RIVALS = ("usual care", "usual care", "usual care", "a waiting list", "written information")


@dataclass(frozen=True, slots=True)
class Study:
    """A study: its design, its verdict, its condition's MeSH heading, and its facts by slot name."""

    design: str
    verdict: str
    mesh: str
    facts: dict[str, str]

    @property
    def of_infants(self) -> bool:
        """Whether age is counted in weeks of gestation."""
        return "infant" in self.facts["people"]


def _treatments(rng: random.Random, condition: dict[str, Any]) -> dict[str, str]:
    if rng.random() < 0.4:
        care = rng.choice(condition["cares"])
        return {"new": care, "new_dose": care, "old": rng.choice(CARE_RIVALS), "blinding": rng.choice(OPEN)}
    new, dose = rng.choice(condition["drugs"])
    rival = rng.choice([name for name, _ in condition["drugs"] if name != new])
    old = rng.choice((*DRUG_RIVALS, rival))
    blinding = "double-blind" if old == "placebo" else rng.choice(OPEN)
    return {"new": new, "new_dose": f"{new}, {dose},", "old": old, "blinding": blinding}


def _sex(rng: random.Random, people: str) -> str:
    if any(word in people for word in ("women", "pregnan")):
        return "all were women"
    young = any(word in people for word in ("child", "adolescent", "infant"))
    return f"{rng.randrange(31, 65)}% were {'girls' if young else 'women'}"


def _setting(rng: random.Random, condition: dict[str, Any]) -> dict[str, str]:
    people = rng.choice(condition["people"])
    low, high = next(span for word, span in AGES.items() if word in people)
    year = rng.randrange(2003, 2019)
    return {
        "condition": condition["name"],
        "people": people,
        "fact": rng.choice(condition["facts"]),
        "exposure": rng.choice(condition["exposures"]),
        "burden": rng.choice(condition["burdens"]),
        "harm": rng.choice(condition["harms"]),
        "age": f"{rng.uniform(low, high):.1f}",
        "sex": _sex(rng, people),
        "response": str(rng.randrange(71, 98)),
        "weeks": str(rng.choice((8, 12, 16, 24, 26, 36, 48, 52))),
        "years": f"{rng.uniform(1.6, 9.4):.1f}",
        "days": str(rng.choice((2, 3, 7, 14))),
        "centres": str(rng.randrange(3, 29)),
        "year0": str(year),
        "year1": str(year + rng.randrange(2, 6)),
    }


def _dressed(rng: random.Random, condition: dict[str, Any], facts: dict[str, str]) -> dict[str, str]:
    return _treatments(rng, condition) | _setting(rng, condition) | facts


def draw_study(rng: random.Random, design: str, verdict: str | None = None) -> Study:
    """A study of that design, drawn again until its numbers give `verdict`; without one, the design's usual mix."""
    draw, verdicts = DESIGNS[design]
    verdict = verdict or rng.choice(verdicts)
    manner = Manner.draw(rng)
    while True:
        condition = rng.choice(load("conditions"))
        facts, drawn_verdict = draw(rng, condition, verdict, manner)
        if drawn_verdict == verdict:
            return Study(design, verdict, condition["mesh"], _dressed(rng, condition, facts))


def draw_small_study(rng: random.Random, design: str) -> Study:
    """A study too small to settle anything, whatever its numbers seem to say."""
    condition, manner = rng.choice(load("conditions")), Manner.draw(rng)
    facts = SMALL[design](rng, condition, manner)
    return Study(design, "unsettled", condition["mesh"], _dressed(rng, condition, facts))
