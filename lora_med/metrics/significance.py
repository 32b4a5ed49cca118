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
import scipy
from numpy.typing import NDArray

from lora_med.errors import DataError

FEWEST_GROUPS_TO_RESAMPLE = 10
BLOCK_DRAWS = 4_000_000

Numbers = NDArray[np.float64]
Statistic = Callable[[Numbers], Numbers]
Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True)
class Interval:
    """A 95% interval (or another confidence) and how it was made: `BCa`, `percentile`, `jackknife t`, `Wilson`.

    `low` and `high` are None where no interval exists: one group has no variance between groups.
    """

    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class Tested:
    """An interval, the p-value of zero that goes with it, and the standard error over groups; None where unknown."""

    interval: Interval
    p_value: float | None
    error: float | None


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
    z = float(scipy.stats.norm.ppf(0.5 + confidence / 2))
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
    p_value = float(scipy.stats.binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p_value)


def sums_by_group(table: Numbers, groups: Sequence[Hashable]) -> Numbers:
    """Rows of `table` (items x columns) added up within each group: (groups x columns)."""
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(groups) or not len(values):
        raise DataError(f"a table of shape {values.shape} does not fit {len(groups)} groups")
    row_of = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(row_of), values.shape[1]))
    np.add.at(sums, [row_of[name] for name in groups], values)
    return sums


def _resampled(sums: Numbers, statistic: Statistic, samples: int, seed: int) -> Numbers:
    random = np.random.default_rng(seed)
    count = len(sums)
    blocks: list[Numbers] = []
    left = samples
    while left:
        rows = max(1, min(left, BLOCK_DRAWS // count))
        drawn = random.integers(0, count, size=(rows, count)) + np.arange(rows)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        blocks.append(statistic(weights @ sums))
        left -= rows
    return np.concatenate(blocks)


def _jackknife(sums: Numbers, statistic: Statistic) -> Numbers:
    return statistic(sums.sum(axis=0) - sums)


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

    The interval is BCa where its corrections are finite, and the plain percentile interval where they are not. With
    fewer than 10 groups it is a Student interval from the jackknife: resampling few groups gives too narrow intervals.

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
    return paired(table, groups, statistic, samples=samples, seed=seed, confidence=confidence).interval


def paired(
    table: Numbers,
    groups: Sequence[Hashable],
    statistic: Statistic,
    *,
    samples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Tested:
    """As `bootstrap`, with the p-value that goes with its interval, and the standard error over groups.

    The p-value is two-sided, of the statistic being zero: below 0.05 where the 95% interval leaves zero out (within
    what so many resamples can resolve).
    """
    sums = sums_by_group(table, groups)
    point = float(statistic(sums.sum(axis=0)))
    if len(sums) == 1:
        return Tested(Interval(None, None, "none: all items are of one group"), None, None)
    left_out = _jackknife(sums, statistic)
    count = len(left_out)
    error = math.sqrt((count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum()))
    if count < FEWEST_GROUPS_TO_RESAMPLE:
        half = float(scipy.stats.t.ppf(0.5 + confidence / 2, count - 1)) * error
        p_value = 2 * float(scipy.stats.t.sf(abs(point) / error, count - 1)) if error else float(point == 0)
        return Tested(Interval(point - half, point + half, "jackknife t"), p_value, error)
    values = _resampled(sums, statistic, samples, seed)
    tails = np.array([0.5 - confidence / 2, 0.5 + confidence / 2])
    below = (float((values < point).mean()) + float((values <= point).mean())) / 2
    pull = left_out.mean() - left_out
    spread = float((pull**2).sum())
    if 0 < below < 1 and spread > 0:
        bias, skew = float(scipy.stats.norm.ppf(below)), float((pull**3).sum()) / (6 * spread**1.5)
        z = bias + scipy.stats.norm.ppf(tails)
        low, high = np.quantile(values, scipy.stats.norm.cdf(bias + z / (1 - skew * z)))
        return Tested(Interval(float(low), float(high), "BCa"), _p_value(values, bias, skew), error)
    low, high = np.quantile(values, tails)
    return Tested(Interval(float(low), float(high), "percentile"), _p_value(values, 0.0, 0.0), error)


def _p_value(values: Numbers, bias: float, skew: float) -> float:
    """Twice the level at which one end of the BCa interval is zero; never below what so many resamples can resolve."""
    least = 1 / (len(values) + 1)
    share = (float((values < 0).mean()) + float((values <= 0).mean())) / 2
    corrected = float(scipy.stats.norm.ppf(min(max(share, least / 2), 1 - least / 2))) - bias
    level = float(scipy.stats.norm.cdf(corrected / (1 + skew * corrected) - bias))
    return max(least, min(1.0, 2 * min(level, 1 - level)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for multiple comparisons, in their order (Holm 1979)."""
    count = len(p_values)
    adjusted, highest = [0.0] * count, 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def detectable(error: float, *, power: float = 0.8, confidence: float = 0.95) -> float:
    """The smallest true difference that a test with this standard error finds with that probability."""
    return float(scipy.stats.norm.ppf(0.5 + confidence / 2) + scipy.stats.norm.ppf(power)) * error


def groups_needed(difference: float, error: float, groups: int, *, power: float = 0.8) -> int | None:
    """How many groups a test would need to find a true difference of this size; None for a difference of zero.

    Args:
        error: the standard error of the difference over the `groups` there are; it shrinks with their root.
    """
    if difference == 0:
        return None
    return math.ceil(groups * (detectable(error, power=power) / difference) ** 2)


def verdict(interval: Interval, *, lower_is_better: bool | None) -> Verdict:
    """The verdict on the second from the interval of `second - first`: it excludes zero, or `cannot tell`.

    A measure without a direction (`lower_is_better` None) gets `cannot tell`.
    """
    if lower_is_better is None or interval.low is None or interval.high is None or interval.low <= 0 <= interval.high:
        return "cannot tell"
    return "better" if (interval.high < 0) == lower_is_better else "worse"
