"""Krippendorff's alpha for nominal ratings, with its interval (Krippendorff 2011, computing alpha-reliability)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from lora_med.metrics.significance import Interval


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Alpha of nominal values: 1 is agreement, 0 is chance; None where no two values can be compared, or all are equal.

    Args:
        units: the values that each item got; items with fewer than two do not count.
    """
    pairable = [list(unit) for unit in units if len(unit) > 1]
    totals = Counter(value for unit in pairable for value in unit)
    count = totals.total()
    if len(totals) < 2:
        return None
    observed = sum(_disagreeing(Counter(unit)) / (len(unit) - 1) for unit in pairable) / count
    expected = _disagreeing(totals) / (count * (count - 1))
    return 1 - observed / expected


def alpha_interval(units: Sequence[Sequence[Hashable]], *, samples: int = 2_000, seed: int = 0) -> Interval:
    """The 95% percentile interval of alpha over items; resamples in which alpha is undefined do not count."""
    pairable = [unit for unit in units if len(unit) > 1]
    if len(pairable) < 2:
        return Interval(None, None, "none: too few items rated twice")
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(pairable), size=(samples, len(pairable)))
    values = [krippendorff_alpha([pairable[index] for index in row]) for row in drawn]
    known = [value for value in values if value is not None]
    if len(known) < samples / 2:
        return Interval(None, None, "none: the ratings hardly vary")
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(float(low), float(high), "percentile")


def _disagreeing(counts: Counter[Hashable]) -> int:
    """How many ordered pairs of different values there are."""
    total = counts.total()
    return total * total - sum(number * number for number in counts.values())
