"""Questions with options as a task: chosen by log-probability or in writing, once or in every order of the options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lora_med.data.record import Record
from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.results import Answers, Item, Recall, commonest
from lora_med.evaluation.scorer import Answered
from lora_med.evaluation.scorers.choice_answers import (
    ANSWER_TOKENS,
    ChoiceQuestions,
    Choices,
    answer_choices,
    pose_questions,
    score_choices,
)
from lora_med.evaluation.scorers.choice_measures import confusion, layout_of, option_measures, option_table
from lora_med.evaluation.statistics.calibration import Fitted, confidence, fit
from lora_med.metrics.significance import wilson
from lora_med.models.base import Base
from lora_med.models.generation import RunBatches
from lora_med.prompts.few_shot import Shots


class ChoiceScorer:
    """Questions with options; see `Scorer`."""

    prompts: tuple[str, ...] = ()

    def __init__(
        self,
        base: Base,
        records: Sequence[Record],
        template: str,
        context: int,
        *,
        written: bool,
        shots: Shots | None,
        rotate: bool,
        validation: Sequence[Record],
    ) -> None:
        self._base, self._context, self._written = base, context, written

        def questions(posed: Sequence[Record]) -> ChoiceQuestions:
            return pose_questions(posed, template, base.model, base.tokenizer, shots=shots, rotate=rotate)

        self._questions = questions(records)
        self._validation = questions(validation) if validation and not written else None
        self._layout = layout_of(self._questions, written=written)
        self.items = tuple(
            Item(item.uid, item.group, labels=item.labels, answer=item.answer) for item in self._questions.items
        )

    @property
    def layout(self) -> Mapping[str, Any]:
        """As `ChoiceLayout`."""
        return asdict(self._layout)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of `option_measures`."""
        return option_measures(self._layout)

    @property
    def references(self) -> tuple[str, ...]:
        """The right labels."""
        return self._questions.truth

    @property
    def notes(self) -> tuple[str, ...]:
        """How many prompts are too long."""
        answer_tokens = ANSWER_TOKENS if self._written else 0
        shortened = sum(
            len(item.prompt_ids) + (answer_tokens or max(len(option) for option in item.option_ids) - 1) > self._context
            for item in self._questions.items
        )
        return (f"{shortened} prompts were longer than the context and lost their beginning.",) if shortened else ()

    def outputs(self, run: RunBatches) -> tuple[Choices, Choices | None]:
        """The choice for each question, and for each validation question where there are some."""
        model, questions = self._base.model, self._questions
        if self._written:
            return answer_choices(model, self._base.tokenizer, questions, self._context, run=run), None
        choices = score_choices(model, questions, self._context, run=run)
        if self._validation is None:
            return choices, None
        return choices, score_choices(model, self._validation, self._context, run=run)

    def answered(self, outputs: tuple[Choices, Choices | None]) -> Answered:
        """The choice for each question, compared with the right one."""
        (choices, validation), questions = outputs, self._questions
        table = option_table(questions, choices)
        fitted = self._fitted(validation)
        return Answered(
            table,
            tuple(_facts(choices, index, self._written) for index in range(len(questions.items))),
            predictions=tuple(label or "" for label in choices.predicted),
            written=choices.written,
            right=tuple(a == b for a, b in zip(questions.truth, choices.predicted, strict=True)),
            answers=self._answers(choices, table),
            confidence=None if self._written else confidence(choices.scores, _right_indices(questions), fitted),
        )

    def baselines(self) -> Mapping[str, Numbers]:
        """Always answering with the most frequent label."""
        label = commonest(self._questions.truth)
        constant = (label,) * len(self._questions.items)
        return {f"Always answering “{label}”": option_table(self._questions, Choices(constant, (), by_length=constant))}

    def _fitted(self, choices: Choices | None) -> Fitted | None:
        """Temperature and threshold, from the choices for the validation questions under the same adapter."""
        if self._validation is None or choices is None:
            return None
        return fit(choices.scores, _right_indices(self._validation))

    def _answers(self, choices: Choices, table: Numbers) -> Answers:
        labels = self._questions.labels
        if not labels:
            return Answers(choices.predicted, (), {})
        counts = confusion(table.sum(axis=0), len(labels)).astype(int)
        recall = {
            label: Recall(int(row[index]), int(row.sum()), wilson(int(row[index]), int(row.sum())))
            for index, (label, row) in enumerate(zip(labels, counts, strict=True))
            if row.sum()
        }
        return Answers(choices.predicted, tuple(tuple(map(int, row)) for row in counts), recall)


def _right_indices(questions: ChoiceQuestions) -> list[int]:
    return [item.labels.index(item.answer) for item in questions.items]


def _facts(choices: Choices, index: int, written: bool) -> dict[str, Any]:
    scores = {"shares" if written else "log_probabilities": list(choices.scores[index])}
    order = {"changed_by_order": choices.changed[index]} if choices.changed else {}
    return {"predicted": choices.predicted[index], **scores, **order}
