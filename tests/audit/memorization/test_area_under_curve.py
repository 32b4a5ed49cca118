"""The area under the curve, counted pair by pair, and its interval, held against resampling."""

from __future__ import annotations

import numpy as np
import pytest

from lora_med.audit.memorization.area_under_curve import area, curve


def test_the_area_is_the_share_of_pairs_that_are_in_order() -> None:
    members, outsiders = np.array([3.0, 1.0, 2.0, 5.0]), np.array([2.0, 0.0, 4.0])
    # Pairs won: 3 beats 2 and 0; 1 beats 0; 2 beats 0 and ties with 2; 5 beats all three: 2 + 1 + 1.5 + 3 of 12.
    assert area(members, outsiders).value == pytest.approx(7.5 / 12)


def test_the_interval_has_the_spread_of_resampled_areas() -> None:
    rng = np.random.default_rng(1)
    members, outsiders = rng.normal(0.7, 1, 200), rng.normal(0, 1, 150)
    areas = [area(rng.choice(members, 200), rng.choice(outsiders, 150)).value for _ in range(2000)]
    found = area(members, outsiders)
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(np.std(areas), rel=0.08)


def test_chance_is_inside_the_interval_in_19_of_20_samples() -> None:
    rng = np.random.default_rng(2)
    inside = [area(rng.normal(size=150), rng.normal(size=150)).is_chance for _ in range(600)]
    assert 0.93 <= np.mean(inside) <= 0.975


def test_the_curve_goes_from_no_alarm_to_all() -> None:
    points = curve(np.array([2.0, 1.0]), np.array([1.0, 0.0]))
    assert points == [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]
