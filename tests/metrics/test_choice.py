"""Scores of chosen options, worked out by hand."""

from __future__ import annotations

import pytest

from lora_med.errors import DataError
from lora_med.metrics.choice import best, best_by_length, invalid_rate, mean_over_orders, order_sensitivity, unrotated


def test_the_best_of_equal_scores_is_the_first() -> None:
    assert best([-3.0, -1.0, -1.0]) == 1
    with pytest.raises(DataError):
        best([])


def test_length_is_counted_in_characters() -> None:
    assert best_by_length([-4.0, -6.0], ["ab", "abcd"]) == 1  # -2 and -1.5 a character
    assert best_by_length([-4.0, -6.0], ["é", "no"]) == 1  # -4 and -3; in bytes it would be -2 and -3
    with pytest.raises(DataError, match="none may be empty"):
        best_by_length([-1.0, -1.0], ["a", ""])


def test_shares_of_invalid_and_of_changed_answers() -> None:
    assert invalid_rate(["A", None, "B", None]) == 0.5
    assert order_sensitivity([["x", "x", "x"], ["x", "y", "x"], ["y"]]) == pytest.approx(1 / 3)


def test_scores_by_place_become_scores_by_option() -> None:
    # The options p, q, r score 1, 2, 3 wherever they stand: p q r, then q r p, then r p q.
    assert unrotated([[1, 2, 3], [2, 3, 1], [3, 1, 2]]) == [[1, 2, 3]] * 3
    # A system that always gives the first place 1: each option has it in one order of three.
    by_option = unrotated([[1, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert by_option == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert mean_over_orders(by_option) == pytest.approx([1 / 3] * 3)
