"""The clinicians' marks as a test of our own faithfulness metric: precision and recall of its flags, by sentence.

A sentence is flagged if the metric counts a claim in it that its source, the prompt, does not support. It is marked if
a rater marked it wrong or dangerous. Sentences that nobody marked count as right, so the numbers assume raters who mark
what they see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lora_med.metrics.faithfulness import faithfulness
from lora_med.metrics.significance import Interval, Numbers, bootstrap
from lora_med.review.blind.rating import Rating
from lora_med.review.blind.shown_text import sentence_ranges
from lora_med.review.blind.study import Study


@dataclass(frozen=True)
class MarksCheck:
    """Counts of sentences, and precision and recall with 95% intervals over items; None where there is nothing."""

    sentences: int
    marked: int
    flagged: int
    both: int
    precision: float | None
    precision_interval: Interval
    recall: float | None
    recall_interval: Interval


def check_marks(study: Study, ratings: Mapping[str, Rating]) -> MarksCheck:
    """The metric's flags against the marks of all ratings that judge, hidden repeats excepted."""
    rows: list[tuple[int, int, int, int]] = []
    groups: list[int] = []
    for assignment in study.assignments:
        rating = ratings.get(assignment.id)
        if rating is None or rating.choice == "cannot_judge" or assignment.kind == "repeat":
            continue
        marked = {(mark.side, mark.start, mark.end) for mark in rating.marks}
        prompt = study.items[assignment.item].prompt
        for side, text in zip("ab", study.texts(assignment), strict=True):
            for start, end in sentence_ranges(text):
                is_marked = (side, start, end) in marked
                is_flagged = faithfulness(prompt, text[start:end]).faults > 0
                rows.append((is_marked, is_flagged, is_marked and is_flagged, 1))
                groups.append(assignment.item)
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 4)
    marks, flags, both, sentences = (int(total) for total in table.sum(axis=0))
    return MarksCheck(
        sentences=sentences,
        marked=marks,
        flagged=flags,
        both=both,
        precision=both / flags if flags else None,
        precision_interval=_interval(table, groups, 1),
        recall=both / marks if marks else None,
        recall_interval=_interval(table, groups, 0),
    )


def _interval(table: Numbers, groups: Sequence[int], of: int) -> Interval:
    if not len(table) or not table[:, of].sum():
        return Interval(None, None, "nothing to measure")

    def share(sums: Numbers) -> Numbers:
        return np.divide(sums[..., 2], sums[..., of], out=np.zeros_like(sums[..., 2]), where=sums[..., of] > 0)

    return bootstrap(table, groups, share, samples=2_000, seed=0)
