"""Intervals of a mean, or of a regression's constant, over two-way clusters: items and raters.

Source: Cameron, Gelbach and Miller 2011, robust inference with multi-way clustering: the variance over items plus the
one over raters minus the one over both, with Student's distribution of the smaller number of clusters minus one.
With one rater only items are clusters, and the interval holds for this rater alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from lora_med.metrics.significance import Interval

Numbers = NDArray[np.float64]
NONE = Interval(None, None, "none: too few ratings")


def mean_interval(values: Sequence[float], items: Sequence[Hashable], raters: Sequence[Hashable]) -> Interval:
    """The 95% interval of the mean of values between -1 and 1.

    Where all values are equal there is no variance to see: the interval is then Clopper and Pearson's, for items.
    """
    given = np.asarray(values, dtype=np.float64)
    if len(given) < 2 or len(set(items)) < 2:
        return NONE
    if np.all(given == given[0]):
        return _all_equal(float(given[0]), len(set(items)))
    return interval_of(float(given.mean()), (given - given.mean()) / len(given), items, raters)


def constant_interval(
    values: Sequence[float], covariate: Sequence[float], items: Sequence[Hashable], raters: Sequence[Hashable]
) -> tuple[float, Interval] | None:
    """The value of a least-squares line at covariate 0, with its interval; None where the covariate does not vary."""
    design = np.column_stack([np.ones(len(values)), np.asarray(covariate, dtype=np.float64)])
    if len(values) < 4 or np.linalg.matrix_rank(design) < 2:
        return None
    inverse = np.linalg.inv(design.T @ design)
    given = np.asarray(values, dtype=np.float64)
    coefficients = inverse @ design.T @ given
    influence = (design @ inverse)[:, 0] * (given - design @ coefficients)
    return float(coefficients[0]), interval_of(float(coefficients[0]), influence, items, raters)


def interval_of(point: float, influence: Numbers, items: Sequence[Hashable], raters: Sequence[Hashable]) -> Interval:
    """The interval around `point`, an estimate whose deviation is the sum of each rating's `influence`."""
    over_items, item_count = _variance(influence, items)
    if len(set(raters)) == 1:
        variance, freedom, method = over_items, item_count - 1, "Student t over items, one rater"
    else:
        over_raters, rater_count = _variance(influence, raters)
        over_both, _ = _variance(influence, list(zip(items, raters, strict=True)))
        two_way = over_items + over_raters - over_both
        variance = two_way if two_way > 0 else over_raters
        freedom, method = min(item_count, rater_count) - 1, "Student t over items and raters"
    half = float(scipy.stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Interval(point - half, point + half, method)


def _variance(influence: Numbers, clusters: Sequence[Hashable]) -> tuple[float, int]:
    row_of = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    sums = np.bincount([row_of[name] for name in clusters], weights=influence)
    count = len(row_of)
    return float((sums**2).sum()) * count / max(count - 1, 1), count


def _all_equal(value: float, items: int) -> Interval:
    """The interval where every rating has one value: what else so many items could have hidden."""
    other = 1 - 0.025 ** (1 / items)  # the largest share that none of so many items shows in 2.5 of 100 studies
    if value > 0:
        return Interval(1 - 2 * other, 1.0, "Clopper-Pearson, all ratings equal")
    if value < 0:
        return Interval(-1.0, 2 * other - 1, "Clopper-Pearson, all ratings equal")
    return Interval(-other, other, "Clopper-Pearson, all ratings equal")
