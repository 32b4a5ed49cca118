"""From answers to results: intervals, differences from the base and from baselines, and tests, on the same items."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lora_med.errors import SettingsError
from lora_med.evaluation.measures import Change, Measure, Numbers, changes, values
from lora_med.evaluation.results import Baseline, Subject
from lora_med.evaluation.scorer import Answered, Scorer
from lora_med.evaluation.tasks import SCORINGS, Scoring
from lora_med.metrics.custom_metric import CustomScore, Metric, score_custom
from lora_med.metrics.significance import mcnemar

Custom = dict[str | None, dict[str, CustomScore]]


@dataclass(frozen=True)
class Statistics:
    """How the answers to one task are compared: by which measure verdicts go, and how intervals are resampled.

    `shown` says whether what was written may be kept.
    """

    scorer: Scorer
    scoring: Scoring
    resamples: int
    seed: int
    shown: bool

    @property
    def groups(self) -> list[str]:
        """The group of each item."""
        return [item.group for item in self.scorer.items]

    def subjects(self, answered: Mapping[str | None, Answered], custom: Custom) -> tuple[Subject, ...]:
        """Base and adapters, each with its values and, for adapters, what sets them apart from the base."""
        trivial = self.scorer.baselines()
        return tuple(
            Subject(
                adapter=name,
                values=values(self.scorer.measures, one.table, self.groups, samples=self.resamples, seed=self.seed),
                changes={} if name is None else self._changes(self.scorer.measures, answered[None].table, one.table),
                table=one.table,
                facts=one.facts,
                seconds=one.seconds,
                answers=one.answers,
                mcnemar=None if name is None or not one.right else mcnemar(answered[None].right, one.right),
                confidence=one.confidence,
                over={
                    baseline: self._changes([self._primary], table, one.table)[self._primary.name]
                    for baseline, table in trivial.items()
                },
                custom=custom.get(name, {}),
                written=one.written if self.shown else (),
            )
            for name, one in answered.items()
        )

    def baselines(self) -> tuple[Baseline, ...]:
        """What answers without a model score."""
        options = {"samples": self.resamples, "seed": self.seed}
        return tuple(
            Baseline(name, values(self.scorer.measures, table, self.groups, **options))
            for name, table in self.scorer.baselines().items()
        )

    def custom(
        self, functions: Mapping[str, Metric], answered: Mapping[str | None, Answered], lower_is_better: Collection[str]
    ) -> Custom:
        """The user's metrics of each subject; where there are several, their functions' names stand in front.

        Raises:
            SettingsError: the task has no answers, or a name of `lower_is_better` is none of the metrics'.
        """
        if functions and not self.scorer.references:
            raise SettingsError(
                "texts scored by log-likelihood have no answers for a metric",
                where="evaluate.metrics",
                fix="a task that answers: questions, entities, writing",
            )
        found: Custom = {name: {} for name in answered}
        predictions = [list(one.predictions) for one in answered.values()]
        for spec, function in functions.items():
            before = f"{spec.rpartition(':')[2]}." if len(functions) > 1 else ""
            scored = score_custom(
                function,
                predictions,
                list(self.scorer.references),
                self.groups,
                lower_is_better={name.removeprefix(before) for name in lower_is_better},
                seed=self.seed,
            )
            for name, numbers in zip(answered, scored, strict=True):
                found[name] |= {f"{before}{key}": one for key, one in numbers.items()}
        strange = set(lower_is_better) - set(found[None]) if functions else set()
        if strange:
            raise SettingsError(
                f"no metric gives {', '.join(sorted(strange))}; they give {', '.join(found[None])}",
                where="evaluate.lower_is_better",
            )
        return found

    @property
    def _primary(self) -> Measure:
        return next(one for one in self.scorer.measures if one.name == SCORINGS[self.scoring].verdict_by)

    def _changes(self, measures: Collection[Measure], first: Numbers, second: Numbers) -> dict[str, Change]:
        return changes(list(measures), first, second, self.groups, samples=self.resamples, seed=self.seed)
