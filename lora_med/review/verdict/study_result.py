"""Unsealing a study, and its result as files: verdict.json and verdict.md, written into the study's folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lora_med.append_log import append_line
from lora_med.errors import NotPermittedError, SettingsError
from lora_med.files import write_atomic, write_json
from lora_med.review.blind.rating_log import RatingLog, unsealed
from lora_med.review.blind.study import EVENTS, Study
from lora_med.review.verdict.marks_check import MarksCheck, check_marks
from lora_med.review.verdict.observations import observe
from lora_med.review.verdict.study_verdict import SCHEMA, Estimate, Verdict, judge
from lora_med.visible import markdown

VERDICT = "verdict.json"
LEAST_REASON = 3  # words


@dataclass(frozen=True)
class StudyResult:
    """The verdict of a study, the check of the faithfulness metric, and the sentences for readers."""

    verdict: Verdict
    marks: MarksCheck
    sentences: tuple[str, ...]
    content: Mapping[str, Any] = field(repr=False)


def unseal(study: Study, reason: str, *, incomplete: bool = False) -> dict[str, Any]:
    """Log that the sides are opened, by whom and why; afterwards no rating is stored. Returns the event.

    Raises:
        SettingsError: the reason is empty.
        NotPermittedError: ratings are missing, and `incomplete` was not stated.
    """
    earlier = unsealed(study)
    if earlier is not None:
        return earlier
    if len(reason.split()) < LEAST_REASON:
        raise SettingsError(
            f"the reason for unsealing has {len(reason.split())} words",
            where="--reason",
            fix=f"say who unseals and why, in at least {LEAST_REASON} words",
        )
    stored = len(RatingLog(study).current())
    if stored < len(study.assignments) and not incomplete:
        raise NotPermittedError(
            f"{stored:,} of {len(study.assignments):,} ratings are stored; unsealing ends the study",
            where=str(study.folder),
            fix="wait for the rest, or add --incomplete: it is logged and shown beside the verdict",
        )
    event = {
        "event": "unsealed",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "reason": reason,
        "ratings": stored,
        "planned": len(study.assignments),
    }
    append_line(study.folder / EVENTS, event)
    return event


def write_verdict(study: Study) -> StudyResult:
    """The verdict of an unsealed study, written into its folder.

    Raises:
        NotPermittedError: the study is sealed.
    """
    event = unsealed(study)
    if event is None:
        raise NotPermittedError(
            "the study is sealed", where=str(study.folder), fix='lora-med review unseal STUDY --reason "..."'
        )
    log = RatingLog(study)
    ratings = log.current()
    verdict = judge(observe(study, ratings), study.plan["report_p_values"])
    marks = check_marks(study, ratings)
    sentences = tuple(_sentences(study, verdict, marks, event))
    content = {
        "schema": SCHEMA,
        **verdict.as_json(),
        "marks": asdict(marks),
        "corrected": log.corrected(),
        "unsealed": event,
        "plan": dict(study.plan),
        "sentences": list(sentences),
    }
    text = f"# Blind rating: {markdown(study.adapter)} against {markdown(study.other)}\n\n"
    write_atomic(study.folder / "verdict.md", text + "".join(f"- {markdown(each)}\n" for each in sentences))
    write_json(study.folder / VERDICT, content)
    return StudyResult(verdict, marks, sentences, content)


def _sentences(study: Study, verdict: Verdict, marks: MarksCheck, event: Mapping[str, Any]) -> list[str]:
    plan, adapter, other = study.plan, study.adapter, study.other
    lines = [
        f"Verdict: {adapter} is {verdict.verdict} than {other}."
        if verdict.verdict != "cannot tell"
        else f"Verdict: cannot tell whether {adapter} is better or worse than {other}.",
        f"Win difference {estimate(verdict.win_difference)}, {verdict.win_difference.interval.method}; "
        f"{verdict.items_won:,} items won, {verdict.items_lost:,} lost, {verdict.items_rated:,} rated.",
        f"Exact sign test p = {verdict.p_value:.3g}; after Holm over {verdict.tests} tests {verdict.adjusted:.3g}.",
        "Choices: " + ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in verdict.choices.items()) + ".",
        *(f"{name.capitalize()}: {estimate(value)}." for name, value in verdict.axes.items()),
        f"Agreement on {verdict.items_rated_twice:,} items rated twice: alpha {estimate(verdict.agreement)}.",
        f"Side A was chosen in {estimate(verdict.side_a_share)} of choices of a side.",
        f"The same choice again on {verdict.repeats:,} hidden repeats: {estimate(verdict.repeat_consistency)}.",
    ]
    if verdict.at_equal_length is not None:
        lines.append(f"Win difference at equal length: {estimate(verdict.at_equal_length)}.")
    if verdict.longer_share is not None:
        lines.append(f"The answer of {adapter} is the longer one in {verdict.longer_share:.0%} of ratings.")
    lines.append(
        f"Faithfulness metric against the marks on {marks.sentences:,} sentences: "
        f"precision {estimate(Estimate(marks.precision, marks.precision_interval))}, "
        f"recall {estimate(Estimate(marks.recall, marks.recall_interval))}."
    )
    if event["ratings"] < event["planned"]:
        lines.append(f"Unsealed early: {event['ratings']:,} of {event['planned']:,} ratings were stored.")
    if len(plan["raters"]) == 1:
        lines.append("One rater: the interval holds for this rater only.")
    return lines


def estimate(value: Estimate) -> str:
    """A number and its interval, for a reader."""
    if value.value is None:
        return "unknown"
    if value.interval.low is None or value.interval.high is None:
        return f"{value.value:+.2f} (no interval)"
    return f"{value.value:.2f} ({value.interval.low:.2f} to {value.interval.high:.2f})"
