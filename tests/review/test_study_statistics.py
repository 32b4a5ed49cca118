"""The statistics of a study: hand-computed values, scipy, and simulated studies."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy

from lora_med.review.blind.draw_plan import draw_assignments
from lora_med.review.verdict.observations import Observation
from lora_med.review.verdict.rater_agreement import alpha_interval, krippendorff_alpha
from lora_med.review.verdict.study_verdict import Verdict, judge
from lora_med.review.verdict.two_way_interval import constant_interval, mean_interval


def simulated(items: int, raters: int, share: float, seed: int, spread: float = 0.0) -> list[Observation]:
    """Ratings without ties; each rater's share of wins deviates by a normal amount."""
    draw, random_numbers = random.Random(seed), np.random.default_rng(seed)
    names = [f"R{number}" for number in range(raters)]
    shares = dict(zip(names, np.clip(share + random_numbers.normal(0, spread, raters), 0, 1), strict=True))
    seen = []
    for each in draw_assignments(items, names, draw):
        outcome = 1 if draw.random() < shares[each.rater] else -1
        choice = each.adapter_side if outcome > 0 else {"a": "b", "b": "a"}[each.adapter_side]
        seen.append(Observation(each, choice, outcome, {}, 0.0))
    return seen


def test_a_rater_without_preference_gets_cannot_tell() -> None:
    verdicts = [judge(simulated(100, 1, 0.5, seed)).verdict for seed in range(100)]
    assert verdicts.count("cannot tell") >= 95


def test_a_true_share_of_65_percent_is_found_in_four_of_five_studies() -> None:
    verdicts = [judge(simulated(100, 1, 0.65, seed)).verdict for seed in range(100)]
    assert 75 <= verdicts.count("better") <= 85
    assert "worse" not in verdicts


@pytest.mark.slow
@pytest.mark.parametrize(("raters", "spread"), [(5, 0.1), (8, 0.05), (3, 0.1)])
def test_the_interval_covers_the_truth_where_raters_differ(raters: int, spread: float) -> None:
    covered = 0
    for seed in range(1_000):
        seen = [each for each in simulated(100, raters, 0.6, seed, spread) if each.assignment.kind != "repeat"]
        interval = mean_interval(
            [float(each.outcome or 0) for each in seen],
            [each.assignment.item for each in seen],
            [each.assignment.rater for each in seen],
        )
        assert interval.low is not None and interval.high is not None
        covered += interval.low <= 0.2 <= interval.high
    assert 930 <= covered <= 970


def test_one_rater_gives_the_t_interval_of_scipy() -> None:
    values = [1.0, -1.0, 1.0, 0.0, 1.0, 1.0, -1.0, 1.0]
    interval = mean_interval(values, list(range(8)), ["R1"] * 8)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_two_way_variance_is_the_hand_computed_one() -> None:
    # Mean 0. Sums over items: 2, -2, 0; over raters: 0 (1, -1), 1 (1), -1 (-1): each scaled by 1/16 and G / (G - 1).
    values, items = [1.0, -1.0, 1.0, -1.0], ["i1", "i2", "i1", "i2"]
    raters = ["r1", "r1", "r2", "r3"]
    over_items, over_raters, over_both = 2 * 8 / 16, 1.5 * 2 / 16, 4 / 3 * 4 / 16
    half = scipy.stats.t.ppf(0.975, 1) * math.sqrt(over_items + over_raters - over_both)
    interval = mean_interval(values, items, raters)
    assert (interval.low, interval.high) == pytest.approx((-half, half))


def test_equal_ratings_get_an_exact_interval() -> None:
    interval = mean_interval([1.0] * 10, list(range(10)), ["R1"] * 10)
    share = scipy.stats.binomtest(10, 10).proportion_ci(0.95, "exact")
    assert (interval.low, interval.high) == pytest.approx((2 * share.low - 1, 1.0))


def test_the_constant_of_a_line_is_that_of_scipy() -> None:
    x, y = [0.1, 0.5, -0.2, 0.9, -0.4, 0.3], [1.0, 1.0, -1.0, 1.0, -1.0, 1.0]
    found = constant_interval(y, x, list(range(6)), ["R1"] * 6)
    assert found is not None
    value, interval = found
    assert value == pytest.approx(scipy.stats.linregress(x, y).intercept)
    assert interval.low is not None and interval.high is not None and interval.low < value < interval.high
    assert constant_interval(y, [0.0] * 6, list(range(6)), ["R1"] * 6) is None


def test_alpha_is_that_of_the_published_example() -> None:
    # Krippendorff 2011: four observers, twelve units; nominal alpha is 0.743.
    rows = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    units = [[value for value in column if value != "."] for column in zip(*(row.split() for row in rows), strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=0.0005)
    interval = alpha_interval(units)
    assert interval.low is not None and interval.high is not None and interval.low < 0.743 < interval.high


def test_alpha_of_complete_agreement_is_one_and_of_one_value_undefined() -> None:
    assert krippendorff_alpha([["x", "x"], ["y", "y"]]) == 1
    assert krippendorff_alpha([["x", "x"], ["x", "x"]]) is None


def verdict_of(outcomes: list[int], others: tuple[float, ...] = ()) -> Verdict:
    drawn = draw_assignments(len(outcomes), ["R1"], random.Random(1))
    seen = [
        Observation(each, "a" if outcomes[each.item] == (1 if each.adapter_side == "a" else -1) else "b",
                    outcomes[each.item], {}, 0.1 * (each.item % 3))
        for each in drawn
    ]  # fmt: skip
    return judge(seen, others)


def test_the_sign_test_is_exact_and_adjusted_with_the_tests_of_the_report() -> None:
    verdict = verdict_of([1] * 16 + [-1] * 4)
    assert verdict.p_value == pytest.approx(scipy.stats.binomtest(16, 20).pvalue)
    assert (verdict.items_won, verdict.items_lost, verdict.verdict) == (16, 4, "better")
    many = verdict_of([1] * 16 + [-1] * 4, (0.9, 0.8, 0.7, 0.6, 0.5))
    assert many.adjusted == pytest.approx(6 * verdict.p_value)
    assert many.verdict == "cannot tell"
    assert verdict_of([-1] * 16 + [1] * 4).verdict == "worse"


def test_a_consistent_rater_is_consistent_on_repeats_and_has_no_side() -> None:
    verdict = verdict_of([1] * 20)
    assert verdict.repeats == 1 and verdict.repeat_consistency.value == 1
    assert verdict.side_a_share.value == pytest.approx(0.5)
