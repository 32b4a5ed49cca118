"""Exact intervals against SciPy's exact test, and bounds on epsilon against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from lora_med.audit.memorization.exact_intervals import (
    ceiling,
    clopper_pearson,
    epsilon_bound,
    epsilon_bounds,
    least_outsiders,
    rate,
)


@pytest.mark.parametrize(("count", "n"), [(0, 7), (1, 300), (3, 300), (150, 300), (299, 300), (300, 300)])
def test_an_interval_is_that_of_the_exact_test(count: int, n: int) -> None:
    interval = binomtest(count, n).proportion_ci(0.95, method="exact")
    found = rate(count, n)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_of_nothing_everything_is_possible() -> None:
    assert (rate(0, 0).low, rate(0, 0).high) == (0.0, 1.0)
    assert rate(0, 0).as_json()["value"] is None
    assert epsilon_bound(0, 0, 0, 0) == 0.0


def test_500_in_and_500_out_can_prove_at_most_epsilon_4_9() -> None:
    # All 500 found: at least 0.025^(1/500) = 0.99265; no false alarm in 500: at most 0.00735. ln(0.99265 / 0.00735).
    assert ceiling(500, 500) == pytest.approx(4.906, abs=0.001)
    assert math.log(0.025 ** (1 / 500) / (1 - 0.025 ** (1 / 500))) == pytest.approx(ceiling(500, 500), abs=1e-9)


def test_the_bound_is_the_logarithm_of_the_worst_ratio() -> None:
    hits, alarms = binomtest(60, 100).proportion_ci(0.95, "exact"), binomtest(5, 200).proportion_ci(0.95, "exact")
    assert epsilon_bound(60, 100, 5, 200) == pytest.approx(math.log(hits.low / alarms.high), abs=1e-9)
    assert epsilon_bound(60, 100, 5, 200, delta=0.1) == pytest.approx(
        math.log((hits.low - 0.1) / alarms.high), abs=1e-9
    )


def test_an_attack_that_misses_nobody_proves_by_whom_it_clears() -> None:
    # 100 of 100 found, 120 of 200 outsiders too: few of the cleared are members.
    alarm_high = binomtest(120, 200).proportion_ci(0.95, "exact").high
    missed_high = 1 - 0.025 ** (1 / 100)
    assert epsilon_bound(100, 100, 120, 200) == pytest.approx(math.log((1 - alarm_high) / missed_high), abs=1e-9)


def test_an_attack_at_chance_proves_nothing() -> None:
    assert epsilon_bounds(np.array([5, 50, 95]), 100, np.array([5, 50, 95]), 100).tolist() == [0.0, 0.0, 0.0]


def test_300_outsiders_speak_of_one_percent_and_fewer_do_not() -> None:
    assert (least_outsiders(0.01), least_outsiders(0.001)) == (300, 3000)
    # Without an alarm the share is under 1% with 95% confidence from 299 on: 1 - 0.05^(1/298) > 0.01.
    assert 1 - 0.05 ** (1 / 300) < 0.01 < 1 - 0.05 ** (1 / 298)


def test_both_ends_hold_together_as_often_as_stated() -> None:
    """10,000 samples: an interval of 95% misses the true share in at most 5%, each end in at most 2.5%."""
    rng = np.random.default_rng(0)
    for share in (0.01, 0.3):
        low, high = clopper_pearson(rng.binomial(300, share, 10_000), 300, 0.05)
        assert (low > share).mean() < 0.028 and (high < share).mean() < 0.028
