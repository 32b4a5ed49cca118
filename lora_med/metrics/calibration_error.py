"""Calibration and abstention: calibration error, Brier score, temperature, risk against coverage.

Plain functions on arrays. A confidence is the probability of the chosen answer. Items may have different numbers of
probabilities, as questions have different numbers of options. Sources: Naeini et al. 2015 (ECE), Nguyen and O'Connor
2015 (equal counts), Guo et al. 2017 (temperature), Geifman and El-Yaniv 2017 (risk against coverage).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from lora_med.errors import DataError

Numbers = NDArray[np.float64]
BINS = 15
COOLEST, HOTTEST = 0.05, 20.0  # the range that is searched


@dataclass(frozen=True)
class Bin:
    """Items of similar confidence: the bin's edges, how many, their mean confidence and accuracy."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Coverage:
    """If only the share `coverage` of most confident items is answered: the lowest confidence and the error rate."""

    coverage: float
    threshold: float
    risk: float


def softmax(scores: Sequence[float], temperature: float = 1.0) -> Numbers:
    """Probabilities of options from their log-probabilities, divided by the temperature first."""
    scaled = np.asarray(scores, dtype=np.float64) / temperature
    grown = np.exp(scaled - scaled.max())
    return grown / grown.sum()


def bins(
    confidence: Sequence[float], right: Sequence[bool], *, count: int = BINS, by: Literal["width", "items"] = "width"
) -> list[Bin]:
    """The items in bins of equal width over 0 to 1, or of equal numbers of items (`by="items"`); empty ones left out.

    Raises:
        DataError: the lists are empty or differ in length, or a confidence is not between 0 and 1.
    """
    sure, hit = _checked(confidence, right)
    if by == "width":
        bin_of_item = np.minimum((sure * count).astype(int), count - 1)
        edges = np.linspace(0, 1, count + 1)
        groups = [(edges[n], edges[n + 1], bin_of_item == n) for n in range(count)]
    else:
        order = np.argsort(sure, kind="stable")
        parts = [part for part in np.array_split(order, min(count, len(order))) if len(part)]
        groups = [(sure[part].min(), sure[part].max(), part) for part in parts]
    return [
        Bin(float(low), float(high), len(sure[which]), float(sure[which].mean()), float(hit[which].mean()))
        for low, high, which in groups
        if len(sure[which])
    ]


def calibration_error(filled_bins: Sequence[Bin]) -> float:
    """Expected calibration error: |confidence - accuracy| of each bin, weighted by its items."""
    total = sum(each.count for each in filled_bins)
    return sum(each.count * abs(each.confidence - each.accuracy) for each in filled_bins) / total


def brier(probabilities: Sequence[Sequence[float]], truth: Sequence[int]) -> float:
    """Mean over items of the squared distance of the probabilities from the truth, over all options (0 to 2)."""
    if len(probabilities) != len(truth) or not truth:
        raise DataError(f"{len(probabilities)} rows of probabilities do not fit {len(truth)} answers")
    total = 0.0
    for row, answer in zip(probabilities, truth, strict=True):
        distance = np.asarray(row, dtype=np.float64)
        total += float((distance**2).sum() - 2 * distance[answer] + 1)
    return total / len(truth)


def choice_nll(scores: Sequence[Sequence[float]], truth: Sequence[int], temperature: float = 1.0) -> float:
    """Mean negative log-probability of the right option among an item's options, in nats."""
    if len(scores) != len(truth) or not truth:
        raise DataError(f"{len(scores)} rows of scores do not fit {len(truth)} answers")
    total = 0.0
    for row, answer in zip(scores, truth, strict=True):
        scaled = np.asarray(row, dtype=np.float64) / temperature
        top = scaled.max()
        total += float(top + np.log(np.exp(scaled - top).sum()) - scaled[answer])
    return total / len(truth)


def fit_temperature(scores: Sequence[Sequence[float]], truth: Sequence[int]) -> float:
    """The temperature under which the right options are likeliest; fit it on validation items alone.

    Between 0.05 and 20: a system that is always right has no best temperature, and gets the lowest.
    """
    optimum = scipy.optimize.minimize_scalar(
        lambda log_t: choice_nll(scores, truth, float(np.exp(log_t))),
        bounds=(np.log(COOLEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(optimum.x))  # pyright: ignore[reportAttributeAccessIssue]


def risk_coverage(confidence: Sequence[float], right: Sequence[bool]) -> list[Coverage]:
    """The error rate among the most confident items, for each number of them that a threshold can separate."""
    sure, hit = _checked(confidence, right)
    order = np.argsort(-sure, kind="stable")
    wrong = np.cumsum(1 - hit[order])
    curve = []
    for count in range(1, len(order) + 1):
        threshold = float(sure[order[count - 1]])
        if count < len(order) and sure[order[count]] == threshold:
            continue  # items of equal confidence are answered together or not at all
        curve.append(Coverage(count / len(order), threshold, float(wrong[count - 1]) / count))
    return curve


def area_under_risk(curve: Sequence[Coverage]) -> float:
    """Mean error rate over all coverages, each step as wide as its items."""
    before = [0.0, *(point.coverage for point in curve[:-1])]
    return sum((point.coverage - last) * point.risk for point, last in zip(curve, before, strict=True))


def threshold_for(curve: Sequence[Coverage], risk: float) -> Coverage | None:
    """The largest coverage whose error rate is at most `risk`: below its threshold, abstain. None if there is none."""
    allowed = [point for point in curve if point.risk <= risk]
    return max(allowed, key=lambda point: point.coverage) if allowed else None


def _checked(confidence: Sequence[float], right: Sequence[bool]) -> tuple[Numbers, Numbers]:
    sure, hit = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if sure.shape != hit.shape or sure.ndim != 1 or not len(sure):
        raise DataError(f"{len(confidence)} confidences do not fit {len(right)} answers")
    if not ((sure >= 0) & (sure <= 1)).all():  # not-a-number too
        raise DataError("a confidence is not between 0 and 1", fix="give probabilities, not scores")
    return sure, hit
