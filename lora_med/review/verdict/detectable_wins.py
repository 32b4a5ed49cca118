"""How large a preference must be for a blind rating of so many items to find it: exact binomial, no approximation."""

from __future__ import annotations

import math

import numpy as np
import scipy

LARGEST_P, POWER = 0.05, 0.8
STEP = 0.005  # shares are reported in half percents, rounded up


def fewest_wins(items: int) -> int | None:
    """The fewest wins of `items` that a two-sided exact sign test at 5% takes for more than chance; None: no number."""
    wins = np.arange(items // 2 + 1, items + 1)
    p_values = 2 * scipy.stats.binom.sf(wins - 1, items, 0.5)
    enough = wins[p_values <= LARGEST_P]
    return int(enough[0]) if len(enough) else None


def power(items: int, share: float) -> float:
    """How often a sign test of `items` finds a true share of wins above one half."""
    wins = fewest_wins(items)
    return 0.0 if wins is None else float(scipy.stats.binom.sf(wins - 1, items, share))


def detectable_share(items: int) -> float | None:
    """The smallest true share of wins that 4 of 5 studies find, in half percents; None if even 100% is not found."""
    if power(items, 1.0) < POWER:
        return None
    exact = float(scipy.optimize.brentq(lambda share: power(items, share) - POWER, 0.5, 1.0, xtol=1e-9))
    return min(1.0, math.ceil(round(exact / STEP, 6)) * STEP)
