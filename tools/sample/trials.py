"""Invented trials and reviews of trials: counts for two arms, and every number that follows from them."""

from __future__ import annotations

import math
import random
from typing import Any

from tools.sample import figures
from tools.sample.figures import Estimate, Manner, binomial, count

Drawn = tuple[dict[str, str], str | None]
# The true effect by verdict, as the logarithm of a relative risk; an event is unwanted, so under 0 is better.
EFFECTS = {"better": (-0.75, -0.32), "same": (-0.07, 0.07), "worse": (0.32, 0.6)}


def estimated(estimate: Estimate, manner: Manner) -> dict[str, str]:
    """The facts that say what a ratio is and how sure."""
    return {
        "ratio": f"{estimate.value:.2f}",
        "ci": manner.write_interval(estimate.low, estimate.high),
        "p": manner.write_p(estimate.p),
    }


def _arms(rng: random.Random, low: int, high: int) -> tuple[int, int]:
    total = rng.randrange(low, high)
    first = total // 2 + rng.randrange(5)
    return first, total - first


def _measure(
    rng: random.Random, condition: dict[str, Any], effect: float, arms: tuple[int, int], manner: Manner
) -> tuple[dict[str, str], str | None]:
    """A continuous outcome and its verdict; `effect` is in standard deviations, above 0 is wanted."""
    name, unit, usual, spread, better = rng.choice(condition["measures"])
    digits = 2 if spread < 0.6 else 1 if spread < 60 else 0
    wanted = 1.0 if better == "higher" else -1.0
    spreads = [round(spread * rng.uniform(0.88, 1.14), digits) for _ in arms]
    noise = [rng.gauss(0, spread / math.sqrt(size)) for size in arms]
    first = round(usual + wanted * effect * spread + noise[0], digits)
    second = round(usual + noise[1], digits)
    estimate = figures.difference(first, spreads[0], arms[0], second, spreads[1], arms[1])
    interval = manner.write_interval(estimate.low, estimate.high, digits)
    facts = {
        "measure": name,
        "unit": unit,
        "d1": f"{first:.{digits}f}",
        "d2": f"{second:.{digits}f}",
        "sd1": f"{spreads[0]:.{digits}f}",
        "sd2": f"{spreads[1]:.{digits}f}",
        "diff": f"{first - second:.{digits}f}",
        "diff_ci": interval,
        "ci": interval,
        "p": manner.write_p(estimate.p),
        "target": f"{spread * 0.35:.{digits}f}",
    }
    touches_zero = "-0.0 " in f"{interval} " or " 0.0 " in f"{interval} " or facts["diff"].strip("-0.") == ""
    return facts, None if touches_zero else estimate.verdict(wanted)


def _harms(rng: random.Random, arms: tuple[int, int]) -> dict[str, str]:
    share = rng.uniform(0.04, 0.17)
    first = binomial(rng, arms[0], min(share * rng.uniform(0.9, 2.0), 0.4))
    return {"h1": count(first, arms[0]), "h2": count(binomial(rng, arms[1], share), arms[1])}


def _events(
    rng: random.Random, condition: dict[str, Any], effect: float, arms: tuple[int, int]
) -> tuple[dict[str, str], Estimate]:
    event, share = rng.choice(condition["events"])
    first, second = binomial(rng, arms[0], min(share * math.exp(effect), 0.9)), binomial(rng, arms[1], share)
    facts = {
        "n": str(sum(arms)),
        "n1": str(arms[0]),
        "n2": str(arms[1]),
        "event": event,
        "k1": count(first, arms[0]),
        "k2": count(second, arms[1]),
    }
    return facts, figures.risk_ratio(first, arms[0], second, arms[1])


def trial_event(rng: random.Random, condition: dict[str, Any], verdict: str, manner: Manner) -> Drawn:
    """A trial whose outcome is an event; the measured outcome never contradicts it."""
    arms = _arms(rng, 160, 1240)
    effect = rng.uniform(*EFFECTS[verdict])
    facts, estimate = _events(rng, condition, effect, arms)
    measured, change = _measure(rng, condition, max(-0.6 * effect, 0.0), arms, manner)
    if change != ("same" if verdict == "worse" else verdict):
        return facts, None
    return measured | facts | _harms(rng, arms) | estimated(estimate, manner), estimate.verdict(-1.0)


def trial_measure(rng: random.Random, condition: dict[str, Any], verdict: str, manner: Manner) -> Drawn:
    """A trial whose outcome is measured; the event of its secondary outcome never contradicts it."""
    arms = _arms(rng, 60, 520)
    effect = rng.uniform(*EFFECTS[verdict])
    facts, estimate = _events(rng, condition, effect / 3, arms)
    measured, change = _measure(rng, condition, -0.9 * effect, arms, manner)
    if estimate.verdict(-1.0) not in ("same", verdict):
        return facts, None
    return facts | measured | _harms(rng, arms), change


def meta_analysis(rng: random.Random, condition: dict[str, Any], verdict: str, manner: Manner) -> Drawn:
    """A review that pools trials of an event."""
    arms = _arms(rng, 1400, 9800)
    facts, estimate = _events(rng, condition, rng.uniform(*EFFECTS[verdict]) * 0.6, arms)
    trials = rng.randrange(5, 24)
    facts |= {
        "trials": str(trials),
        "lowbias": str(rng.randrange(2, trials)),
        "screened": str(rng.randrange(400, 5200)),
        "i2": str(rng.randrange(0, 68)),
        "egger": f"{rng.uniform(0.15, 0.85):.2f}",
    }
    return facts | estimated(estimate, manner), estimate.verdict(-1.0)


def small_trial(rng: random.Random, condition: dict[str, Any], manner: Manner) -> dict[str, str]:
    """A trial of a few dozen people."""
    arms = _arms(rng, 24, 70)
    facts, _ = _events(rng, condition, rng.uniform(-0.5, 0.2), arms)
    measured, _ = _measure(rng, condition, rng.uniform(-0.1, 0.3), arms, manner)
    return facts | measured
