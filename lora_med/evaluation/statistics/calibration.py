"""Calibration of a subject's choices: calibration error, temperature, and the threshold of abstention.

Below the threshold a question goes to a clinician. Temperature and threshold are chosen on validation items, never on
the reported items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.metrics.calibration_error import (
    Bin,
    Coverage,
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

ACCEPTED_RISK = 0.1  # the share of given answers that may be wrong


@dataclass(frozen=True)
class Calibration:
    """The calibration of a subject's probabilities at one temperature.

    `error` and `error_by_items` are the expected calibration error over bins of equal width and of equal numbers.
    `area` is the mean error rate over all coverages; `curve` has it for each coverage.
    """

    temperature: float
    error: float
    error_by_items: float
    brier: float
    nll: float
    area: float
    reliability: tuple[Bin, ...]
    curve: tuple[Coverage, ...]


@dataclass(frozen=True)
class Fitted:
    """What was chosen on `items` validation items: the temperature, and the threshold on the confidence it gives.

    Answers at or above the threshold were wrong in at most `risk` of those cases; None where no threshold achieves
    that.
    """

    items: int
    temperature: float
    risk: float
    threshold: float | None


@dataclass(frozen=True)
class Referral:
    """The fitted threshold on the reported items: the share that is answered, and the error rate of those answers."""

    coverage: float
    risk: float | None


@dataclass(frozen=True)
class Confidence:
    """Calibration before fitting, and with validation items after it."""

    plain: Calibration
    fitted: Fitted | None = None
    scaled: Calibration | None = None
    referral: Referral | None = None


def calibrate(scores: Sequence[Sequence[float]], truth: Sequence[int], temperature: float = 1.0) -> Calibration:
    """The calibration of log-probabilities of options; `truth` is the index of the right one in each row."""
    confidences, right, chances = _choices(scores, truth, temperature)
    equal_width = bins(confidences, right)
    curve = risk_coverage(confidences, right)
    return Calibration(
        temperature=temperature,
        error=calibration_error(equal_width),
        error_by_items=calibration_error(bins(confidences, right, by="items")),
        brier=brier(chances, truth),
        nll=choice_nll(scores, truth, temperature),
        area=area_under_risk(curve),
        reliability=tuple(equal_width),
        curve=tuple(curve),
    )


def fit(scores: Sequence[Sequence[float]], truth: Sequence[int], risk: float = ACCEPTED_RISK) -> Fitted:
    """Temperature and threshold from validation items."""
    temperature = fit_temperature(scores, truth)
    confidences, right, _ = _choices(scores, truth, temperature)
    chosen = threshold_for(risk_coverage(confidences, right), risk)
    return Fitted(len(truth), temperature, risk, None if chosen is None else chosen.threshold)


def confidence(scores: Sequence[Sequence[float]], truth: Sequence[int], fitted: Fitted | None) -> Confidence:
    """Calibration of the reported items, with the temperature and threshold fitted on others."""
    plain = calibrate(scores, truth)
    if fitted is None:
        return Confidence(plain)
    return Confidence(
        plain,
        fitted,
        calibrate(scores, truth, fitted.temperature),
        None if fitted.threshold is None else _abstention(scores, truth, fitted.temperature, fitted.threshold),
    )


def _abstention(
    scores: Sequence[Sequence[float]], truth: Sequence[int], temperature: float, threshold: float
) -> Referral:
    confidences, right, _ = _choices(scores, truth, temperature)
    answered = [hit for level, hit in zip(confidences, right, strict=True) if level >= threshold]
    wrong = None if not answered else 1 - sum(answered) / len(answered)
    return Referral(len(answered) / len(right), wrong)


def _choices(
    scores: Sequence[Sequence[float]], truth: Sequence[int], temperature: float
) -> tuple[list[float], list[bool], list[Any]]:
    """The probability of each choice, whether it is right, and the probabilities of all options."""
    chances = [softmax(row, temperature) for row in scores]
    chosen = [max(range(len(row)), key=list(row).__getitem__) for row in scores]
    confidences = [min(1.0, float(row[option])) for row, option in zip(chances, chosen, strict=True)]
    return confidences, [option == right for option, right in zip(chosen, truth, strict=True)], chances
