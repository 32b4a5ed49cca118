"""How the time of a function grows with its input, on the processor's clock, which other processes do not move."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

LEAST_SECONDS = 0.02  # of the largest input: below this nothing is slow, and the clock too coarse
DOUBLINGS = 3
MOST = 2.5**DOUBLINGS  # linear is 8, with noise; quadratic is 64


def seconds(function: Callable[[str], object], text: str, tries: int) -> float:
    """The least processor time of some calls."""
    times = []
    for _ in range(tries):
        begun = time.process_time()
        function(text)
        times.append(time.process_time() - begun)
    return min(times)


def assert_linear(function: Callable[[str], object], make: Callable[[int], str], size: int = 4000) -> None:
    """Three doublings of the input take at most a bit more than eight times the time.

    Args:
        make: the text of about so many characters.
    """
    gc.collect()
    large = seconds(function, make(size << DOUBLINGS), 1)
    if large < LEAST_SECONDS:
        return
    small = seconds(function, make(size), 3)
    large = min(large, seconds(function, make(size << DOUBLINGS), 2))
    assert large <= MOST * small + LEAST_SECONDS, (
        f"{size} characters: {small:.4f} s, eight times as many: {large:.4f} s"
    )
