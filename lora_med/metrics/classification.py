"""Scores of a classification: accuracy, F1 of each label and their mean, recall of each label, the confusion table.

Plain functions on lists of labels. A label that never occurs and is never predicted scores F1 0, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lora_med.errors import DataError


def _check(truth: Sequence[str], predicted: Sequence[str]) -> None:
    if len(truth) != len(predicted) or not truth:
        raise DataError(
            f"{len(truth)} true labels and {len(predicted)} predicted ones cannot be compared",
            fix="give one prediction for each item, and at least one item",
        )


def label_set(truth: Sequence[str], predicted: Sequence[str]) -> list[str]:
    """Every label that occurs in either list, sorted."""
    return sorted(set(truth) | set(predicted))


def accuracy(truth: Sequence[str], predicted: Sequence[str]) -> float:
    """Share of items whose prediction is the true label."""
    _check(truth, predicted)
    return sum(a == b for a, b in zip(truth, predicted, strict=True)) / len(truth)


def confusion(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str] | None = None) -> list[list[int]]:
    """Counts with a row for each true label and a column for each predicted one, both in the order of `labels`.

    Raises:
        DataError: the lists differ in length or are empty, or a label is not among `labels`.
    """
    _check(truth, predicted)
    names = list(labels) if labels is not None else label_set(truth, predicted)
    unknown = sorted((set(truth) | set(predicted)) - set(names))
    if unknown:
        raise DataError(f"labels {', '.join(unknown)} are not among {', '.join(names)}")
    column_of = {name: index for index, name in enumerate(names)}
    table = [[0] * len(names) for _ in names]
    for right, got in zip(truth, predicted, strict=True):
        table[column_of[right]][column_of[got]] += 1
    return table


def f1_of_confusion(table: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    """F1 of each label from confusion tables of shape (..., labels, labels); the result is (..., labels)."""
    counts = np.asarray(table, dtype=np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    total = counts.sum(axis=-1) + counts.sum(axis=-2)
    return np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)


def f1_by_label(
    truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str] | None = None
) -> dict[str, float]:
    """F1 of each label: 2 hits / (times true + times predicted)."""
    names = list(labels) if labels is not None else label_set(truth, predicted)
    scores = f1_of_confusion(np.array(confusion(truth, predicted, names)))
    return dict(zip(names, map(float, scores), strict=True))


def macro_f1(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str] | None = None) -> float:
    """Mean of the labels' F1, each label weighing the same however rare."""
    scores = f1_by_label(truth, predicted, labels)
    return sum(scores.values()) / len(scores)


def recall_by_label(
    truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str] | None = None
) -> dict[str, float | None]:
    """For each label, the share of its items that were found; None for a label that no item has."""
    names = list(labels) if labels is not None else label_set(truth, predicted)
    table = confusion(truth, predicted, names)
    return {
        name: row[index] / sum(row) if sum(row) else None
        for index, (name, row) in enumerate(zip(names, table, strict=True))
    }
