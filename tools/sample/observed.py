"""Invented observational studies and studies of tests: an exposure or a test, and every number that follows."""

from __future__ import annotations

import math
import random
from typing import Any

from tools.sample import figures
from tools.sample.figures import Manner, binomial, count
from tools.sample.trials import Drawn, estimated


def _percent_interval(cases: int, people: int, manner: Manner) -> str:
    low, high = figures.wilson(cases, people)
    return manner.write_interval(100 * low, 100 * high, 1)


def _exposed(
    rng: random.Random, arms: tuple[int, int], share: float, verdict: str, manner: Manner, adjusted: bool
) -> Drawn:
    effect = rng.uniform(0.34, 0.85) if verdict == "linked" else rng.uniform(-0.05, 0.05)
    first, second = binomial(rng, arms[0], min(share * math.exp(effect), 0.85)), binomial(rng, arms[1], share)
    if adjusted:
        estimate = figures.hazard_ratio(rng, first, arms[0], second, arms[1])
    else:
        estimate = figures.odds_ratio(first, arms[0], second, arms[1])
    total, cases = sum(arms), first + second
    facts = {
        "n": str(total),
        "n1": str(arms[0]),
        "n2": str(arms[1]),
        "k1": count(first, arms[0]),
        "k2": count(second, arms[1]),
        "k_all": count(cases, total),
        "prevalence": f"{100 * cases / total:.0f}",
        "prevalence_ci": _percent_interval(cases, total, manner),
        "treated": str(rng.randrange(18, 61)),
        "adjusted": f"{estimate.value * (1 + rng.uniform(-0.04, 0.04)):.2f}",
    }
    verdict_of_numbers = {"worse": "linked", "same": "same"}.get(estimate.verdict(-1.0) or "")
    return facts | estimated(estimate, manner), verdict_of_numbers


def cohort(rng: random.Random, condition: dict[str, Any], verdict: str, manner: Manner) -> Drawn:
    """People with and without an exposure, followed for an event."""
    total = rng.randrange(640, 6800)
    exposed = round(total * rng.uniform(0.18, 0.45))
    event, share = rng.choice(condition["events"])
    facts, verdict_of_numbers = _exposed(rng, (exposed, total - exposed), share, verdict, manner, adjusted=True)
    return facts | {"event": event}, verdict_of_numbers


def case_control(rng: random.Random, condition: dict[str, Any], verdict: str, manner: Manner) -> Drawn:
    """People with and without an event, asked about an exposure."""
    cases = rng.randrange(90, 480)
    arms = (cases, cases * rng.choice((1, 2)))
    facts, verdict_of_numbers = _exposed(rng, arms, rng.uniform(0.12, 0.4), verdict, manner, adjusted=False)
    return facts | {"event": rng.choice(condition["events"])[0]}, verdict_of_numbers


def cross_sectional(rng: random.Random, condition: dict[str, Any], verdict: str, manner: Manner) -> Drawn:
    """How common a burden is, and whether it goes with an exposure."""
    total = rng.randrange(240, 1650)
    exposed = round(total * rng.uniform(0.2, 0.45))
    return _exposed(rng, (exposed, total - exposed), rng.uniform(0.12, 0.4), verdict, manner, adjusted=False)


def diagnostic(rng: random.Random, condition: dict[str, Any], verdict: str, manner: Manner) -> Drawn:
    """A test against its reference; accurate is 88% or more of both, poor is a sensitivity under 75%."""
    diseased, healthy = rng.randrange(60, 320), rng.randrange(80, 520)
    accurate = verdict == "accurate"
    tp = binomial(rng, diseased, rng.uniform(0.9, 0.97) if accurate else rng.uniform(0.46, 0.68))
    tn = binomial(rng, healthy, rng.uniform(0.9, 0.97) if accurate else rng.uniform(0.62, 0.9))
    if accurate:
        verdict_of_numbers = "accurate" if min(tp / diseased, tn / healthy) >= 0.88 else None
    else:
        verdict_of_numbers = "poor" if tp / diseased < 0.75 else None
    return _tested(rng, condition, (tp, diseased), (tn, healthy), manner), verdict_of_numbers


def _tested(
    rng: random.Random, condition: dict[str, Any], sick: tuple[int, int], well: tuple[int, int], manner: Manner
) -> dict[str, str]:
    (tp, diseased), (tn, healthy) = sick, well
    sensitivity, specificity = tp / diseased, tn / healthy
    test, reference = rng.choice(condition["tests"])
    return {
        "test": test,
        "reference": reference,
        "n": str(diseased + healthy),
        "diseased": str(diseased),
        "healthy": str(healthy),
        "tp": str(tp),
        "tn": str(tn),
        "sens": f"{100 * sensitivity:.1f}",
        "spec": f"{100 * specificity:.1f}",
        "sens_ci": _percent_interval(tp, diseased, manner),
        "spec_ci": _percent_interval(tn, healthy, manner),
        "lr": f"{sensitivity / (1 - specificity):.1f}",
        "kappa": f"{rng.uniform(0.62, 0.93):.2f}",
    }


def small_cohort(rng: random.Random, condition: dict[str, Any], manner: Manner) -> dict[str, str]:
    """A cohort of a few dozen people."""
    arms = (rng.randrange(14, 36), rng.randrange(18, 44))
    event, share = rng.choice(condition["events"])
    facts, _ = _exposed(rng, arms, share, rng.choice(("linked", "same")), manner, adjusted=True)
    return facts | {"event": event}


def small_diagnostic(rng: random.Random, condition: dict[str, Any], manner: Manner) -> dict[str, str]:
    """A test tried on a few dozen people."""
    diseased, healthy = rng.randrange(9, 22), rng.randrange(12, 34)
    sick = (binomial(rng, diseased, rng.uniform(0.6, 0.92)), diseased)
    return _tested(rng, condition, sick, (binomial(rng, healthy, rng.uniform(0.6, 0.92)), healthy), manner)
