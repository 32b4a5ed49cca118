"""Scores of chosen options beyond plain accuracy: by length, without a valid answer, in every order of the options.

Plain functions on lists. An answer is the option's label, or None where none was given clearly.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from lora_med.errors import DataError


def best(scores: Sequence[float]) -> int:
    """The index of the highest score; the first of equal ones.

    Raises:
        DataError: there is no score.
    """
    if not scores:
        raise DataError("a question without options has no best one")
    return max(range(len(scores)), key=lambda index: scores[index])


def best_by_length(log_probabilities: Sequence[float], options: Sequence[str]) -> int:
    """The index of the highest log-probability per character of its option: `acc_norm` of lm-evaluation-harness.

    Raises:
        DataError: an option is empty, or the numbers of scores and options differ.
    """
    if len(log_probabilities) != len(options) or not all(options):
        raise DataError(f"{len(log_probabilities)} scores for {len(options)} options, of which none may be empty")
    return best([score / len(option) for score, option in zip(log_probabilities, options, strict=True)])


def invalid_rate(answers: Sequence[str | None]) -> float:
    """The share of items without a valid answer."""
    if not answers:
        raise DataError("there are no answers to count")
    return sum(answer is None for answer in answers) / len(answers)


def order_sensitivity(answers: Sequence[Sequence[Hashable]]) -> float:
    """The share of items whose answer is not the same in every order of the options; one list of answers an item."""
    if not answers:
        raise DataError("there are no answers to compare")
    return sum(len(set(choices)) > 1 for choices in answers) / len(answers)


def unrotated(scores: Sequence[Sequence[float]]) -> list[list[float]]:
    """Scores by option from scores by position: list r holds those of the options moved up by r places.

    The first option of list 0 is at position n - r of list r, cyclically.
    """
    return [[row[(option - turn) % len(row)] for option in range(len(row))] for turn, row in enumerate(scores)]


def mean_over_orders(scores: Sequence[Sequence[float]]) -> list[float]:
    """Each option's mean score over the orders that `unrotated` returns."""
    return [sum(column) / len(scores) for column in zip(*scores, strict=True)]
