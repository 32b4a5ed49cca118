"""What an evaluation found, in sentences and short numbers, the same on the screen, in reports and on paper."""

from __future__ import annotations

from lora_med.evaluation.measures import NOTHING, Change
from lora_med.evaluation.results import Evaluation, Subject
from lora_med.evaluation.tasks import SCORINGS
from lora_med.metrics.significance import Interval


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


def _what(evaluation: Evaluation) -> str:
    things = SCORINGS[evaluation.scoring].things
    return f"{len(evaluation.items)} held-out {things} ({evaluation.source}, {evaluation.split} split)"


def finding(evaluation: Evaluation, subject: Subject) -> str:
    """One sentence: better, worse, or cannot tell, with the two scores and the interval of their difference."""
    measure = evaluation.verdict_by
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
    return " ".join(
        filter(None, (sentence, _beside(evaluation, subject), _size(change), against_baselines(evaluation, subject)))
    )


def _beside(evaluation: Evaluation, subject: Subject) -> str:
    """One sentence on the measure without which the verdict is not to be read; '' where there is none."""
    kind = SCORINGS[evaluation.scoring]
    if not kind.beside:
        return ""
    base, known = evaluation.subjects[0], {one.name: one.label for one in evaluation.measures}
    change, label = subject.changes[kind.beside], known[kind.beside]
    before, after = base.values[kind.beside], subject.values[kind.beside]
    if after.interval == NOTHING or before.interval == NOTHING:
        silent = subject.name if after.interval == NOTHING else base.name
        said = f"By {label} nothing can be told: {silent} states no fact."
    else:
        found = "not to be told apart" if change.verdict == "cannot tell" else change.verdict
        bounds = span(change.interval, sign=True)
        said = f"By {label} it is {found}: {number(after.value)} against {number(before.value)} ({bounds})."
    wrote, base_wrote = subject.values[kind.extent].value, base.values[kind.extent].value
    return f"{said} It writes {number(wrote)} words for each of the reference's, the base {number(base_wrote)}."


def _size(change: Change) -> str:
    """For a verdict of `cannot tell`: what this test could have found, and how many items would tell."""
    if change.verdict != "cannot tell" or not change.detectable:
        return ""
    found = f"Four of five tests of this size find a true difference of {number(change.detectable)}"
    if change.items_needed is None:
        return f"{found}."
    return f"{found}; one of the size seen here takes about {change.items_needed:,} items."


def against_baselines(evaluation: Evaluation, subject: Subject) -> str:
    """A sentence for each baseline, such as giving the commonest answer, which can be learned without reading."""
    said = {"better": "is better than", "worse": "is worse than", "cannot tell": "cannot be told apart from"}
    found = []
    for baseline in evaluation.baselines:
        change, value = subject.over[baseline.name], baseline.values[evaluation.verdict_by.name].value
        found.append(
            f"{baseline.name} would score {number(value)}: {subject.name} {said[change.verdict]} that "
            f"(95% interval {span(change.interval, sign=True)})."
        )
    return " ".join(found)
