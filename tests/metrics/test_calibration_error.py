"""Calibration by numbers worked out by hand, and against torchmetrics where it is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lora_med.errors import DataError
from lora_med.metrics.calibration_error import (
    area_under_risk,
    bins,
    brier,
    calibration_error,
    choice_nll,
    fit_temperature,
    risk_coverage,
    softmax,
    threshold_for,
)

SURE = [0.95, 0.85, 0.65, 0.55]
RIGHT = [True, False, True, False]


def test_the_error_of_two_bins_is_worked_out_by_hand() -> None:
    # Two bins by width: all four above 0.5, mean confidence 0.75, accuracy 0.5. Of 10 bins each holds one item.
    assert calibration_error(bins(SURE, RIGHT, count=2)) == pytest.approx(0.25)
    assert calibration_error(bins(SURE, RIGHT, count=10)) == pytest.approx((0.05 + 0.85 + 0.35 + 0.55) / 4)


def test_bins_of_equal_numbers_hold_the_least_and_the_most_confident() -> None:
    low, high = bins(SURE, RIGHT, count=2, by="items")
    assert (low.count, low.confidence, low.accuracy) == (2, pytest.approx(0.6), 0.5)
    assert (high.low, high.high) == (0.85, 0.95)
    assert calibration_error([low, high]) == pytest.approx((0.1 + 0.4) / 2)


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    (only,) = bins([1.0], [True], count=15)
    assert only.high == 1.0 and calibration_error([only]) == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_that_of_torchmetrics(seed: int) -> None:
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet([1.0, 1.0, 2.0], size=200)
    truth = draw.integers(0, 3, size=200)
    chosen = probabilities.argmax(1)
    ours = calibration_error(bins(probabilities.max(1).tolist(), (chosen == truth).tolist()))
    theirs = torchmetrics.multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(truth), num_classes=3, n_bins=15, norm="l1"
    )
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_brier_and_nll_of_two_items() -> None:
    assert brier([[0.7, 0.2, 0.1], [0.5, 0.5]], [0, 1]) == pytest.approx((0.09 + 0.04 + 0.01 + 0.25 + 0.25) / 2)
    scores = [[math.log(0.7), math.log(0.3)], [math.log(0.2), math.log(0.8)]]
    assert choice_nll(scores, [0, 0]) == pytest.approx(-(math.log(0.7) + math.log(0.2)) / 2)
    assert softmax([math.log(3), 0.0]).tolist() == pytest.approx([0.75, 0.25])


def test_the_temperature_makes_a_boaster_say_what_it_is_worth() -> None:
    # Always 9 to 1 in favor of its choice, and right in three of four: the best odds are 3 to 1.
    scores = [[math.log(9), 0.0]] * 4
    found = fit_temperature(scores, [0, 0, 0, 1])
    assert found == pytest.approx(math.log(9) / math.log(3), rel=1e-3)
    assert softmax(scores[0], found)[0] == pytest.approx(0.75, abs=1e-3)


def test_a_system_that_is_always_right_gets_a_finite_temperature() -> None:
    assert 0.05 <= fit_temperature([[1.0, 0.0]] * 3, [0, 0, 0]) < 0.06


def test_risk_against_coverage_and_the_threshold_to_refer() -> None:
    curve = risk_coverage(SURE, RIGHT)
    assert [(one.coverage, one.threshold, one.risk) for one in curve] == [
        (0.25, 0.95, 0.0),
        (0.5, 0.85, 0.5),
        (0.75, 0.65, pytest.approx(1 / 3)),
        (1.0, 0.55, 0.5),
    ]
    assert area_under_risk(curve) == pytest.approx((0 + 0.5 + 1 / 3 + 0.5) / 4)
    chosen = threshold_for(curve, 0.4)
    assert chosen is not None and (chosen.coverage, chosen.threshold) == (0.75, 0.65)
    assert threshold_for(risk_coverage([0.9], [False]), 0.5) is None


def test_items_of_equal_confidence_are_answered_together() -> None:
    assert [one.coverage for one in risk_coverage([0.9, 0.9, 0.5], [True, False, True])] == [pytest.approx(2 / 3), 1.0]


@pytest.mark.parametrize(("sure", "right"), [([], []), ([0.5], []), ([1.5], [True]), ([math.nan], [True])])
def test_what_is_no_confidence_is_refused(sure: list[float], right: list[bool]) -> None:
    with pytest.raises(DataError):
        bins(sure, right)
