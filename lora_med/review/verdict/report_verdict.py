"""The verdict of a study in the report whose items were rated: one more test, so Holm's correction is made anew.

report.json gains an entry of `comparisons` for each study, and `ratings`:

    ratings[]   study (SHA-256 of its sealed sides), source, split, template, adapter, against, created, verdict (as in
                verdict.json), win_difference (value, low, high, method), p_value (exact sign test), items, items_won,
                items_lost, ratings, raters, sentences (for readers)

The adjusted p-values and the verdicts in `comparisons` are then those over all its tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError
from lora_med.evaluation.report.rated_pages import write_ratings
from lora_med.files import write_json
from lora_med.metrics.significance import holm
from lora_med.review.blind.study import SEALED, Study
from lora_med.review.report_folder import ReportFolder, open_report
from lora_med.review.verdict.study_result import StudyResult
from lora_med.review.verdict.study_verdict import LARGEST_P, word_of

MEASURE, STUDY = "win_difference", "study"
KEPT = ("source", "split", "template", "adapter", "against", "created")
Json = dict[str, Any]


def rated_report(study: Study, path: Path | str | None = None) -> ReportFolder:
    """The report whose items were rated: that of the plan, or the one at `path` if it has moved.

    Raises:
        InputMissingError: there is no report.
        IntegrityError: it is another report, or its items are not those that were rated.
    """
    report = open_report(study.plan["report"] if path is None else path)
    keys = ("source", "split", "template", "access")
    rated = [
        each
        for each in report.evaluations
        if all(each.entry[key] == study.plan[key] for key in keys) and study.adapter in each.adapters
    ]
    if not any(each.sha256 == study.plan["items_sha256"] for each in rated):
        raise IntegrityError(
            f"the report does not hold the items that were rated (SHA-256 {study.plan['items_sha256'][:12]}…)",
            where=str(report.folder),
            fix="name the report from which the plan was drawn: --report FOLDER",
        )
    return report


def record_in_report(study: Study, result: StudyResult, report: ReportFolder) -> Path:
    """Write the verdict into report.json, then into the pages beside it; a repeated call changes nothing.

    Each file is written atomically, report.json first: a call after a kill completes the rest. Returns its path.

    Raises:
        IntegrityError: the report's comparisons are not those of its evaluations.
        DiskError, OutputError: the file cannot be written.
    """
    path = report.folder / "report.json"
    sealed = study.plan["sha256"][SEALED]
    earlier = [each for each in report.content.get("ratings", []) if each[STUDY] != sealed]
    ratings = sorted([*earlier, _rating(study, result, sealed)], key=lambda each: (each["created"], each[STUDY]))
    tests = [each for each in report.content.get("comparisons", []) if STUDY not in each]
    verdicts = _interval_verdicts(report)
    if len(tests) != len(verdicts):
        raise IntegrityError(
            f"the report has {len(tests)} comparisons for {len(verdicts)} adapters in its evaluations",
            where=str(path),
            fix="run lora-med eval again",
        )
    tests += [_comparison(rating) for rating in ratings]
    verdicts += [word_of(rating[MEASURE]["low"], rating[MEASURE]["high"]) for rating in ratings]
    content = {**report.content, "comparisons": corrected(tests, verdicts), "ratings": ratings}
    if content != report.content:
        write_json(path, content, private=any(each.access == "credentialed" for each in report.evaluations))
    write_ratings(report.folder, content["ratings"], content["comparisons"])
    return path


def corrected(tests: Sequence[Mapping[str, Any]], verdicts: Sequence[str]) -> list[Json]:
    """The comparisons with Holm's p-values over all of them; `verdicts` are those of their intervals.

    As in a report of several comparisons, a verdict whose adjusted p-value exceeds 0.05 is "cannot tell".
    """
    known = [number for number, each in enumerate(tests) if each["p_value"] is not None]
    adjusted = dict(zip(known, holm([tests[number]["p_value"] for number in known]), strict=True))
    return [
        {
            **each,
            "adjusted": adjusted.get(number),
            "verdict": "cannot tell" if adjusted.get(number, 0.0) > LARGEST_P and len(tests) > 1 else verdict,
        }
        for number, (each, verdict) in enumerate(zip(tests, verdicts, strict=True))
    ]


def _interval_verdicts(report: ReportFolder) -> list[str]:
    """For each comparison of `lora-med eval`, in its order, the verdict that the interval alone gives."""
    measures = {(each["template"], each["source"], each["adapter"]): each["measure"] for each in _own_tests(report)}
    verdicts = []
    for evaluation in report.evaluations:
        for subject in evaluation.entry["subjects"]:
            if subject["adapter"] is not None:
                key = (evaluation.entry["template"], evaluation.entry["source"], subject["adapter"])
                change = subject.get("changes", {}).get(measures.get(key), {})
                verdicts.append(str(change.get("verdict", "cannot tell")))
    return verdicts


def _own_tests(report: ReportFolder) -> list[Json]:
    return [each for each in report.content.get("comparisons", []) if STUDY not in each]


def _rating(study: Study, result: StudyResult, sealed: str) -> Json:
    verdict = result.verdict
    difference = verdict.win_difference
    return {
        STUDY: sealed,
        **{name: study.plan[name] for name in KEPT},
        "verdict": verdict.verdict,
        MEASURE: {"value": difference.value, **asdict(difference.interval)},
        "p_value": verdict.p_value,
        "items": verdict.items_rated,
        "items_won": verdict.items_won,
        "items_lost": verdict.items_lost,
        "ratings": sum(verdict.choices.values()),
        "raters": len(study.plan["raters"]),
        "sentences": list(result.sentences),
    }


def _comparison(rating: Mapping[str, Any]) -> Json:
    against = "" if rating["against"] == "base" else f", against {rating['against']}"
    return {
        "source": rating["source"],
        "template": rating["template"],
        "adapter": rating["adapter"],
        "measure": MEASURE,
        "test": f"sign test of a blind rating{against}",
        "p_value": rating["p_value"],
        STUDY: rating[STUDY],
    }
