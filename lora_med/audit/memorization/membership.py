"""Membership attacks read from scores: thresholds fixed on one half of the items and read on the other.

An item is a patient (a group of records) or a canary. Attacks belong to a tier: what the attacker holds. The bound on
epsilon of a tier is that of one attack, one number of repeats and one threshold, all three chosen on the first half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_med.audit.memorization.area_under_curve import Area, area, curve
from lora_med.audit.memorization.blind_attack import blind_scores
from lora_med.audit.memorization.exact_intervals import (
    ceiling,
    epsilon_bound,
    epsilon_bounds,
    least_outsiders,
    rate,
)

TIERS = {  # what the attacker holds, the least first
    "text": "text only: the record, and no model",
    "answers": "answers: what the adapter writes",
    "log_probabilities": "log-probabilities: how likely the adapter holds each token",
    "weights": "weights: the adapter's files and its base",
}
ATTACKS = {  # attack -> its tier; a higher score says member
    "blind": "text",
    "first_choices": "answers",
    "loss": "log_probabilities",
    "min_k_plus_plus": "log_probabilities",
    "reference_loss": "weights",
}
FALSE_ALARMS = {"1%": 0.01, "0.1%": 0.001}
LEAST_ITEMS = 20  # members, and outsiders, without which nothing is read
DIFFERENT_SETS = "not valid here: the sets differ"
Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Items:
    """Patients or canaries: `scores` maps each attack but the blind one to an array, one number for each item."""

    uids: tuple[str, ...]
    is_member: NDArray[np.bool_]
    repeats: NDArray[np.int64]  # how often each is trained, if it is a member
    texts: tuple[str, ...]
    scores: Scores

    def enough(self) -> bool:
        """Whether there are members and outsiders to read."""
        members = int(self.is_member.sum())
        return min(members, len(self.is_member) - members) >= LEAST_ITEMS


@dataclass(frozen=True)
class AttackReading:
    """One attack on the members of one number of repeats (None: of any) and on all outsiders, on the second half.

    `at_rates` maps a rate of false alarms to what was read at the threshold for it, or to why it cannot be spoken of.
    """

    attack: str
    repeats: int | None
    members: int
    outsiders: int
    area: Area
    at_rates: dict[str, dict[str, Any]]
    points: tuple[tuple[float, float], ...]

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        own = {"attack": self.attack, "tier": ATTACKS[self.attack], "repeats": self.repeats}
        own |= {"members": self.members, "outsiders": self.outsiders, "auc": self.area.as_json()}
        return own | {"tpr_at": self.at_rates}


@dataclass(frozen=True)
class TierReading:
    """What an attacker who holds this much proves about epsilon."""

    tier: str
    attack: str
    repeats: int | None
    hits: int
    members: int
    alarms: int
    outsiders: int
    epsilon: float
    ceiling: float

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        own = {"tier": self.tier, "holds": TIERS[self.tier], "attack": self.attack, "repeats": self.repeats}
        own |= {"tpr": rate(self.hits, self.members).as_json(), "fpr": rate(self.alarms, self.outsiders).as_json()}
        return own | {"epsilon": self.epsilon, "ceiling": self.ceiling}


@dataclass(frozen=True)
class Reading:
    """All attacks and tiers on one set of items; `is_valid` is false where the blind attack beats chance."""

    attacks: tuple[AttackReading, ...]
    tiers: tuple[TierReading, ...]
    blind: Area
    members: int
    outsiders: int
    tail: tuple[tuple[str, float], ...]

    @property
    def is_valid(self) -> bool:
        """Whether the interval of the blind attack's area holds 0.5."""
        return self.blind.is_chance

    @property
    def verdict(self) -> str:
        """The result in a line."""
        strongest = self.tiers[-1]
        if not self.is_valid:
            return DIFFERENT_SETS
        if strongest.epsilon == 0:
            return f"nothing proved: epsilon may be 0; the most that this could prove is {strongest.ceiling:.1f}"
        return f"epsilon is at least {strongest.epsilon:.2f}; the most that this could prove is {strongest.ceiling:.1f}"

    @property
    def epsilon(self) -> float | None:
        """The bound of the attacker who holds most; None where it is not valid."""
        return self.tiers[-1].epsilon if self.is_valid else None

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "members": self.members,
            "outsiders": self.outsiders,
            "valid": self.is_valid,
            "verdict": self.verdict,
            "epsilon": self.epsilon,
            "ceiling": self.tiers[-1].ceiling,
            "blind_auc": self.blind.as_json(),
            "attacks": [each.as_json() for each in self.attacks],
            "tiers": [each.as_json() for each in self.tiers],
        }


def read_membership(items: Items, *, seed: int, delta: float = 0.0) -> Reading:
    """What the attacks prove about the items, of which there are at least `LEAST_ITEMS` of each kind.

    Args:
        seed: of the division into halves.
        delta: of the (epsilon, delta) that is bounded.
    """
    fixes = first_half(items, seed)
    scores = {"blind": _blind(items, fixes, seed), **items.scores}
    groups: list[int | None] = [None, *_several(items.repeats)]
    attacks = [_attack(items, scores[name], name, group, fixes) for name in ATTACKS for group in groups]
    choices = [_choice(items, scores, name, group, fixes, delta) for name in ATTACKS for group in groups]
    tiers = []
    for number, tier in enumerate(TIERS):
        able = [choice for choice in choices if ATTACKS[choice.attack] in list(TIERS)[: number + 1]]
        tiers.append(_tier(items, scores, tier, max(able, key=lambda choice: choice.epsilon), fixes, delta))
    blind = next(each.area for each in attacks if each.attack == "blind" and each.repeats is None)
    members = int(items.is_member.sum())
    outsiders = len(items.is_member) - members
    return Reading(tuple(attacks), tuple(tiers), blind, members, outsiders, _tail(items, scores, fixes))


def blind_area(items: Items, *, seed: int) -> Area:
    """What the blind attack will read of the items, which takes no score: it is known before a training."""
    fixes = first_half(items, seed)
    return area(*_sides(items, blind_scores(items.texts, items.is_member, fixes), None, ~fixes))


def first_half(items: Items, seed: int) -> NDArray[np.bool_]:
    """Which items fix the thresholds: half of the members of each number of repeats, and half of the outsiders."""
    fixes = np.zeros(len(items.is_member), dtype=bool)
    generator = np.random.default_rng(seed)
    kinds = np.where(items.is_member, items.repeats, 0)
    for kind in np.unique(kinds):
        numbers = generator.permutation(np.flatnonzero(kinds == kind))
        fixes[numbers[: len(numbers) // 2]] = True
    return fixes


def _several(repeats: NDArray[np.int64]) -> list[int]:
    different = np.unique(repeats).tolist()
    return different if len(different) > 1 else []


def _blind(items: Items, fixes: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
    """Scores of the blind attack; no text is scored by weights that were learned from it."""
    scores = blind_scores(items.texts, items.is_member, fixes)
    quarter = fixes & (np.random.default_rng(seed + 1).random(len(fixes)) < 0.5)
    for learns, scored in ((quarter, fixes & ~quarter), (fixes & ~quarter, quarter)):
        scores[scored] = blind_scores(items.texts, items.is_member, learns)[scored]
    return scores


def _sides(
    items: Items, scores: NDArray[np.float64], repeats: int | None, half: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores of members and of outsiders in one half."""
    members = items.is_member if repeats is None else items.is_member & (items.repeats == repeats)
    return scores[half & members], scores[half & ~items.is_member]


def _attack(
    items: Items, scores: NDArray[np.float64], name: str, repeats: int | None, fixes: NDArray[np.bool_]
) -> AttackReading:
    members, outsiders = _sides(items, scores, repeats, ~fixes)
    _, fixing = _sides(items, scores, repeats, fixes)
    at_rates: dict[str, dict[str, Any]] = {}
    for label, share in FALSE_ALARMS.items():
        least = least_outsiders(share)
        if len(outsiders) < least:
            at_rates[label] = {"why_not": f"{len(outsiders)} outsiders are read, and to speak of {label} takes {least}"}
            continue
        threshold = threshold_at(fixing, share)
        at_rates[label] = {
            "tpr": rate(int((members > threshold).sum()), len(members)).as_json(),
            "fpr": rate(int((outsiders > threshold).sum()), len(outsiders)).as_json(),
        }
    points = tuple(curve(members, outsiders))
    return AttackReading(name, repeats, len(members), len(outsiders), area(members, outsiders), at_rates, points)


def threshold_at(outsiders: NDArray[np.float64], share: float) -> float:
    """The score that at most this share of the outsiders exceeds."""
    ordered = np.sort(outsiders)[::-1]
    allowed = int(share * len(ordered))
    return float(ordered[allowed]) if allowed < len(ordered) else -np.inf


@dataclass(frozen=True)
class _Choice:
    """What the first half proves by one attack, at the threshold that proves most."""

    attack: str
    repeats: int | None
    threshold: float
    epsilon: float


def _choice(
    items: Items, scores: Scores, name: str, repeats: int | None, fixes: NDArray[np.bool_], delta: float
) -> _Choice:
    threshold, epsilon = _best_threshold(*_sides(items, scores[name], repeats, fixes), delta)
    return _Choice(name, repeats, threshold, epsilon)


def _tier(
    items: Items, scores: Scores, tier: str, choice: _Choice, fixes: NDArray[np.bool_], delta: float
) -> TierReading:
    """The choice of the first half, read on the second."""
    name, repeats = choice.attack, choice.repeats
    members, outsiders = _sides(items, scores[name], repeats, ~fixes)
    hits, alarms = int((members > choice.threshold).sum()), int((outsiders > choice.threshold).sum())
    sizes = len(members), len(outsiders)
    epsilon = epsilon_bound(hits, sizes[0], alarms, sizes[1], delta=delta)
    return TierReading(tier, name, repeats, hits, sizes[0], alarms, sizes[1], epsilon, ceiling(*sizes, delta=delta))


def _best_threshold(members: NDArray[np.float64], outsiders: NDArray[np.float64], delta: float) -> tuple[float, float]:
    """The threshold whose counts prove the largest epsilon, and that epsilon; it is midway between two scores."""
    thresholds = np.unique(np.concatenate([members, outsiders]))[::-1]
    hits = len(members) - np.searchsorted(np.sort(members), thresholds, "right")
    alarms = len(outsiders) - np.searchsorted(np.sort(outsiders), thresholds, "right")
    bounds = epsilon_bounds(hits, len(members), alarms, len(outsiders), delta=delta)
    best = int(np.argmax(bounds))
    above = thresholds[best - 1] if best else thresholds[best]
    return float((thresholds[best] + above) / 2), float(bounds[best])


def _tail(items: Items, scores: Scores, fixes: NDArray[np.bool_]) -> tuple[tuple[str, float], ...]:
    """The members that score above what 1% of the first half's outsiders exceed, the highest first."""
    values = scores["reference_loss"]
    _, outsiders = _sides(items, values, None, fixes)
    threshold = threshold_at(outsiders, FALSE_ALARMS["1%"])
    numbers = [number for number in np.flatnonzero(items.is_member) if values[number] > threshold]
    numbers.sort(key=lambda number: (-values[number], items.uids[number]))
    return tuple((items.uids[number], float(values[number])) for number in numbers)
