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
from lora_med.prompts.few_shot import Shots


class ChoiceScorer:
    """Questions with options; see `Work`."""

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

        def questions(some: Sequence[Record]) -> ChoiceQuestions:
            return pose_questions(some, template, base.model, base.tokenizer, shots=shots, rotate=rotate)

        self._asked = questions(records)
        self._validation = questions(validation) if validation and not written else None
        self._layout = layout_of(self._asked, written=written)
        self.items = tuple(Item(one.uid, one.group, labels=one.labels, answer=one.answer) for one in self._asked.items)

    @property
    def layout(self) -> Mapping[str, Any]:
        """As `ChoiceLayout`."""
        return asdict(self._layout)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """As `option_measures` gives them."""
        return option_measures(self._layout)

    @property
    def references(self) -> tuple[str, ...]:
        """The right labels."""
        return self._asked.truth

    @property
    def notes(self) -> tuple[str, ...]:
        """How many prompts are too long."""
        room = ANSWER_TOKENS if self._written else 0
        cut = sum(
            len(item.prompt_ids) + (room or max(len(option) for option in item.option_ids) - 1) > self._context
            for item in self._asked.items
        )
        return (f"{cut} prompts were longer than the context and lost their beginning.",) if cut else ()

    def answer(self) -> Answered:
        """The choice for each question."""
        model, tokenizer, questions = self._base.model, self._base.tokenizer, self._asked
        if self._written:
            found = answer_choices(model, tokenizer, questions, self._context)
        else:
            found = score_choices(model, questions, self._context)
        table = option_table(questions, found)
        return Answered(
            table,
            tuple(_facts(found, place, self._written) for place in range(len(questions.items))),
            predictions=tuple(one or "" for one in found.predicted),
            written=found.written,
            right=tuple(a == b for a, b in zip(questions.truth, found.predicted, strict=True)),
            answers=self._answers(found, table),
            confidence=None if self._written else confidence(found.scores, _right_places(questions), self._fitted()),
        )

    def baselines(self) -> Mapping[str, Numbers]:
        """Always giving the commonest answer."""
        label = commonest(self._asked.truth)
        constant = (label,) * len(self._asked.items)
        return {f"Always answering “{label}”": option_table(self._asked, Choices(constant, (), by_length=constant))}

    def _fitted(self) -> Fitted | None:
        """Temperature and threshold, from the validation questions under the adapter that is active."""
        if self._validation is None:
            return None
        return fit(
            score_choices(self._base.model, self._validation, self._context).scores, _right_places(self._validation)
        )

    def _answers(self, found: Choices, table: Numbers) -> Answers:
        labels = self._asked.labels
        if not labels:
            return Answers(found.predicted, (), {})
        counts = confusion(table.sum(axis=0), len(labels)).astype(int)
        recall = {
            label: Recall(int(row[place]), int(row.sum()), wilson(int(row[place]), int(row.sum())))
            for place, (label, row) in enumerate(zip(labels, counts, strict=True))
            if row.sum()
        }
        return Answers(found.predicted, tuple(tuple(map(int, row)) for row in counts), recall)


def _right_places(questions: ChoiceQuestions) -> list[int]:
    return [item.labels.index(item.answer) for item in questions.items]


def _facts(found: Choices, place: int, written: bool) -> dict[str, Any]:
    scores = {"shares" if written else "log_probabilities": list(found.scores[place])}
    order = {"changed_by_order": found.changed[place]} if found.changed else {}
    return {"predicted": found.predicted[place], **scores, **order}
