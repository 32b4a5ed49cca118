"""The verdict of a study in the report, and in the adapter's card and README: what clinicians found stays with both."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_med.adapters.store.rated_card import record_rating
from lora_med.adapters.store.store import find_adapter
from lora_med.review.blind.study import Study
from lora_med.review.verdict.report_verdict import rated_report, record_in_report
from lora_med.review.verdict.study_result import StudyResult

SUFFIX = "blind_rating"


def record_verdict(study: Study, result: StudyResult, store: Path, report: Path | None = None) -> Path:
    """Write the verdict into report.json, and into the adapter's card.json and README; returns the card's path.

    In the card its name is `source/split/template/blind_rating`. The entry has the form of an evaluation's; its measure
    is the win difference, which for the base is 0. A later study of the same items and opponent replaces it there; the
    report holds every study, since each is a test. A repeated call changes nothing.

    Args:
        report: the folder of the report, if it is no longer where the plan was drawn.

    Raises:
        InputMissingError: the adapter is not in the store, or the report is not there; nothing is written then.
        IntegrityError: the report holds other items, or the adapter's files are not as published.
    """
    folder, rated = find_adapter(study.adapter, store), rated_report(study, report)
    plan = study.plan
    key = "/".join([str(plan[name]) for name in ("source", "split", "template")] + [SUFFIX])
    if study.other != "base":
        key += f"+against={study.other}"
    card = record_rating(folder, key, _entry(study, result))
    record_in_report(study, result, rated)
    return card


def _entry(study: Study, result: StudyResult) -> dict[str, Any]:
    verdict, difference = result.verdict, result.verdict.win_difference
    value = 0.0 if difference.value is None else difference.value
    bounds = {"low": difference.interval.low, "high": difference.interval.high}
    change = {
        "difference": value,
        "interval": asdict(difference.interval),
        "verdict": verdict.verdict,
        "p_value": verdict.adjusted,
    }
    return {
        "scoring": SUFFIX,
        **{name: study.plan[name] for name in ("source", "split", "template", "created", "against")},
        "n": verdict.items_rated,
        "ratings": sum(verdict.choices.values()),
        "raters": len(study.plan["raters"]),
        "sealed": study.plan["sha256"]["sealed.json"],
        "agreement": asdict(verdict.agreement),
        "choices": dict(verdict.choices),
        "calibration": None,
        "measures": {"win_difference": {"value": value, **bounds, "base": 0.0, "change": change}},
        "metrics": {},
    }
