"""Ratings with the sides opened: what each says about the adapter against the other subject."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lora_med.review.blind.rating import AXES, Rating
from lora_med.review.blind.shown_text import words
from lora_med.review.blind.study import Assignment, Study

WON, LOST, EVEN = 1, -1, 0


@dataclass(frozen=True)
class Observation:
    """One rating of an item: `outcome` for the adapter (1 won, -1 lost, 0 neither; None: the rater cannot judge)."""

    assignment: Assignment
    choice: str
    outcome: int | None
    axes: Mapping[str, int]
    log_length_ratio: float

    @property
    def category(self) -> str:
        """The choice in words that do not depend on the side."""
        if self.outcome == WON:
            return "adapter"
        return "other" if self.outcome == LOST else self.choice


def observe(study: Study, ratings: Mapping[str, Rating]) -> list[Observation]:
    """The stored ratings in the plan's order; lengths count words, the ratio is adapter to other."""
    return [_observation(study, each, ratings[each.id]) for each in study.assignments if each.id in ratings]


def _observation(study: Study, assignment: Assignment, rating: Rating) -> Observation:
    item = study.items[assignment.item]
    outcome = None if rating.choice == "cannot_judge" else outcome_of(rating.choice, assignment)
    axes = {name: outcome_of(rating.axes[name], assignment) for name in AXES if name in rating.axes}
    ratio = math.log(max(words(item.adapter_text), 1) / max(words(item.other_text), 1))
    return Observation(assignment, rating.choice, outcome, axes, ratio)


def outcome_of(choice: str, assignment: Assignment) -> int:
    """1 if the choice is the adapter's side, -1 if it is the other one, else 0."""
    if choice not in ("a", "b"):
        return EVEN
    return WON if choice == assignment.adapter_side else LOST
