"""The verdict of an unsealed study: better, worse, or cannot tell, with what it rests on.

verdict.json, `schema` "lora_med.blind_verdict/1": the fields of `Verdict`, `marks` (the check of the faithfulness
metric), `plan` (that of plan.json), `unsealed` (the event), `corrected` (ratings that were changed while sealed) and
`sentences` (the same for readers).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import scipy

from lora_med.metrics.significance import Interval, holm, wilson
from lora_med.metrics.significance import Verdict as Word
from lora_med.review.blind.rating import AXES
from lora_med.review.verdict.observations import Observation
from lora_med.review.verdict.rater_agreement import alpha_interval, krippendorff_alpha
from lora_med.review.verdict.two_way_interval import constant_interval, mean_interval

SCHEMA = "lora_med.blind_verdict/1"
LARGEST_P = 0.05


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; None where there is nothing to compute it from."""

    value: float | None
    interval: Interval


@dataclass(frozen=True)
class Verdict:
    """What the ratings of a study say of the adapter against the other subject.

    `win_difference` is the mean of 1 (adapter preferred), -1 (other preferred) and 0 over all ratings that judge,
    hidden repeats excepted. `items_won` and `items_lost` count items by the sum of their ratings; `p_value` is the
    exact two-sided sign test over them, and `adjusted` is Holm's over it and the tests of the report. The verdict needs
    both: the interval excludes zero, and `adjusted` is at most 0.05. `at_equal_length` is the difference that a line
    over the logarithm of the length ratio predicts for answers of equal length.
    """

    verdict: Word
    win_difference: Estimate
    choices: Mapping[str, int]
    items_rated: int
    items_won: int
    items_lost: int
    p_value: float
    adjusted: float
    tests: int
    axes: Mapping[str, Estimate]
    agreement: Estimate
    items_rated_twice: int
    side_a_share: Estimate
    side_a_p_value: float | None
    at_equal_length: Estimate | None
    repeat_consistency: Estimate
    repeats: int
    raters: Mapping[str, Estimate]
    longer_share: float | None

    def as_json(self) -> dict[str, Any]:
        """The fields for verdict.json."""
        return asdict(self)


def judge(observations: Sequence[Observation], other_p_values: Sequence[float] = ()) -> Verdict:
    """The verdict from the ratings; `other_p_values` are the tests that the report already made on these items."""
    counted = [each for each in observations if each.assignment.kind != "repeat"]
    judged = [each for each in counted if each.outcome is not None]
    by_item: dict[int, list[Observation]] = defaultdict(list)
    for each in judged:
        by_item[each.assignment.item].append(each)
    totals = [sum(each.outcome or 0 for each in ratings) for ratings in by_item.values()]
    won, lost = sum(total > 0 for total in totals), sum(total < 0 for total in totals)
    p_value = _sign_test(won, lost)
    adjusted = holm([p_value, *other_p_values])[0]
    difference = _mean(judged, [float(each.outcome or 0) for each in judged])
    return Verdict(
        verdict=_word(difference, adjusted),
        win_difference=difference,
        choices=dict(sorted(Counter(each.category for each in counted).items())),
        items_rated=len(by_item),
        items_won=won,
        items_lost=lost,
        p_value=p_value,
        adjusted=adjusted,
        tests=1 + len(other_p_values),
        axes={name: _axis(judged, name) for name in AXES},
        **_agreement(judged),
        **_side(counted),
        **_length(judged),
        **_repeats(observations),
        raters=_raters(judged),
    )


def _word(difference: Estimate, adjusted: float) -> Word:
    return "cannot tell" if adjusted > LARGEST_P else word_of(difference.interval.low, difference.interval.high)


def word_of(low: float | None, high: float | None) -> Word:
    """What an interval of the win difference says alone: it excludes zero, or "cannot tell"."""
    if low is None or high is None or low <= 0 <= high:
        return "cannot tell"
    return "better" if low > 0 else "worse"


def _sign_test(won: int, lost: int) -> float:
    return float(scipy.stats.binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def _mean(observations: Sequence[Observation], values: Sequence[float]) -> Estimate:
    items = [each.assignment.item for each in observations]
    raters = [each.assignment.rater for each in observations]
    interval = mean_interval(values, items, raters)
    if interval.low is not None and interval.high is not None:
        interval = replace(interval, low=max(interval.low, -1.0), high=min(interval.high, 1.0))  # where a mean can be
    return Estimate(sum(values) / len(values) if values else None, interval)


def _axis(judged: Sequence[Observation], name: str) -> Estimate:
    rated = [each for each in judged if name in each.axes]
    return _mean(rated, [float(each.axes[name]) for each in rated])


def _share(hits: int, total: int) -> Estimate:
    if not total:
        return Estimate(None, Interval(None, None, "none: nothing to count"))
    return Estimate(hits / total, wilson(hits, total))


def _agreement(judged: Sequence[Observation]) -> dict[str, Any]:
    units: dict[int, list[str]] = defaultdict(list)
    for each in judged:
        units[each.assignment.item].append(each.category)
    pairable = [unit for unit in units.values() if len(unit) > 1]
    agreement = Estimate(krippendorff_alpha(pairable), alpha_interval(pairable))
    return {"agreement": agreement, "items_rated_twice": len(pairable)}


def _side(counted: Sequence[Observation]) -> dict[str, Any]:
    sided = [each.choice for each in counted if each.choice in ("a", "b")]
    on_a = sided.count("a")
    return {
        "side_a_share": _share(on_a, len(sided)),
        "side_a_p_value": _sign_test(on_a, len(sided) - on_a) if sided else None,
    }


def _length(judged: Sequence[Observation]) -> dict[str, Any]:
    ratios = [each.log_length_ratio for each in judged]
    line = constant_interval(
        [float(each.outcome or 0) for each in judged],
        ratios,
        [each.assignment.item for each in judged],
        [each.assignment.rater for each in judged],
    )
    return {
        "at_equal_length": None if line is None else Estimate(*line),
        "longer_share": sum(ratio > 0 for ratio in ratios) / len(ratios) if ratios else None,
    }


def _repeats(observations: Sequence[Observation]) -> dict[str, Any]:
    """How often a rater made the same choice again on the same item with the sides exchanged."""
    earlier = {
        (each.assignment.rater, each.assignment.item): each.category
        for each in observations
        if each.assignment.kind != "repeat"
    }
    again = [
        each.category == earlier[key]
        for each in observations
        if each.assignment.kind == "repeat" and (key := (each.assignment.rater, each.assignment.item)) in earlier
    ]
    return {"repeat_consistency": _share(sum(again), len(again)), "repeats": len(again)}


def _raters(judged: Sequence[Observation]) -> dict[str, Estimate]:
    by_rater: dict[str, list[Observation]] = defaultdict(list)
    for each in judged:
        by_rater[each.assignment.rater].append(each)
    return {
        rater: _mean(ratings, [float(each.outcome or 0) for each in ratings])
        for rater, ratings in sorted(by_rater.items())
    }
