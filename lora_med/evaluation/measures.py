"""What is measured of a subject: each measure is a function of sums over items, so one bootstrap serves them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_med.metrics.classify import f1_of_confusion
from lora_med.metrics.significance import Interval, Verdict, bootstrap, detectable, groups_needed, paired, verdict

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """A score: its name in report.json, its label and unit for readers, its direction, and how sums become it."""

    name: str
    label: str
    unit: str
    lower_is_better: bool
    of_sums: Callable[[Numbers], Numbers]


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


def _nll(sums: Numbers) -> Numbers:
    return sums[..., 0] / sums[..., 1]


TEXT_MEASURES = (
    Measure("nll_per_token", "nll", "nats per token", True, _nll),
    Measure("perplexity", "perplexity", "", True, lambda sums: np.exp(_nll(sums))),
    Measure("bits_per_byte", "bits per byte", "", True, lambda sums: sums[..., 0] / sums[..., 2] / math.log(2)),
)


def text_table(nll: Sequence[float], tokens: Sequence[int], sizes_bytes: Sequence[int]) -> Numbers:
    """Items x (nll, tokens, bytes), as TEXT_MEASURES read it."""
    return np.column_stack([nll, tokens, sizes_bytes]).astype(np.float64)


def choice_measures(labels: Sequence[str]) -> tuple[Measure, ...]:
    """Accuracy and, over a closed set of labels, macro-F1, from flattened confusion tables."""
    side = len(labels)

    def confusion(sums: Numbers) -> Numbers:
        return sums.reshape(*sums.shape[:-1], side, side)

    def accuracy(sums: Numbers) -> Numbers:
        return np.trace(confusion(sums), axis1=-2, axis2=-1) / sums.sum(-1)

    return (
        Measure("accuracy", "accuracy", "", False, accuracy),
        Measure("macro_f1", "macro-F1", "", False, lambda sums: f1_of_confusion(confusion(sums)).mean(-1)),
    )


def choice_table(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Numbers:
    """Items x (true label, predicted label) flattened, a single 1 in each row."""
    place = {label: index for index, label in enumerate(labels)}
    table = np.zeros((len(truth), len(labels) ** 2))
    for row, (right, got) in enumerate(zip(truth, predicted, strict=True)):
        table[row, place[right] * len(labels) + place[got]] = 1
    return table


def values(
    measures: Sequence[Measure], table: Numbers, groups: Sequence[str], *, samples: int, seed: int
) -> dict[str, Value]:
    """Every measure of one subject."""
    return {
        measure.name: Value(
            float(measure.of_sums(table.sum(axis=0))),
            bootstrap(table, groups, measure.of_sums, samples=samples, seed=seed),
        )
        for measure in measures
    }


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
