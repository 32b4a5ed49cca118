"""How sure a subject is of its choices, and what that is worth: calibration, temperature, and when to refer.

The temperature and the threshold under which a question goes to a clinician are chosen on validation items, never on
the items that are reported.
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

ACCEPTED_RISK = 0.1  # the share of answers that may be wrong among those that are given


@dataclass(frozen=True)
class Calibration:
    """What a subject's probabilities are worth, at one temperature.

    `error` and `error_by_items` are the expected calibration error over bins of equal width and of equal numbers;
    `area` is the mean error rate over all coverages; `curve` tells it for each.
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

    Answers at or over the threshold were wrong in at most `risk` of the cases there; None where no threshold does that.
    """

    items: int
    temperature: float
    risk: float
    threshold: float | None


@dataclass(frozen=True)
class Referral:
    """The fitted threshold on the items reported: the share that is answered, and how often those are wrong."""

    coverage: float
    risk: float | None


@dataclass(frozen=True)
class Confidence:
    """Calibration as it is, and, with validation items, after fitting."""

    plain: Calibration
    fitted: Fitted | None = None
    scaled: Calibration | None = None
    referral: Referral | None = None


def calibrate(scores: Sequence[Sequence[float]], truth: Sequence[int], temperature: float = 1.0) -> Calibration:
    """The calibration of log-probabilities of options; `truth` is the place of the right one in each row."""
    sure, right, chances = _choices(scores, truth, temperature)
    found = bins(sure, right)
    curve = risk_coverage(sure, right)
    return Calibration(
        temperature=temperature,
        error=calibration_error(found),
        error_by_items=calibration_error(bins(sure, right, by="items")),
        brier=brier(chances, truth),
        nll=choice_nll(scores, truth, temperature),
        area=area_under_risk(curve),
        reliability=tuple(found),
        curve=tuple(curve),
    )


def fit(scores: Sequence[Sequence[float]], truth: Sequence[int], risk: float = ACCEPTED_RISK) -> Fitted:
    """Temperature and threshold from validation items."""
    temperature = fit_temperature(scores, truth)
    sure, right, _ = _choices(scores, truth, temperature)
    chosen = threshold_for(risk_coverage(sure, right), risk)
    return Fitted(len(truth), temperature, risk, None if chosen is None else chosen.threshold)


def confidence(scores: Sequence[Sequence[float]], truth: Sequence[int], fitted: Fitted | None) -> Confidence:
    """Calibration of the items reported, under what was fitted elsewhere."""
    plain = calibrate(scores, truth)
    if fitted is None:
        return Confidence(plain)
    return Confidence(
        plain,
        fitted,
        calibrate(scores, truth, fitted.temperature),
        None if fitted.threshold is None else _refer(scores, truth, fitted.temperature, fitted.threshold),
    )


def _refer(scores: Sequence[Sequence[float]], truth: Sequence[int], temperature: float, threshold: float) -> Referral:
    sure, right, _ = _choices(scores, truth, temperature)
    answered = [hit for level, hit in zip(sure, right, strict=True) if level >= threshold]
    wrong = None if not answered else 1 - sum(answered) / len(answered)
    return Referral(len(answered) / len(right), wrong)


def _choices(
    scores: Sequence[Sequence[float]], truth: Sequence[int], temperature: float
) -> tuple[list[float], list[bool], list[Any]]:
    """Confidence in each choice, whether it is right, and the probabilities of all options."""
    chances = [softmax(row, temperature) for row in scores]
    chosen = [max(range(len(row)), key=list(row).__getitem__) for row in scores]
    sure = [min(1.0, float(row[place])) for row, place in zip(chances, chosen, strict=True)]
    return sure, [place == right for place, right in zip(chosen, truth, strict=True)], chances
