"""Exact intervals of shares, and the lower bound on epsilon that a membership attack proves.

A training that is (epsilon, delta)-differentially private bounds every attack: TPR <= exp(epsilon) * FPR + delta, and
the same for 1 - FPR and 1 - TPR (Kairouz, Oh and Viswanath 2015). An attack that does better proves a larger epsilon.
TPR and FPR are each known to within an interval; both intervals hold together with the stated confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95  # of an interval, and of the two intervals behind a bound together


@dataclass(frozen=True)
class Rate:
    """A share of `count` in `n` with its two-sided 95% Clopper-Pearson interval."""

    count: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself; NaN of nothing."""
        return self.count / self.n if self.n else math.nan

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"value": self.value if self.n else None, "low": self.low, "high": self.high} | {
            "count": self.count,
            "n": self.n,
        }


def rate(count: int, n: int) -> Rate:
    """The share with its exact interval (Clopper and Pearson 1934); of nothing, everything is possible."""
    low, high = clopper_pearson(np.array([count]), n, 1 - CONFIDENCE)
    return Rate(count, n, float(low[0]), float(high[0]))


def clopper_pearson(counts: NDArray[Any], n: int, error: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower and upper ends for each count of `n`, each end wrong in at most `error / 2` of all samples."""
    from scipy.stats import beta

    counts = np.asarray(counts, dtype=np.float64)
    if n == 0:
        return np.zeros_like(counts), np.ones_like(counts)
    with np.errstate(invalid="ignore"):
        low = np.where(counts > 0, beta.ppf(error / 2, np.maximum(counts, 1), n - counts + 1), 0.0)
        high = np.where(counts < n, beta.ppf(1 - error / 2, counts + 1, np.maximum(n - counts, 1)), 1.0)
    return low, high


def epsilon_bounds(
    hits: NDArray[Any], n_in: int, alarms: NDArray[Any], n_out: int, *, delta: float = 0.0
) -> NDArray[np.float64]:
    """The largest epsilon that each pair of counts proves with 95% confidence; 0 where it proves nothing.

    Args:
        hits: members that an attack called members, of `n_in`.
        alarms: outsiders that it called members, of `n_out`.
    """
    hit_low, _ = clopper_pearson(hits, n_in, 1 - CONFIDENCE)
    _, alarm_high = clopper_pearson(alarms, n_out, 1 - CONFIDENCE)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_hits = np.log(np.maximum(hit_low - delta, 0) / alarm_high)
        by_misses = np.log(np.maximum(1 - alarm_high - delta, 0) / (1 - hit_low))
    return np.maximum(0.0, np.nan_to_num(np.maximum(by_hits, by_misses), nan=0.0, neginf=0.0))


def epsilon_bound(hits: int, n_in: int, alarms: int, n_out: int, *, delta: float = 0.0) -> float:
    """As `epsilon_bounds`, of one pair of counts."""
    return float(epsilon_bounds(np.array([hits]), n_in, np.array([alarms]), n_out, delta=delta)[0])


def ceiling(n_in: int, n_out: int, *, delta: float = 0.0) -> float:
    """The largest epsilon that so many members and outsiders can prove: all found, and no false alarm."""
    return epsilon_bound(n_in, n_in, 0, n_out, delta=delta)


def least_outsiders(false_alarms: float) -> int:
    """How many outsiders it takes to speak of a rate of false alarms: none in 300 is under 1% with 95% confidence.

    Source: the rule of three.
    """
    return round(3 / false_alarms)
