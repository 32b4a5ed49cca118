"""Metrics of your own: a Python function from predictions and references to named numbers, with intervals.

    def dose_errors(predictions: list[str], references: list[str]) -> dict[str, float]:
        wrong = sum(doses(one) != doses(other) for one, other in zip(predictions, references))
        return {"dose_errors": wrong / len(references)}

Its name is `package.module:dose_errors`. It is called on the held-out items, and then on resamples of them (whole
groups, with repeats). So it must take lists of any length from one, and return the same names each time.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lora_med.errors import DataError, SettingsError
from lora_med.metrics.significance import Interval, Verdict, verdict

Metric = Callable[[list[str], list[str]], Mapping[str, float]]
RESAMPLES = 1000
TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class CustomScore:
    """One number of a metric with its 95% interval, and how it differs from the base's; None for the base itself."""

    value: float
    interval: Interval
    difference: float | None = None
    difference_interval: Interval | None = None
    verdict: Verdict | None = None


def load_metric(spec: str) -> Metric:
    """The function that `package.module:function` names; modules in the working directory are found as well.

    Raises:
        SettingsError: it is not of that form, or there is no such module or function.
    """
    module, _, function = spec.partition(":")
    where = "evaluate.metrics"
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise SettingsError(f"{spec!r} is not of the form module:function", where=where, fix="package.module:function")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        candidate: Any = vars(importlib.import_module(module)).get(function)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{spec!r}: no module named {error.name!r}",
            where=where,
            fix="run in the folder of the module, or install it",
        ) from error
    finally:
        sys.path.remove(here)
    if not callable(candidate):
        raise SettingsError(f"{spec!r}: {module} has no function {function!r}", where=where)
    return cast(Metric, candidate)


def score_custom(
    metric: Metric,
    predictions: Sequence[list[str]],
    references: list[str],
    groups: Sequence[Hashable],
    *,
    lower_is_better: Collection[str] = (),
    samples: int = RESAMPLES,
    seed: int = 0,
) -> list[dict[str, CustomScore]]:
    """The metric's numbers for each subject, the first of which the others are compared with, items paired.

    Args:
        predictions: of each subject, one text an item.
        lower_is_better: the names for which less is better; the verdict needs to know.

    Raises:
        DataError: the metric does not give the same finite numbers under the same names each time.
    """
    point = [_call(metric, texts, references) for texts in predictions]
    names = list(point[0])
    drawn = _resampled(metric, predictions, references, groups, names, samples, seed)
    results = []
    for subject, numbers in enumerate(point):
        scores = {}
        for column, name in enumerate(_same(names, numbers)):
            mine, base = drawn[:, subject, column], drawn[:, 0, column]
            if subject == 0:
                scores[name] = CustomScore(numbers[name], _interval(mine))
                continue
            difference = _interval(mine - base)
            decision = verdict(difference, lower_is_better=name in lower_is_better)
            scores[name] = CustomScore(
                numbers[name], _interval(mine), numbers[name] - point[0][name], difference, decision
            )
        results.append(scores)
    return results


def _resampled(
    metric: Metric,
    predictions: Sequence[list[str]],
    references: list[str],
    groups: Sequence[Hashable],
    names: Sequence[str],
    samples: int,
    seed: int,
) -> NDArray[np.float64]:
    """The numbers on resamples of whole groups: (samples, subjects, names)."""
    members: dict[Hashable, list[int]] = {}
    for item, group in enumerate(groups):
        members.setdefault(group, []).append(item)
    clusters = list(members.values())
    draw = np.random.default_rng(seed)
    table = np.empty((samples if len(clusters) > 1 else 0, len(predictions), len(names)))
    for row in table:
        chosen = [item for group in draw.integers(0, len(clusters), len(clusters)) for item in clusters[group]]
        right = [references[item] for item in chosen]
        for cells, texts in zip(row, predictions, strict=True):
            numbers = _call(metric, [texts[item] for item in chosen], right)
            cells[:] = [numbers[name] for name in _same(names, numbers)]
    return table


def _call(metric: Metric, predictions: list[str], references: list[str]) -> dict[str, float]:
    result = metric(predictions, references)
    try:
        numbers = {str(name): float(value) for name, value in result.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"the metric gave a {type(result).__name__} that is no dict of numbers", fix='return {"name": number}'
        ) from error
    if not numbers or not np.isfinite(list(numbers.values())).all():
        raise DataError(
            f"the metric gave no finite numbers: {numbers}", fix="give a number for any items, also for one"
        )
    return numbers


def _same(names: Sequence[str], numbers: Mapping[str, float]) -> Sequence[str]:
    if set(numbers) != set(names):
        raise DataError(
            f"the metric named {', '.join(sorted(numbers))} and before {', '.join(sorted(names))}",
            fix="give the same names each time",
        )
    return names


def _interval(values: NDArray[np.float64]) -> Interval:
    if not len(values):
        return Interval(None, None, "none: all items are of one group")
    low, high = np.quantile(values, TAILS)
    return Interval(float(low), float(high), "percentile")
