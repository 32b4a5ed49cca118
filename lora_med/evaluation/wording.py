"""What an evaluation found, in sentences and short numbers, the same on the screen, in reports and on paper."""

from __future__ import annotations

from lora_med.evaluation.measures import Change, Measure
from lora_med.evaluation.results import Evaluation, Subject
from lora_med.metrics.significance import Interval

PRIMARY = {"text": "bits_per_byte", "choice": "accuracy"}


def number(value: float) -> str:
    """Three decimals below 10, fewer above."""
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.2f}" if size < 100 else f"{value:,.0f}"


def signed(value: float) -> str:
    """The number with its sign, a true minus for print."""
    return ("+" if value > 0 else "−" if value < 0 else "±") + number(abs(value))


def span(interval: Interval, *, sign: bool = False) -> str:
    """`low to high`, or a dash where there is no interval."""
    if interval.low is None or interval.high is None:
        return "–"
    shown = signed if sign else number
    return f"{shown(interval.low)} to {shown(interval.high)}"


def primary(evaluation: Evaluation) -> Measure:
    """The measure that the verdict in words rests on."""
    return next(one for one in evaluation.measures if one.name == PRIMARY[evaluation.task])


def _what(evaluation: Evaluation) -> str:
    things = "texts" if evaluation.task == "text" else "questions"
    return f"{len(evaluation.items)} held-out {things} ({evaluation.source}, {evaluation.split} split)"


def finding(evaluation: Evaluation, subject: Subject) -> str:
    """One sentence: better, worse, or cannot tell, with the two scores and the interval of their difference."""
    measure = primary(evaluation)
    change = subject.changes[measure.name]
    before = evaluation.subjects[0].values[measure.name].value
    after = subject.values[measure.name].value
    said = {
        "better": "is better than its base",
        "worse": "is worse than its base",
        "cannot tell": "cannot be told apart from its base",
    }[change.verdict]
    sentence = (
        f"{subject.name} {said} on {_what(evaluation)}: {measure.label} {number(after)} against {number(before)}, "
        f"a difference of {signed(change.difference)} (95% interval {span(change.interval, sign=True)})."
    )
    return " ".join(filter(None, (sentence, _size(change), against_majority(evaluation, subject))))


def _size(change: Change) -> str:
    """For a verdict of `cannot tell`: what this test could have found, and how many items would tell."""
    if change.verdict != "cannot tell" or not change.detectable:
        return ""
    found = f"Four of five tests of this size find a true difference of {number(change.detectable)}"
    if change.items_needed is None:
        return f"{found}."
    return f"{found}; one of the size seen here takes about {change.items_needed:,} items."


def against_majority(evaluation: Evaluation, subject: Subject) -> str:
    """One sentence on always giving the commonest answer, which an adapter can learn without reading; '' for text."""
    if subject.answers is None:
        return ""
    label, share = evaluation.majority
    said = {
        "better": f"{subject.name} is better than that",
        "worse": f"{subject.name} is worse than that",
        "cannot tell": f"{subject.name} cannot be told apart from that",
    }[subject.answers.over_majority.verdict]
    interval = span(subject.answers.over_majority.interval, sign=True)
    return f"Always answering “{label}” would score {number(share)}: {said} (95% interval {interval})."
