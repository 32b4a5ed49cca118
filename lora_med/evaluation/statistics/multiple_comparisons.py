"""All comparisons of a report, with p-values adjusted for multiple comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_med.evaluation.measures import Change, Measure
from lora_med.evaluation.results import Evaluation, Subject
from lora_med.evaluation.sentences import finding
from lora_med.metrics.significance import Verdict, holm

LARGEST_P = 0.05  # adjusted; above it chance alone may explain a difference among several


@dataclass(frozen=True)
class Comparison:
    """One adapter against its base in one task, by the task's first measure.

    `test` names the source of `p_value`: McNemar's exact test for accuracies, else the paired bootstrap. `adjusted` is
    the p-value after Holm's correction over all `comparisons` of the report. Both are None where there is no test.
    """

    evaluation: Evaluation
    subject: Subject
    measure: Measure
    change: Change
    test: str
    p_value: float | None
    adjusted: float | None
    comparisons: int

    @property
    def verdict(self) -> Verdict:
        """The interval's verdict, unless chance alone may explain it among so many comparisons."""
        return "cannot tell" if self._by_chance else self.change.verdict

    @property
    def sentences(self) -> str:
        """The finding in words, and whether the adjusted p-value supports it."""
        sentence = finding(self.evaluation, self.subject, self.verdict)
        if not self._by_chance or self.change.verdict == "cannot tell":
            return sentence
        return (
            f"{sentence} By the interval alone it is {self.change.verdict}. Among {self.comparisons} comparisons this "
            f"interval is not enough for a verdict (adjusted p = {self.adjusted:.2g})."
        )

    @property
    def _by_chance(self) -> bool:
        return self.comparisons > 1 and self.adjusted is not None and self.adjusted > LARGEST_P


def compare_all(evaluations: Sequence[Evaluation]) -> list[Comparison]:
    """Every adapter of every evaluation, in their order."""
    pairs = [(evaluation, subject) for evaluation in evaluations for subject in evaluation.subjects[1:]]
    tests = [_test(evaluation, subject) for evaluation, subject in pairs]
    tested = [number for number, (_, p_value) in enumerate(tests) if p_value is not None]
    adjusted = dict(zip(tested, holm([p for _, p in tests if p is not None]), strict=True))
    return [
        Comparison(
            evaluation=evaluation,
            subject=subject,
            measure=evaluation.verdict_by,
            change=subject.changes[evaluation.verdict_by.name],
            test=test,
            p_value=p_value,
            adjusted=adjusted.get(number),
            comparisons=len(pairs),
        )
        for number, ((evaluation, subject), (test, p_value)) in enumerate(zip(pairs, tests, strict=True))
    ]


def _test(evaluation: Evaluation, subject: Subject) -> tuple[str, float | None]:
    if subject.mcnemar is not None and evaluation.verdict_by.name == "accuracy" and _independent(evaluation):
        return "McNemar", subject.mcnemar.p_value
    return "paired bootstrap", subject.changes[evaluation.verdict_by.name].p_value


def _independent(evaluation: Evaluation) -> bool:
    """Whether each item is a group of its own, as McNemar's test assumes."""
    return evaluation.groups == len(evaluation.items)
