"""Classification scores against tables worked out by hand."""

from __future__ import annotations

import pytest

from lora_med.errors import DataError
from lora_med.metrics.classification import accuracy, confusion, f1_by_label, macro_f1, recall_by_label

# yes: 3 items, 2 found, 1 called no; no: 2 items, 1 found, 1 called yes; maybe: 1 item, called yes.
TRUTH = ["yes", "yes", "yes", "no", "no", "maybe"]
PREDICTED = ["yes", "yes", "no", "no", "yes", "yes"]
LABELS = ["yes", "no", "maybe"]


def test_accuracy_is_the_share_of_hits() -> None:
    assert accuracy(TRUTH, PREDICTED) == 3 / 6


def test_confusion_has_truth_in_rows() -> None:
    assert confusion(TRUTH, PREDICTED, LABELS) == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_macro_f1_weighs_each_label_the_same() -> None:
    # precision and recall: yes 2/4 and 2/3 -> 4/7; no 1/2 and 1/2 -> 1/2; maybe 0
    scores = f1_by_label(TRUTH, PREDICTED, LABELS)
    assert scores == pytest.approx({"yes": 4 / 7, "no": 1 / 2, "maybe": 0.0})
    assert macro_f1(TRUTH, PREDICTED, LABELS) == pytest.approx((4 / 7 + 1 / 2) / 3)


def test_macro_f1_counts_only_labels_that_occur_unless_labels_are_given() -> None:
    assert macro_f1(["a", "b"], ["a", "b"]) == 1.0
    assert macro_f1(["a", "b"], ["a", "b"], ["a", "b", "c"]) == pytest.approx(2 / 3)


def test_recall_of_a_label_nobody_has_is_none() -> None:
    assert recall_by_label(["yes", "no"], ["yes", "yes"], LABELS) == {"yes": 1.0, "no": 0.0, "maybe": None}


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match="2 true labels and 1 predicted"):
        accuracy(["a", "b"], ["a"])


def test_a_label_outside_the_set_is_refused() -> None:
    with pytest.raises(DataError, match="perhaps"):
        confusion(["yes"], ["perhaps"], LABELS)
