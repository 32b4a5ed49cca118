"""Intervals and tests against closed formulas, scipy's own bootstrap, and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lora_med.metrics.significance import (
    Interval,
    bootstrap,
    detectable,
    groups_needed,
    holm,
    mcnemar,
    paired,
    sums_by_group,
    verdict,
    wilson,
)


def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return sums[..., 0] / sums[..., 1]


def test_wilson_agrees_with_scipy() -> None:
    for successes, trials in ((0, 10), (3, 10), (276, 500), (500, 500)):
        expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
        found = wilson(successes, trials)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand() -> None:
    """8 of 10: the middle is (0.8 + 1.96² / 20) / (1 + 1.96² / 10), half the width 1.96 √(0.016 + 0.0096) / 1.384."""
    found = wilson(8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_mcnemar_by_hand() -> None:
    # 1 item only the first got right, 5 only the second: 2 * (C(6,0) + C(6,1)) / 2**6 = 14/64
    first = [True] + [False] * 5 + [True] * 4 + [False] * 3
    second = [False] + [True] * 5 + [True] * 4 + [False] * 3
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (1, 5)
    assert found.p_value == pytest.approx(14 / 64)


def test_mcnemar_of_equal_systems_is_one() -> None:
    assert mcnemar([True, False], [True, False]).p_value == 1.0


def test_bca_agrees_with_scipy_on_skewed_pairs() -> None:
    random = np.random.default_rng(1)
    sizes = random.integers(20, 200, 60).astype(float)
    values = random.gamma(1.5, 1.0, 60) * sizes
    found = bootstrap(np.column_stack([values, sizes]), range(60), ratio, samples=20_000, seed=2)
    expected = stats.bootstrap(
        (values, sizes),
        lambda a, b, axis=-1: a.sum(axis) / b.sum(axis),
        paired=True,
        n_resamples=20_000,
        method="BCa",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert found.method == "BCa"
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.04 * width)
    assert found.high == pytest.approx(expected.high, abs=0.04 * width)
    plain = np.percentile([found.low, found.high], 50)
    assert plain != pytest.approx(values.sum() / sizes.sum(), abs=1e-3 * width), "a skewed interval is not symmetric"


def test_bca_corrects_the_bias_of_a_small_variance_as_scipy_does() -> None:
    values = np.random.default_rng(6).exponential(1.0, 14)

    def variance(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return sums[..., 1] / sums[..., 2] - (sums[..., 0] / sums[..., 2]) ** 2

    table = np.column_stack([values, values**2, np.ones(14)])
    found = bootstrap(table, range(14), variance, samples=60_000, seed=2)
    expected = stats.bootstrap(
        (values,), np.var, n_resamples=60_000, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, rel=0.03)
    assert found.high == pytest.approx(expected.high, rel=0.03)


def test_the_same_seed_gives_the_same_interval() -> None:
    table = np.column_stack([np.arange(30.0), np.ones(30)])
    assert bootstrap(table, range(30), ratio, samples=500, seed=7) == bootstrap(
        table, range(30), ratio, samples=500, seed=7
    )


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(4)
    covered = 0
    for trial in range(400):
        draws = random.exponential(1.0, 40)
        found = bootstrap(np.column_stack([draws, np.ones(40)]), range(40), ratio, samples=600, seed=trial)
        covered += found.low <= 1.0 <= found.high  # type: ignore[operator]
    assert 0.90 <= covered / 400 <= 0.98  # the percentile interval of so skewed a mean covers about 0.92


def test_repeated_groups_widen_the_interval() -> None:
    random = np.random.default_rng(5)
    means = random.normal(0, 1, 40)
    values = np.repeat(means, 10) + random.normal(0, 0.1, 400)
    table = np.column_stack([values, np.ones(400)])
    alone = bootstrap(table, range(400), ratio, samples=2000)
    grouped = bootstrap(table, [index // 10 for index in range(400)], ratio, samples=2000)
    assert (grouped.high - grouped.low) > 2.5 * (alone.high - alone.low)  # type: ignore[operator]


def test_few_groups_get_students_interval() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    found = bootstrap(np.column_stack([values, np.ones(4)]), range(4), ratio)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert found.method == "jackknife t"
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_group_gives_no_interval_and_no_verdict() -> None:
    found = bootstrap(np.ones((5, 2)), ["a"] * 5, ratio)
    assert found.low is None
    assert verdict(found, lower_is_better=True) == "cannot tell"


def test_equal_systems_cannot_be_distinguished() -> None:
    table = np.column_stack([np.zeros(50), np.ones(50)])
    found = bootstrap(table, range(50), ratio, samples=200)
    assert (found.low, found.high, found.method) == (0.0, 0.0, "percentile")
    assert verdict(found, lower_is_better=False) == "cannot tell"


def test_the_verdict_follows_the_direction_of_the_score() -> None:
    below, above = Interval(-2, -1, "BCa"), Interval(1, 2, "BCa")
    assert verdict(below, lower_is_better=True) == "better"
    assert verdict(below, lower_is_better=False) == "worse"
    assert verdict(above, lower_is_better=True) == "worse"
    assert verdict(above, lower_is_better=False) == "better"
    assert verdict(Interval(-1, 2, "BCa"), lower_is_better=True) == "cannot tell"


def test_groups_are_summed_in_order_of_first_sight() -> None:
    sums = sums_by_group(np.array([[1.0, 1], [2, 1], [4, 1]]), ["b", "a", "b"])
    assert sums.tolist() == [[5, 2], [2, 1]]


def test_the_p_value_goes_with_the_interval() -> None:
    random = np.random.default_rng(8)
    outside = 0
    for trial in range(60):
        draws = random.exponential(1.0, 30) - random.uniform(0.4, 1.3)
        found = paired(np.column_stack([draws, np.ones(30)]), range(30), ratio, samples=2000, seed=trial)
        assert found.p_value is not None and found.interval.low is not None and found.interval.high is not None
        leaves_out = not found.interval.low <= 0 <= found.interval.high
        outside += leaves_out
        if abs(found.p_value - 0.05) > 0.002:
            assert (found.p_value < 0.05) == leaves_out
    assert 10 < outside < 50


def test_of_a_symmetric_mean_it_is_near_students() -> None:
    draws = np.random.default_rng(9).normal(0.15, 1, 200)
    found = paired(np.column_stack([draws, np.ones(200)]), range(200), ratio, samples=20_000)
    expected = stats.ttest_1samp(draws, 0)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.01)
    assert found.error == pytest.approx(draws.std(ddof=1) / np.sqrt(200), rel=1e-6)  # of a mean the jackknife is exact


def test_few_groups_get_students_p_value() -> None:
    found = paired(np.column_stack([[1.0, 2.0, 3.0, 4.0], np.ones(4)]), range(4), ratio)
    assert found.p_value == pytest.approx(stats.ttest_1samp([1.0, 2.0, 3.0, 4.0], 0).pvalue)


def test_equal_systems_have_a_p_value_of_one_and_one_group_none() -> None:
    assert paired(np.column_stack([np.zeros(50), np.ones(50)]), range(50), ratio, samples=200).p_value == 1
    assert paired(np.ones((5, 2)), ["a"] * 5, ratio).p_value is None
    assert paired(np.column_stack([np.zeros(4), np.ones(4)]), range(4), ratio).p_value == 1


def test_holm_by_hand() -> None:
    # Smallest first: 3 x 0.01, then 2 x 0.03, then 0.04, which may not fall below the one before it.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_what_a_test_of_this_size_can_find() -> None:
    # (1.960 + 0.842) standard errors; to find half of that takes four times the groups.
    assert detectable(0.1) == pytest.approx(0.28016, abs=1e-4)
    assert groups_needed(detectable(0.1) / 2, 0.1, 50) == 200
    assert groups_needed(0.0, 0.1, 50) is None


def test_a_test_of_the_size_it_asks_for_finds_the_difference_four_times_in_five() -> None:
    random = np.random.default_rng(10)
    needed = groups_needed(0.3, 1 / np.sqrt(100), 100)
    assert needed is not None
    found = sum(stats.ttest_1samp(random.normal(0.3, 1, needed), 0).pvalue < 0.05 for _ in range(2000))
    assert found / 2000 == pytest.approx(0.8, abs=0.03)
