"""The statistics that the sample studies report: computed from their own counts, so that no two numbers disagree."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

Z95 = 1.959964
_DOUBTFUL_P = (0.04, 0.06)  # too near 0.05 for an abstract to state its finding plainly


@dataclass(frozen=True, slots=True)
class Estimate:
    """An effect with its 95% interval and two-sided p-value; `neutral` is the value of no effect."""

    value: float
    low: float
    high: float
    p: float
    neutral: float

    def verdict(self, good: float) -> str | None:
        """`better`, `same` or `worse` where `good` is the sign of a wanted effect; None if too close to call."""
        touches = self.neutral in (round(self.low, 2), round(self.high, 2))
        if touches or _DOUBTFUL_P[0] < self.p < _DOUBTFUL_P[1]:
            return None
        if self.p >= _DOUBTFUL_P[1]:
            return "same"
        return "better" if (self.value - self.neutral) * good > 0 else "worse"


def two_sided(z: float) -> float:
    """The p-value of a normal deviate."""
    return math.erfc(abs(z) / math.sqrt(2))


def ratio(log_value: float, error: float) -> Estimate:
    """A ratio from its logarithm and that logarithm's standard error."""
    low, high = (math.exp(log_value + sign * Z95 * error) for sign in (-1, 1))
    return Estimate(math.exp(log_value), low, high, two_sided(log_value / error), 1.0)


def risk_ratio(cases: int, people: int, other_cases: int, others: int) -> Estimate:
    """The ratio of two risks, by the log method."""
    error = math.sqrt(1 / cases - 1 / people + 1 / other_cases - 1 / others)
    return ratio(math.log(cases / people / (other_cases / others)), error)


def odds_ratio(cases: int, people: int, other_cases: int, others: int) -> Estimate:
    """The ratio of two odds, by Woolf's method."""
    cells = (cases, people - cases, other_cases, others - other_cases)
    return ratio(math.log(cells[0] * cells[3] / (cells[1] * cells[2])), math.sqrt(sum(1 / cell for cell in cells)))


def hazard_ratio(rng: random.Random, cases: int, people: int, other_cases: int, others: int) -> Estimate:
    """A ratio of hazards near the crude ratio of risks, moved a little as adjustment would."""
    moved = math.log(cases / people / (other_cases / others)) + rng.uniform(-0.04, 0.04)
    return ratio(moved, math.sqrt(1 / cases + 1 / other_cases))


def difference(
    mean: float, spread: float, people: int, other_mean: float, other_spread: float, others: int
) -> Estimate:
    """The difference of two means."""
    error = math.sqrt(spread**2 / people + other_spread**2 / others)
    value = mean - other_mean
    return Estimate(value, value - Z95 * error, value + Z95 * error, two_sided(value / error), 0.0)


def wilson(cases: int, people: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    share, square = cases / people, Z95**2 / people
    middle = (share + square / 2) / (1 + square)
    half = Z95 * math.sqrt(share * (1 - share) / people + square / (4 * people)) / (1 + square)
    return middle - half, middle + half


def binomial(rng: random.Random, people: int, share: float) -> int:
    """A count near `people * share`, spread as chance would; never none and never all."""
    drawn = rng.gauss(people * share, math.sqrt(people * share * (1 - share)))
    return min(max(round(drawn), 1), people - 1)


def count(cases: int, people: int) -> str:
    """`31 of 206 (15.0%)`."""
    return f"{cases} of {people} ({100 * cases / people:.1f}%)"


@dataclass(frozen=True, slots=True)
class Manner:
    """How one article writes its intervals and p-values, the same throughout."""

    interval: str
    p: str

    @staticmethod
    def draw(rng: random.Random) -> Manner:
        """One of the manners that journals ask for."""
        names = ("95% CI {} to {}", "95% CI, {} to {}", "95% confidence interval {} to {}")
        return Manner(rng.choice(names), rng.choice(("P = {}", "P={}", "p = {}", "p={}")))

    def write_interval(self, low: float, high: float, digits: int = 2) -> str:
        """The interval, in this manner, with so many digits after the point."""
        return self.interval.format(f"{low:.{digits}f}", f"{high:.{digits}f}")

    def write_p(self, p: float) -> str:
        """The p-value: three digits under 0.01, two above, `< 0.001` below that."""
        if p < 0.001:
            return self.p.replace("=", "<").format("0.001")
        return self.p.format(f"{p:.3f}" if p < 0.0095 else f"{p:.2f}")
