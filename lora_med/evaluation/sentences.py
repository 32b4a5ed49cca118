"""The findings of an evaluation in sentences and short numbers, for the terminal and for every report format."""

from __future__ import annotations

from lora_med.evaluation.measures import NOTHING, Change
from lora_med.evaluation.results import Evaluation, Subject
from lora_med.evaluation.tasks import SCORINGS
from lora_med.metrics.significance import Interval, Verdict

COMPARED = {"better": "is better than", "worse": "is worse than", "cannot tell": "cannot be distinguished from"}


def number(value: float) -> str:
    """Three decimals below 10, fewer above."""
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.2f}" if size < 100 else f"{value:,.0f}"


def signed(value: float) -> str:
    """The number with its sign; a negative one has the minus sign U+2212."""
    return ("+" if value > 0 else "−" if value < 0 else "±") + number(abs(value))


def span(interval: Interval, *, sign: bool = False) -> str:
    """`low to high`, or a dash where there is no interval."""
    if interval.low is None or interval.high is None:
        return "–"
    write = signed if sign else number
    return f"{write(interval.low)} to {write(interval.high)}"


def finding(evaluation: Evaluation, subject: Subject, verdict: Verdict | None = None) -> str:
    """The verdict on one adapter in sentences, with the two scores and the interval of their difference.

    Args:
        verdict: the one to state, where several comparisons change it; left out, that of the interval.
    """
    measure = evaluation.verdict_by
    change = subject.changes[measure.name]
    before = evaluation.subjects[0].values[measure.name].value
    after = subject.values[measure.name].value
    things = SCORINGS[evaluation.scoring].things
    items = f"{len(evaluation.items)} held-out {things} ({evaluation.source}, {evaluation.split} split)"
    sentences = (
        f"{subject.name} {COMPARED[verdict or change.verdict]} its base on {items}.",
        f"By {measure.label} it scores {number(after)} against {number(before)}, a difference of "
        f"{signed(change.difference)} (95% interval {span(change.interval, sign=True)}).",
        _second_measure(evaluation, subject),
        _power(change),
        against_baselines(evaluation, subject),
    )
    return " ".join(filter(None, sentences))


def _second_measure(evaluation: Evaluation, subject: Subject) -> str:
    """Sentences on the measure that a reader needs beside the verdict; empty where there is none."""
    kind = SCORINGS[evaluation.scoring]
    if not kind.beside:
        return ""
    base = evaluation.subjects[0]
    label = next(measure.label for measure in evaluation.measures if measure.name == kind.beside)
    change, before, after = subject.changes[kind.beside], base.values[kind.beside], subject.values[kind.beside]
    if after.interval == NOTHING or before.interval == NOTHING:
        silent = subject.name if after.interval == NOTHING else base.name
        comparison = f"By {label} there is no verdict: {silent} states no facts."
    else:
        verdict = "cannot be distinguished" if change.verdict == "cannot tell" else f"is {change.verdict}"
        bounds = span(change.interval, sign=True)
        comparison = (
            f"By {label} it {verdict}: {number(after.value)} against {number(before.value)} "
            f"(95% interval of the difference {bounds})."
        )
    length, base_length = subject.values[kind.extent].value, base.values[kind.extent].value
    return (
        f"{comparison} It writes {number(length)} words for each of the reference's words; "
        f"the base writes {number(base_length)}."
    )


def _power(change: Change) -> str:
    """For a verdict of `cannot tell`: the difference that this test can find, and how many items would be enough."""
    if change.verdict != "cannot tell" or not change.detectable:
        return ""
    sentence = f"In four of five cases a test of this size finds a true difference of {number(change.detectable)}."
    if change.items_needed is None:
        return sentence
    return f"{sentence} A true difference as large as the one measured needs about {change.items_needed:,} items."


def against_baselines(evaluation: Evaluation, subject: Subject) -> str:
    """Two sentences for each baseline, such as the most frequent answer, which needs no reading of the question."""
    sentences = []
    for baseline in evaluation.baselines:
        change, value = subject.baseline_changes[baseline.name], baseline.values[evaluation.verdict_by.name].value
        sentences.append(
            f"{baseline.name} would score {number(value)}. {subject.name} {COMPARED[change.verdict]} this baseline "
            f"(95% interval of the difference {span(change.interval, sign=True)})."
        )
    return " ".join(sentences)
