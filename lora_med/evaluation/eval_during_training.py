"""Evaluation during training: the same task as `evaluate`, on validation items that are already tokens.

The trainer asks each process for its share of the answers and turns all of them into scores. The trainer also decides
which adapter is published, and makes sure that scoring does not change the run.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.config.near_names import unknown
from lora_med.config.schema import EvaluateSettings
from lora_med.data.corpus import Corpus
from lora_med.data.record import Record
from lora_med.errors import DataError, SettingsError
from lora_med.evaluation.likelihood.log_probabilities import score_options, score_text
from lora_med.evaluation.measures import Measure, Numbers, changes, text_measures, text_table
from lora_med.evaluation.runner import context_of
from lora_med.evaluation.scorers.choice_answers import ChoiceQuestions, choose, pose_questions
from lora_med.evaluation.scorers.choice_measures import layout_of, option_measures, option_table
from lora_med.evaluation.scorers.items import ChoiceItem, TextItem, text_items
from lora_med.evaluation.tasks import SCORINGS, Scoring
from lora_med.metrics.significance import Verdict
from lora_med.models.base import Base
from lora_med.prompts.fit import Refused, fit_stream
from lora_med.prompts.render import fitting, render
from lora_med.prompts.templates.templates import find_template

Answer = tuple[float, ...]
RESAMPLES = 10_000


@dataclass(frozen=True)
class ValidationTask:
    """Validation items to score an adapter on every `every` steps.

    `metric` is the score that matters and `lower_is_better` its direction. `chooses` says whether it decides which
    adapter is published. `digest` is a SHA-256 of the items: scores compare only on the same items.
    """

    metric: str
    lower_is_better: bool
    every: int
    chooses: bool
    items: int
    digest: str
    measures: tuple[Measure, ...]
    groups: tuple[str, ...]
    answer_items: Callable[[Any, Sequence[int]], list[Answer]]
    make_table: Callable[[Sequence[Answer]], Numbers]

    def answers(self, model: Any, indices: Sequence[int]) -> list[Answer]:
        """The answers of the causal language model, with its current adapter, to the items at `indices`.

        Raises:
            DivergedError: the model returns values that are not finite.
        """
        return self.answer_items(model, indices)

    def scores(self, answers: Sequence[Answer]) -> dict[str, float]:
        """Every measure by name, from the answers to all items in their order."""
        sums = self.make_table(answers).sum(axis=0)
        return {measure.name: float(measure.of_sums(sums)) for measure in self.measures}

    def compare(self, before: Sequence[Answer], after: Sequence[Answer]) -> tuple[tuple[float, float] | None, Verdict]:
        """The 95% interval of the change in `metric`, paired over groups of items, and the verdict that it allows."""
        measure = next(measure for measure in self.measures if measure.name == self.metric)
        first, second = (self.make_table([tuple(answer) for answer in answers]) for answers in (before, after))
        change = changes([measure], first, second, self.groups, samples=RESAMPLES, seed=0)[measure.name]
        interval = change.interval
        ends = None if interval.low is None or interval.high is None else (interval.low, interval.high)
        return ends, change.verdict


def check_validation_task(settings: EvaluateSettings, corpus: Corpus, *, seed: int) -> None:
    """Raise what `validation_task` would raise, without a model.

    Raises:
        SettingsError: the task has no such metric.
        DataError: there is nothing to score in the validation split.
    """
    if settings.eval_steps:
        _metric(settings, _measures(_drawn(corpus, settings, seed=seed), corpus.template), corpus.template)


def validation_task(
    settings: EvaluateSettings, corpus: Corpus, base: Base, *, seed: int, skip_bad: bool = False
) -> ValidationTask | None:
    """The scores to follow in training, by the settings' section `evaluate`; None if it asks for none.

    Args:
        settings: the section `evaluate`.
        corpus: its validation records are scored; of a mixture, those of the first source. It holds no test record.
        base: the base that is trained on; its tokenizer and context are used.
        seed: of the draw of items.
        skip_bad: leave out, and count, the rows that the base's chat template refuses; else the first stops the run.

    Raises:
        SettingsError: the task has no such metric.
        DataError: there is nothing to score in the validation split.
    """
    if not settings.eval_steps:
        return None
    records, template, context = _drawn(corpus, settings, seed=seed), corpus.template, context_of(base)
    if skip_bad:
        records = _accepted(records, template, base.tokenizer)
    if find_template(template).options is None:
        items = text_items(records, template, base.model, base.tokenizer)
        fields: dict[str, Any] = {
            "measures": text_measures(),
            "answer_items": lambda model, indices: _answer_text(model, [items[index] for index in indices], context),
            "make_table": lambda answers: _table_text(items, answers),
        }
        tokens = [(item.uid, item.input_ids, sorted(item.unscored)) for item in items]
    else:
        questions = pose_questions(records, template, base.model, base.tokenizer)
        items = questions.items
        fields = {
            "measures": option_measures(layout_of(questions, written=False)),
            "answer_items": lambda model, indices: _answer_choice(model, [items[index] for index in indices], context),
            "make_table": lambda answers: option_table(questions, choose(questions, answers)),
        }
        tokens = [(item.uid, item.prompt_ids, item.option_ids, item.answer) for item in items]
    measure = _metric(settings, fields["measures"], template)
    return ValidationTask(
        metric=measure.name,
        lower_is_better=bool(measure.lower_is_better),
        every=settings.eval_steps,
        chooses=settings.chooses,
        items=len(items),
        groups=tuple(item.group for item in items),
        digest=hashlib.sha256(repr(tokens).encode()).hexdigest(),
        **fields,
    )


def _drawn(corpus: Corpus, settings: EvaluateSettings, *, seed: int) -> list[Record]:
    """Validation records of the first source that fit its template, at most `max_eval_samples`."""
    own = [record for record in corpus.validation if record.source == corpus.source.name]
    records = fitting(own, corpus.template)
    if not records:
        raise DataError(
            f"evaluate.eval_steps is {settings.eval_steps}, and there is no validation record to score: "
            f"{corpus.split_description}",
            where="data.paths",
            fix="raise data.validation_share, or leave evaluate.eval_steps out",
        )
    if len(records) <= settings.max_eval_samples:
        return records
    indices = sorted(random.Random(seed).sample(range(len(records)), settings.max_eval_samples))
    return [records[index] for index in indices]


def _accepted(records: Sequence[Record], template: str, tokenizer: Any) -> list[Record]:
    """The records whose rows the base's chat template accepts; the others are counted in the log."""
    refused = Refused(skip=True)
    accepted = [
        record
        for record, row in zip(records, render(records, template), strict=True)
        if list(fit_stream([row], tokenizer, sys.maxsize, refused))
    ]
    refused.log("evaluation during training")
    if not accepted:
        raise DataError(
            f"the base's chat template refuses all {len(records):,} validation records to score",
            where="data.template",
            fix="change the turns, or give a template of your own: model.chat_template=FILE",
        )
    return accepted


def _measures(records: Sequence[Record], template: str) -> tuple[Measure, ...]:
    """The measures of these records, without a tokenizer."""
    options = find_template(template).options
    if options is None:
        return text_measures()
    items = tuple(
        ChoiceItem(
            row.uid, row.group, (), (), tuple(option.strip() for option in options(record)), row.completion.strip()
        )
        for record, row in zip(records, render(records, template), strict=True)
    )
    return option_measures(layout_of(ChoiceQuestions(items, tuple((item,) for item in items)), written=False))


def _metric(settings: EvaluateSettings, measures: Sequence[Measure], template: str) -> Measure:
    known = {measure.name: measure for measure in measures}
    scoring: Scoring = "text" if find_template(template).options is None else "choice"
    name = settings.metric_for_best_model or SCORINGS[scoring].verdict_by
    if name not in known:
        raise SettingsError(
            f"with the template {template!r} there is {unknown('metric', name, known)}",
            where="evaluate.metric_for_best_model",
        )
    return known[name]


def _answer_text(model: Any, items: Sequence[TextItem], context: int) -> list[Answer]:
    return [
        (nll,) for nll in score_text(model, [(item.input_ids, item.first, item.unscored) for item in items], context)
    ]


def _table_text(items: Sequence[TextItem], answers: Sequence[Answer]) -> Numbers:
    return text_table([nll for (nll,) in answers], [item.tokens for item in items], [item.size_bytes for item in items])


def _answer_choice(model: Any, items: Sequence[ChoiceItem], context: int) -> list[Answer]:
    return [
        tuple(scores)
        for scores in score_options(model, [(item.prompt_ids, item.option_ids) for item in items], context)
    ]
