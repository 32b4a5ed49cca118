"""Measures of a subject: each is a function of sums over items, so one bootstrap serves them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_med.metrics.significance import (
    Interval,
    Tested,
    Verdict,
    bootstrap,
    detectable,
    groups_needed,
    paired,
    verdict,
    wilson,
)

Numbers = NDArray[np.float64]
NOTHING = Interval(None, None, "nothing to measure")


@dataclass(frozen=True)
class Measure:
    """A score: its name in report.json, its label and unit for readers, its direction, and how sums become it.

    `counts` returns the numerator and denominator of a share of items from the sums; over independent items its
    interval is then Wilson's. `of` is the denominator of any other share; where it is 0, the share has no interval. A
    measure whose `lower_is_better` is None has no direction and no verdict.
    """

    name: str
    label: str
    unit: str
    lower_is_better: bool | None
    of_sums: Callable[[Numbers], Numbers]
    counts: Callable[[Numbers], tuple[float, float]] | None = None
    of: Callable[[Numbers], Numbers] | None = None


@dataclass(frozen=True)
class Value:
    """A score of one subject and its 95% interval over groups."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Change:
    """Adapter minus base on the same items: the difference, its 95% interval, and the verdict.

    `p_value` tests for no difference. `detectable` is the true difference that a test of this size finds in four of
    five cases. `items_needed` is the number of items that finds a difference as large as this in four of five cases.
    They are None where unknown.
    """

    difference: float
    interval: Interval
    verdict: Verdict
    p_value: float | None
    detectable: float | None
    items_needed: int | None


def text_measures(sections: Sequence[str] = ()) -> tuple[Measure, ...]:
    """The measures of texts; each section adds the nll of its tokens, from two more columns."""

    def of_section(number: int) -> Callable[[Numbers], Numbers]:
        return lambda sums: _ratio(sums[..., 3 + 2 * number], sums[..., 4 + 2 * number])

    return (
        Measure("nll_per_token", "nll", "nats per token", True, lambda sums: sums[..., 0] / sums[..., 1]),
        Measure("perplexity", "perplexity", "", True, lambda sums: np.exp(sums[..., 0] / sums[..., 1])),
        Measure("bits_per_byte", "bits per byte", "", True, lambda sums: sums[..., 0] / sums[..., 2] / math.log(2)),
        *(
            Measure(f"nll_{name.lower()}", f"nll of {name}", "nats per token", True, of_section(number))
            for number, name in enumerate(sections)
        ),
    )


def text_table(nll: Sequence[float], tokens: Sequence[int], sizes_bytes: Sequence[int]) -> Numbers:
    """Items x (nll, tokens, bytes), as `text_measures` without sections reads it."""
    return np.column_stack([nll, tokens, sizes_bytes]).astype(np.float64)


def _ratio(numerator: Numbers, denominator: Numbers) -> Numbers:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def values(
    measures: Sequence[Measure], table: Numbers, groups: Sequence[str], *, samples: int, seed: int
) -> dict[str, Value]:
    """Every measure of one subject; its interval is a bootstrap over groups, or Wilson's for a share of items."""
    sums = table.sum(axis=0)
    scored: dict[str, Value] = {}
    for measure in measures:
        if measure.of is not None and not measure.of(sums) > 0:
            interval = NOTHING
        elif measure.counts is not None and len(set(groups)) == len(groups):
            interval = wilson(*(round(count) for count in measure.counts(sums)))
        else:
            interval = bootstrap(table, groups, measure.of_sums, samples=samples, seed=seed)
        scored[measure.name] = Value(float(measure.of_sums(sums)), interval)
    return scored


def changes(
    measures: Sequence[Measure], base: Numbers, adapter: Numbers, groups: Sequence[str], *, samples: int, seed: int
) -> dict[str, Change]:
    """Every measure's difference adapter - base, items paired."""
    both = np.hstack([base, adapter])
    width = base.shape[1]
    changed: dict[str, Change] = {}
    for measure in measures:

        def difference(sums: Numbers, of_sums: Callable[[Numbers], Numbers] = measure.of_sums) -> Numbers:
            return of_sums(sums[..., width:]) - of_sums(sums[..., :width])

        tested = paired(both, groups, difference, samples=samples, seed=seed)
        if measure.of is not None and not all(measure.of(table.sum(axis=0)) > 0 for table in (base, adapter)):
            tested = Tested(NOTHING, None, None)
        gain, count = float(difference(both.sum(axis=0))), len(set(groups))
        needed = None if tested.error is None else groups_needed(gain, tested.error, count)
        changed[measure.name] = Change(
            difference=gain,
            interval=tested.interval,
            verdict=verdict(tested.interval, lower_is_better=measure.lower_is_better),
            p_value=tested.p_value,
            detectable=None if tested.error is None else detectable(tested.error),
            items_needed=None if needed is None else math.ceil(needed * len(groups) / count),
        )
    return changed
