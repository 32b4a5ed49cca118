"""All comparisons of a report side by side, their p-values adjusted for being several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_med.evaluation.measures import Change, Measure
from lora_med.evaluation.results import Evaluation, Subject
from lora_med.evaluation.sentences import finding
from lora_med.metrics.significance import Verdict, holm

LARGEST_P = 0.05  # adjusted: above it a difference may be one of several looked at


@dataclass(frozen=True)
class Comparison:
    """One adapter against its base in one task, by the task's first measure.

    `test` is what `p_value` comes from: McNemar's exact test for accuracies, else the paired bootstrap. `adjusted` is
    it after Holm's correction over the `of` comparisons of the report. Both are None where there is no test.
    """

    evaluation: Evaluation
    subject: Subject
    measure: Measure
    change: Change
    test: str
    p_value: float | None
    adjusted: float | None
    of: int

    @property
    def verdict(self) -> Verdict:
        """What stands among all comparisons: the interval's verdict, unless chance finds one such among so many."""
        return "cannot tell" if self._by_chance else self.change.verdict

    @property
    def sentences(self) -> str:
        """The finding in words, and whether it stands among all comparisons."""
        found = finding(self.evaluation, self.subject)
        if not self._by_chance or self.change.verdict == "cannot tell":
            return found
        return f"{found} Among {self.of} comparisons that is not enough to tell (adjusted p = {self.adjusted:.2g})."

    @property
    def _by_chance(self) -> bool:
        return self.of > 1 and self.adjusted is not None and self.adjusted > LARGEST_P


def compare_all(evaluations: Sequence[Evaluation]) -> list[Comparison]:
    """Every adapter of every evaluation, in their order."""
    pairs = [(one, subject) for one in evaluations for subject in one.subjects[1:]]
    tests = [_test(evaluation, subject) for evaluation, subject in pairs]
    known = [place for place, (_, p_value) in enumerate(tests) if p_value is not None]
    adjusted = dict(zip(known, holm([p for _, p in tests if p is not None]), strict=True))
    return [
        Comparison(
            evaluation,
            subject,
            evaluation.verdict_by,
            subject.changes[evaluation.verdict_by.name],
            *tests[place],
            adjusted.get(place),
            len(pairs),
        )
        for place, (evaluation, subject) in enumerate(pairs)
    ]


def _test(evaluation: Evaluation, subject: Subject) -> tuple[str, float | None]:
    if subject.mcnemar is not None and evaluation.verdict_by.name == "accuracy" and _independent(evaluation):
        return "McNemar", subject.mcnemar.p_value
    return "paired bootstrap", subject.changes[evaluation.verdict_by.name].p_value


def _independent(evaluation: Evaluation) -> bool:
    """Whether each item is a group of its own, which McNemar's test takes for granted."""
    return evaluation.groups == len(evaluation.items)
