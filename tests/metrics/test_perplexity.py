"""Text scores are ratios of sums, by hand."""

from __future__ import annotations

import math

import pytest

from lora_med.errors import DataError
from lora_med.metrics.perplexity import bits_per_byte, nll_per_token, perplexity


def test_nll_is_weighted_by_tokens_and_not_a_mean_of_means() -> None:
    assert nll_per_token([10.0, 2.0], [1, 5]) == 2.0  # the mean of means would be 5.2


def test_perplexity_of_a_uniform_guess_is_the_vocabulary() -> None:
    assert perplexity([3 * math.log(512)], [3]) == pytest.approx(512)


def test_bits_per_byte_of_one_bit_per_byte() -> None:
    assert bits_per_byte([8 * math.log(2), 0.0], [4, 4]) == pytest.approx(1.0)


def test_no_tokens_give_no_score() -> None:
    with pytest.raises(DataError, match="no ratio"):
        nll_per_token([], [])
