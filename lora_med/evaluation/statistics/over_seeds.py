"""Adapters that differ only in their seed, taken together: the gain of the recipe, not the luck of one run.

The difference from the base is averaged over the runs. Its variance adds the uncertainty over items (bootstrap over
groups, of the mean over runs) and over seeds (their variance divided by the number of runs). The interval is Student's
t with Satterthwaite's degrees of freedom (1946). Two runs say little, and the interval shows it.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from lora_med.adapters.store.card import Card
from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.results import Evaluation, Subject
from lora_med.metrics.significance import Interval, Verdict, paired, verdict

BESIDE_THE_RECIPE = {"train": ("seed", "output_dir"), "adapter": ("name", "description", "overwrite", "store")}


@dataclass(frozen=True)
class Runs:
    """Runs of one recipe in one evaluation, by the measure that the verdict rests on.

    `spread` is the standard deviation of the runs' differences from the base. Interval and verdict refer to their mean.
    """

    adapters: tuple[str, ...]
    measure: Measure
    mean: float
    spread: float
    lowest: float
    highest: float
    interval: Interval
    verdict: Verdict


def same_recipe(cards: Mapping[str, Card]) -> list[tuple[str, ...]]:
    """Names of adapters whose cards differ only in the seed and in paths; two or more together."""
    names_by_recipe: dict[str, list[str]] = {}
    for name, card in cards.items():
        if card.settings.get("train", {}).get("seed") is not None:
            names_by_recipe.setdefault(_recipe(card), []).append(name)
    return [tuple(names) for names in names_by_recipe.values() if len(names) > 1]


def _recipe(card: Card) -> str:
    """The settings that made an adapter, without its seed."""
    settings: dict[str, Any] = {}
    for section, values in card.settings.items():
        left_out = BESIDE_THE_RECIPE.get(section, ())
        settings[section] = (
            {key: value for key, value in values.items() if key not in left_out} if isinstance(values, dict) else values
        )
    return json.dumps(
        [card.base.fingerprint.weights, card.template, card.data.hashes, settings], sort_keys=True, default=str
    )


def over_seeds(evaluation: Evaluation, names: Sequence[str]) -> Runs:
    """The runs' mean difference from the base, and its uncertainty over items and seeds."""
    base, measure = evaluation.subjects[0], evaluation.verdict_by
    runs = [_subject(evaluation, name) for name in names]
    gains = [run.changes[measure.name].difference for run in runs]
    mean, spread = statistics.fmean(gains), statistics.stdev(gains)
    error = _error_of_items(evaluation, base, runs)
    interval = _interval(mean, error, spread, len(runs), evaluation.groups)
    return Runs(
        tuple(names),
        measure,
        mean,
        spread,
        min(gains),
        max(gains),
        interval,
        verdict(interval, lower_is_better=measure.lower_is_better),
    )


def _subject(evaluation: Evaluation, name: str) -> Subject:
    return next(subject for subject in evaluation.subjects if subject.adapter == name)


def _error_of_items(evaluation: Evaluation, base: Subject, runs: Sequence[Subject]) -> float | None:
    """The standard error over groups of the mean difference of these runs; None where there is only one group."""
    width = base.table.shape[1]
    tables = np.hstack([base.table, *(run.table for run in runs)])
    of_sums = evaluation.verdict_by.of_sums

    def mean_gain(sums: Numbers) -> Numbers:
        blocks = [of_sums(sums[..., width * number : width * (number + 1)]) for number in range(1, len(runs) + 1)]
        return np.mean(blocks, axis=0) - of_sums(sums[..., :width])

    groups = [item.group for item in evaluation.items]
    return paired(tables, groups, mean_gain, samples=evaluation.bootstrap_samples, seed=evaluation.seed).error


def _interval(mean: float, error: float | None, spread: float, runs: int, groups: int) -> Interval:
    if error is None:
        return Interval(None, None, "none: all items are of one group")
    items, seeds = error**2, spread**2 / runs
    variance = items + seeds
    if variance == 0:
        return Interval(mean, mean, "t over items and seeds")
    freedom = variance**2 / (items**2 / (groups - 1) + seeds**2 / (runs - 1))
    half_width = float(scipy.stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Interval(mean - half_width, mean + half_width, "t over items and seeds")
