"""The area under the ROC curve with its interval, and the points of the curve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILE = 1.959963984540054  # of the normal distribution, for 95% on two sides


@dataclass(frozen=True)
class Area:
    """The probability that a member scores higher than an outsider, ties counted half, with a 95% interval."""

    value: float
    low: float
    high: float

    @property
    def is_chance(self) -> bool:
        """Whether the interval holds 0.5."""
        return self.low <= 0.5 <= self.high

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def area(members: NDArray[np.float64], outsiders: NDArray[np.float64]) -> Area:
    """The area of two samples of scores, each of at least two.

    Source: DeLong, DeLong and Clarke-Pearson 1988; where a sample is separated completely, the interval has no width.
    """
    won = _placements(members, outsiders)
    lost = 1 - _placements(outsiders, members)
    value = float(won.mean())
    spread = float(np.sqrt(won.var(ddof=1) / len(won) + lost.var(ddof=1) / len(lost)))
    return Area(value, max(0.0, value - QUANTILE * spread), min(1.0, value + QUANTILE * spread))


def _placements(scores: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each score the share of `others` below it, ties counted half."""
    ordered = np.sort(others)
    below, not_above = np.searchsorted(ordered, scores, "left"), np.searchsorted(ordered, scores, "right")
    return (below + not_above) / (2 * len(others))


def curve(members: NDArray[np.float64], outsiders: NDArray[np.float64]) -> list[tuple[float, float]]:
    """`(false alarms, members found)` as shares at every threshold, from none to all."""
    thresholds = np.unique(np.concatenate([members, outsiders]))[::-1]
    true_positives = 1 - np.searchsorted(np.sort(members), thresholds, "left") / len(members)
    alarms = 1 - np.searchsorted(np.sort(outsiders), thresholds, "left") / len(outsiders)
    return [(0.0, 0.0), *zip(alarms.tolist(), true_positives.tolist(), strict=True)]
