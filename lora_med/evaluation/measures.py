"""What is measured of a subject: each measure is a function of sums over items, so one bootstrap serves them all."""

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

    `counts` gives, of a share of items, how many of how many from the sums: over independent items its interval is then
    Wilson's. `of` is what a share is a share of: who has none of it is told nothing by the share. A measure without
    `lower_is_better` has no direction, and no verdict.
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
    """Adapter minus base on the same items: the 95% interval of the difference, and what it allows to say.

    `p_value` is of no difference; `detectable` the true difference that a test of this size finds in four of five
    cases; `items_needed` how many items would find one as large as this in four of five. None where unknown.
    """

    difference: float
    interval: Interval
    verdict: Verdict
    p_value: float | None
    detectable: float | None
    items_needed: int | None


def text_measures(sections: Sequence[str] = ()) -> tuple[Measure, ...]:
    """What is measured of texts; for each section the nll of its tokens, from two columns more."""

    def of_section(place: int) -> Callable[[Numbers], Numbers]:
        return lambda sums: _share(sums[..., 3 + 2 * place], sums[..., 4 + 2 * place])

    return (
        Measure("nll_per_token", "nll", "nats per token", True, lambda sums: sums[..., 0] / sums[..., 1]),
        Measure("perplexity", "perplexity", "", True, lambda sums: np.exp(sums[..., 0] / sums[..., 1])),
        Measure("bits_per_byte", "bits per byte", "", True, lambda sums: sums[..., 0] / sums[..., 2] / math.log(2)),
        *(
            Measure(f"nll_{name.lower()}", f"nll of {name}", "nats per token", True, of_section(place))
            for place, name in enumerate(sections)
        ),
    )


def text_table(nll: Sequence[float], tokens: Sequence[int], sizes_bytes: Sequence[int]) -> Numbers:
    """Items x (nll, tokens, bytes), as `text_measures` without sections read it."""
    return np.column_stack([nll, tokens, sizes_bytes]).astype(np.float64)


def _share(part: Numbers, whole: Numbers) -> Numbers:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def values(
    measures: Sequence[Measure], table: Numbers, groups: Sequence[str], *, samples: int, seed: int
) -> dict[str, Value]:
    """Every measure of one subject; the interval is by bootstrap over groups, or Wilson's of a share of items."""
    sums = table.sum(axis=0)
    found: dict[str, Value] = {}
    for measure in measures:
        if measure.of is not None and not measure.of(sums) > 0:
            interval = NOTHING
        elif measure.counts is not None and len(set(groups)) == len(groups):
            interval = wilson(*(round(count) for count in measure.counts(sums)))
        else:
            interval = bootstrap(table, groups, measure.of_sums, samples=samples, seed=seed)
        found[measure.name] = Value(float(measure.of_sums(sums)), interval)
    return found


def changes(
    measures: Sequence[Measure], base: Numbers, adapter: Numbers, groups: Sequence[str], *, samples: int, seed: int
) -> dict[str, Change]:
    """Every measure's difference adapter - base, items paired."""
    both = np.hstack([base, adapter])
    width = base.shape[1]
    found: dict[str, Change] = {}
    for measure in measures:

        def difference(sums: Numbers, of_sums: Callable[[Numbers], Numbers] = measure.of_sums) -> Numbers:
            return of_sums(sums[..., width:]) - of_sums(sums[..., :width])

        tested = paired(both, groups, difference, samples=samples, seed=seed)
        if measure.of is not None and not all(measure.of(table.sum(axis=0)) > 0 for table in (base, adapter)):
            tested = Tested(NOTHING, None, None)
        gap, count = float(difference(both.sum(axis=0))), len(set(groups))
        needed = None if tested.error is None else groups_needed(gap, tested.error, count)
        found[measure.name] = Change(
            gap,
            tested.interval,
            verdict(tested.interval, lower_is_better=measure.lower_is_better),
            tested.p_value,
            None if tested.error is None else detectable(tested.error),
            None if needed is None else math.ceil(needed * len(groups) / count),
        )
    return found
