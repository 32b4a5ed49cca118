"""Whether a system's confidence is what it says: calibration error, Brier score, temperature, risk against coverage.

Plain functions on arrays. A confidence is the probability given to the answer chosen; probabilities may have another
length for each item, as questions have other numbers of options. Sources: Naeini et al. 2015 (ECE), Nguyen and O'Connor
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
COOLEST, HOTTEST = 0.05, 20.0  # temperatures looked for


@dataclass(frozen=True)
class Bin:
    """Items of like confidence: the bin's edges, how many, their mean confidence and the share that is right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Coverage:
    """If only the `coverage` most confident items are answered: the least confidence among them, their error rate."""

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
        place = np.minimum((sure * count).astype(int), count - 1)
        edges = np.linspace(0, 1, count + 1)
        found = [(edges[n], edges[n + 1], place == n) for n in range(count)]
    else:
        order = np.argsort(sure, kind="stable")
        parts = [part for part in np.array_split(order, min(count, len(order))) if len(part)]
        found = [(sure[part].min(), sure[part].max(), part) for part in parts]
    return [
        Bin(float(low), float(high), len(sure[which]), float(sure[which].mean()), float(hit[which].mean()))
        for low, high, which in found
        if len(sure[which])
    ]


def calibration_error(found: Sequence[Bin]) -> float:
    """Expected calibration error: |confidence - accuracy| of each bin, weighted by its items."""
    whole = sum(one.count for one in found)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in found) / whole


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
    found = scipy.optimize.minimize_scalar(
        lambda log_t: choice_nll(scores, truth, float(np.exp(log_t))),
        bounds=(np.log(COOLEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))  # pyright: ignore[reportAttributeAccessIssue]


def risk_coverage(confidence: Sequence[float], right: Sequence[bool]) -> list[Coverage]:
    """The error rate among the most confident items, for each number of them that a threshold can tell apart."""
    sure, hit = _checked(confidence, right)
    order = np.argsort(-sure, kind="stable")
    wrong = np.cumsum(1 - hit[order])
    found = []
    for count in range(1, len(order) + 1):
        threshold = float(sure[order[count - 1]])
        if count < len(order) and sure[order[count]] == threshold:
            continue  # items of equal confidence are answered together or not at all
        found.append(Coverage(count / len(order), threshold, float(wrong[count - 1]) / count))
    return found


def area_under_risk(curve: Sequence[Coverage]) -> float:
    """Mean error rate over all coverages, each step as wide as its items."""
    before = [0.0, *(one.coverage for one in curve[:-1])]
    return sum((one.coverage - last) * one.risk for one, last in zip(curve, before, strict=True))


def threshold_for(curve: Sequence[Coverage], risk: float) -> Coverage | None:
    """The largest coverage whose error rate is at most `risk`: below its threshold, refer to a clinician. Or None."""
    allowed = [one for one in curve if one.risk <= risk]
    return max(allowed, key=lambda one: one.coverage) if allowed else None


def _checked(confidence: Sequence[float], right: Sequence[bool]) -> tuple[Numbers, Numbers]:
    sure, hit = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if sure.shape != hit.shape or sure.ndim != 1 or not len(sure):
        raise DataError(f"{len(confidence)} confidences do not fit {len(right)} answers")
    if not ((sure >= 0) & (sure <= 1)).all():  # not-a-number too
        raise DataError("a confidence is not between 0 and 1", fix="give probabilities, not scores")
    return sure, hit
