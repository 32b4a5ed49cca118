"""From answers to results on the same items: intervals, differences from base and baselines, and tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lora_med.errors import SettingsError
from lora_med.evaluation.measures import Change, Measure, Numbers, changes, values
from lora_med.evaluation.results import Baseline, Subject, verdict_measure
from lora_med.evaluation.scorer import Answered, Scorer
from lora_med.evaluation.tasks import Scoring
from lora_med.metrics.custom_metric import CustomScore, Metric, score_custom
from lora_med.metrics.significance import mcnemar

Custom = dict[str | None, dict[str, CustomScore]]


@dataclass(frozen=True)
class Statistics:
    """How the answers to one task are compared: the measure of the verdict, and how intervals are resampled.

    `shown` says whether written texts may be saved and shown.
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
        """Base and adapters, each with its values and for adapters the differences from the base."""
        baseline_tables = self.scorer.baselines()
        return tuple(
            Subject(
                adapter=name,
                values=values(self.scorer.measures, answers.table, self.groups, samples=self.resamples, seed=self.seed),
                changes={}
                if name is None
                else self._changes(self.scorer.measures, answered[None].table, answers.table),
                table=answers.table,
                facts=answers.facts,
                seconds=answers.seconds,
                answers=answers.answers,
                mcnemar=None if name is None or not answers.right else mcnemar(answered[None].right, answers.right),
                confidence=answers.confidence,
                baseline_changes={
                    baseline: self._changes([self._primary], table, answers.table)[self._primary.name]
                    for baseline, table in baseline_tables.items()
                },
                custom=custom.get(name, {}),
                written=answers.written if self.shown else (),
            )
            for name, answers in answered.items()
        )

    def baselines(self) -> tuple[Baseline, ...]:
        """The scores of answers without a model."""
        options = {"samples": self.resamples, "seed": self.seed}
        return tuple(
            Baseline(name, values(self.scorer.measures, table, self.groups, **options))
            for name, table in self.scorer.baselines().items()
        )

    def custom(
        self, functions: Mapping[str, Metric], answered: Mapping[str | None, Answered], lower_is_better: Collection[str]
    ) -> Custom:
        """The user's metrics of each subject; where there are several, each name begins with its function's name.

        Raises:
            SettingsError: the task has no answers, or a name in `lower_is_better` is no metric.
        """
        if functions and not self.scorer.references:
            raise SettingsError(
                "texts scored by log-likelihood have no answers for a metric",
                where="evaluate.metrics",
                fix="a task that answers: questions, entities, writing",
            )
        scores: Custom = {name: {} for name in answered}
        predictions = [list(score.predictions) for score in answered.values()]
        for spec, function in functions.items():
            prefix = f"{spec.rpartition(':')[2]}." if len(functions) > 1 else ""
            scored = score_custom(
                function,
                predictions,
                list(self.scorer.references),
                self.groups,
                lower_is_better={name.removeprefix(prefix) for name in lower_is_better},
                seed=self.seed,
            )
            for name, numbers in zip(answered, scored, strict=True):
                scores[name] |= {f"{prefix}{key}": score for key, score in numbers.items()}
        unknown_names = set(lower_is_better) - set(scores[None]) if functions else set()
        if unknown_names:
            raise SettingsError(
                f"no metric gives {', '.join(sorted(unknown_names))}; they give {', '.join(scores[None])}",
                where="evaluate.lower_is_better",
            )
        return scores

    @property
    def _primary(self) -> Measure:
        return verdict_measure(self.scorer.measures, self.scoring)

    def _changes(self, measures: Collection[Measure], first: Numbers, second: Numbers) -> dict[str, Change]:
        return changes(list(measures), first, second, self.groups, samples=self.resamples, seed=self.seed)
