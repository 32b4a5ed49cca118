"""Measures of choices: a table with a row for each question, and accuracy, F1, recall and more from its sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.scorers.choice_answers import ChoiceQuestions, Choices
from lora_med.metrics.classification import f1_of_confusion

BEFORE = 3  # columns before the counts of answers: right by length, invalid, changed by the order


def option_table(questions: ChoiceQuestions, choices: Choices) -> Numbers:
    """Items x columns, as `option_measures` reads them.

    The first columns: right by length, invalid, changed by the order. Next, over a closed set of labels, the flattened
    (true label, answer) counts, the last answer being none; without a closed set, whether the answer is right, and 1.
    Last, where there are several subjects, two columns for each: right and of this subject, and of this subject.
    """
    labels, count = questions.labels, len(questions.items)
    right = [a == b for a, b in zip(questions.truth, choices.predicted, strict=True)]
    if labels:
        column_of = {label: index for index, label in enumerate(labels)}
        first = np.zeros((count, len(labels) * (len(labels) + 1)))
        for row, (true, got) in enumerate(zip(questions.truth, choices.predicted, strict=True)):
            answer = len(labels) if got is None else column_of[got]
            first[row, column_of[true] * (len(labels) + 1) + answer] = 1
    else:
        first = np.column_stack([right, np.ones(count)]).astype(np.float64)
    of_subject = [[item.subject == subject for item in questions.items] for subject in subjects_of(questions)]
    by_subject = [column for own in of_subject for column in (np.logical_and(own, right), own)]
    by_length = [a == b for a, b in zip(questions.truth, choices.by_length or [None] * count, strict=True)]
    invalid = [own is None for own in choices.predicted]
    before = np.column_stack([by_length, invalid, choices.changed or [False] * count]).astype(np.float64)
    return np.hstack([before, first, *(np.asarray(column, dtype=np.float64)[:, None] for column in by_subject)])


def subjects_of(questions: ChoiceQuestions) -> tuple[str, ...]:
    """The subjects of the items, where there are two or more."""
    subjects = tuple(sorted({item.subject for item in questions.items if item.subject}))
    return subjects if len(subjects) > 1 else ()


@dataclass(frozen=True)
class ChoiceLayout:
    """What the columns of `option_table` are: the closed set of labels (or none), and those that are true of an item.

    `lengths` says that options differ in length, `rotated` that they were asked in several orders, `written` that the
    answers are texts. `subjects` are those with columns of their own.
    """

    labels: tuple[str, ...]
    present: tuple[str, ...]
    lengths: bool
    rotated: bool
    written: bool
    subjects: tuple[str, ...] = ()


def layout_of(questions: ChoiceQuestions, *, written: bool) -> ChoiceLayout:
    """The layout of these questions' tables."""
    lengths = any(len({len(label) for label in item.labels}) > 1 for item in questions.items)
    present = tuple(label for label in questions.labels if label in questions.truth)
    return ChoiceLayout(questions.labels, present, lengths, questions.rotated, written, subjects_of(questions))


def option_measures(layout: ChoiceLayout) -> tuple[Measure, ...]:
    """The measures of the choices: accuracy first, without those that do not apply to these items.

    Recall is given for each label of a closed set that occurs, macro-F1 over the whole set.
    """
    labels = layout.labels

    def share(name: str, label: str, unit: str, hits: Callable[[Numbers], Numbers], *, falls: bool = False) -> Measure:
        def counts(sums: Numbers) -> tuple[float, float]:
            return float(hits(sums)), float(_total(sums, len(labels)))

        return Measure(name, label, unit, falls, lambda sums: hits(sums) / _total(sums, len(labels)), counts)

    measures = [share("accuracy", "accuracy", "", lambda sums: _hits(sums, len(labels)))]
    if layout.lengths and not layout.written:
        measures.append(share("accuracy_by_length", "accuracy by length", "", lambda sums: sums[..., 0]))
    if labels:
        measures.append(Measure("macro_f1", "macro-F1", "", False, lambda sums: _macro_f1(sums, len(labels))))
        measures += [_recall(labels, label) for label in layout.present]
    if layout.written:
        measures.append(share("invalid_rate", "invalid answers", "share", lambda sums: sums[..., 1], falls=True))
    if layout.rotated:
        measures.append(
            share("order_sensitivity", "changed by the order", "share", lambda sums: sums[..., 2], falls=True)
        )
    width = BEFORE + (len(labels) * (len(labels) + 1) or 2)
    measures += [_of_subject(subject, width + 2 * number) for number, subject in enumerate(layout.subjects)]
    return tuple(measures)


def confusion(sums: Numbers, labels: int) -> Numbers:
    """Counts of (true label, answer) from sums of a table: (..., labels, labels + 1), the last answer being none."""
    counts = sums[..., BEFORE : BEFORE + labels * (labels + 1)]
    return counts.reshape(*sums.shape[:-1], labels, labels + 1)


def _hits(sums: Numbers, labels: int) -> Numbers:
    return np.trace(confusion(sums, labels), axis1=-2, axis2=-1) if labels else sums[..., BEFORE]


def _total(sums: Numbers, labels: int) -> Numbers:
    return confusion(sums, labels).sum((-2, -1)) if labels else sums[..., BEFORE + 1]


def _of_subject(subject: str, column: int) -> Measure:
    def of_sums(sums: Numbers) -> Numbers:
        hits, total = sums[..., column], sums[..., column + 1]
        return np.divide(hits, total, out=np.zeros_like(total), where=total > 0)

    def counts(sums: Numbers) -> tuple[float, float]:
        return float(sums[column]), float(sums[column + 1])

    name = subject.replace("_", " ")
    return Measure(f"accuracy_{subject}", f"accuracy in {name}", "", False, of_sums, counts)


def _macro_f1(sums: Numbers, labels: int) -> Numbers:
    table = confusion(sums, labels)
    square = np.concatenate([table, np.zeros_like(table[..., :1, :])], axis=-2)  # every item has a true label
    return f1_of_confusion(square)[..., :labels].mean(-1)


def _recall(labels: Sequence[str], label: str) -> Measure:
    index = list(labels).index(label)

    def of_sums(sums: Numbers) -> Numbers:
        row = confusion(sums, len(labels))[..., index, :]
        total = row.sum(-1)
        return np.divide(row[..., index], total, out=np.zeros_like(total), where=total > 0)

    def counts(sums: Numbers) -> tuple[float, float]:
        row = confusion(sums, len(labels))[index]
        return float(row[index]), float(row.sum())

    return Measure(f"recall_{label}", f"recall of {label}", "", False, of_sums, counts)
