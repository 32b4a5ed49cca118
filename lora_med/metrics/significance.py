"""Better, worse, or cannot tell: intervals and tests for scores on the same items.

The bootstrap resamples groups (patients, articles), since items of one group are not independent. Every score here is a
function of sums over items, so a resample costs one matrix product. Method: Efron 1987 (BCa); DiCiccio and Efron 1996.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lora_med.errors import DataError

FEWEST_GROUPS_TO_RESAMPLE = 10
BLOCK_DRAWS = 4_000_000

Numbers = NDArray[np.float64]
Statistic = Callable[[Numbers], Numbers]
Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True)
class Interval:
    """A 95% interval (or another confidence) and how it was made: `BCa`, `percentile`, `jackknife t`, `Wilson`.

    `low` and `high` are None where no interval exists: one group says nothing of the spread between groups.
    """

    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class McNemar:
    """Items that only the first, or only the second, got right; `p_value` is exact and two-sided."""

    only_first: int
    only_second: int
    p_value: float


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); sound near 0 and 1 and for few trials."""
    if not 0 <= successes <= trials or trials == 0:
        raise DataError(f"{successes} successes of {trials} trials: no share")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(max(0.0, centre - half), min(1.0, centre + half), "Wilson")


def mcnemar(first_right: Sequence[bool], second_right: Sequence[bool]) -> McNemar:
    """Exact McNemar test on two systems' right and wrong answers to the same items (McNemar 1947)."""
    pairs = list(zip(first_right, second_right, strict=True))
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    differing = only_first + only_second
    p_value = float(stats.binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p_value)


def sums_by_group(table: Numbers, groups: Sequence[Hashable]) -> Numbers:
    """Rows of `table` (items x columns) added up within each group: (groups x columns)."""
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(groups) or not len(values):
        raise DataError(f"a table of shape {values.shape} does not fit {len(groups)} groups")
    place = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(place), values.shape[1]))
    np.add.at(sums, [place[name] for name in groups], values)
    return sums


def _resampled(sums: Numbers, statistic: Statistic, samples: int, seed: int) -> Numbers:
    random = np.random.default_rng(seed)
    count = len(sums)
    found: list[Numbers] = []
    left = samples
    while left:
        rows = max(1, min(left, BLOCK_DRAWS // count))
        drawn = random.integers(0, count, size=(rows, count)) + np.arange(rows)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        found.append(statistic(weights @ sums))
        left -= rows
    return np.concatenate(found)


def _jackknife(sums: Numbers, statistic: Statistic) -> Numbers:
    return statistic(sums.sum(axis=0) - sums)


def _few(sums: Numbers, statistic: Statistic, point: float, confidence: float) -> Interval:
    left_out = _jackknife(sums, statistic)
    count = len(left_out)
    error = math.sqrt((count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.5 + confidence / 2, count - 1)) * error
    return Interval(point - half, point + half, "jackknife t")


def bootstrap(
    table: Numbers,
    groups: Sequence[Hashable],
    statistic: Statistic,
    *,
    samples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The bootstrap interval of `statistic` over items that come in groups.

    BCa where its corrections are finite, the plain percentile interval where they are not; with fewer than 10 groups
    a Student interval from the jackknife, since resampling few groups is too sure of itself.

    Args:
        table: items x columns; the statistic sees only column sums. Paired systems are columns of one table.
        groups: the group of each item; whole groups are drawn.
        statistic: maps column sums (..., columns) to values (...).
        samples: resamples.
        seed: of the resampling; the same seed gives the same interval.
        confidence: of the two-sided interval.

    Raises:
        DataError: the table is empty or does not fit the groups.
    """
    sums = sums_by_group(table, groups)
    point = float(statistic(sums.sum(axis=0)))
    if len(sums) == 1:
        return Interval(None, None, "none: all items are of one group")
    if len(sums) < FEWEST_GROUPS_TO_RESAMPLE:
        return _few(sums, statistic, point, confidence)
    values = _resampled(sums, statistic, samples, seed)
    tails = np.array([0.5 - confidence / 2, 0.5 + confidence / 2])
    below = (float((values < point).mean()) + float((values <= point).mean())) / 2
    left_out = _jackknife(sums, statistic)
    pull = left_out.mean() - left_out
    spread = float((pull**2).sum())
    if 0 < below < 1 and spread > 0:
        bias = float(stats.norm.ppf(below))
        skew = float((pull**3).sum()) / (6 * spread**1.5)
        z = bias + stats.norm.ppf(tails)
        low, high = np.quantile(values, stats.norm.cdf(bias + z / (1 - skew * z)))
        return Interval(float(low), float(high), "BCa")
    low, high = np.quantile(values, tails)
    return Interval(float(low), float(high), "percentile")


def verdict(interval: Interval, *, lower_is_better: bool) -> Verdict:
    """What the interval of `second - first` says of the second: clear of zero on one side, or `cannot tell`."""
    if interval.low is None or interval.high is None or interval.low <= 0 <= interval.high:
        return "cannot tell"
    return "better" if (interval.high < 0) == lower_is_better else "worse"
