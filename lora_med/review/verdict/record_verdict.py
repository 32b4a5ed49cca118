"""The verdict of a study in the adapter's card: what clinicians found stays with the adapter."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import CARD, read_card
from lora_med.adapters.store.store import find_adapter
from lora_med.files import write_json
from lora_med.review.blind.study import Study
from lora_med.review.verdict.study_result import StudyResult

SUFFIX = "blind_rating"


def record_verdict(study: Study, result: StudyResult, store: Path) -> Path:
    """Write the verdict into the adapter's card.json, atomically, under `source/split/template/blind_rating`.

    The entry has the form of an evaluation's; its measure is the win difference, which for the base is 0. A later study
    of the same items and opponent replaces it. Returns the card's path.

    Raises:
        InputMissingError: the adapter is not in the store.
    """
    folder = find_adapter(study.adapter, store)
    card = read_card(folder)
    plan = study.plan
    key = "/".join([str(plan[name]) for name in ("source", "split", "template")] + [SUFFIX])
    if study.other != "base":
        key += f"+against={study.other}"
    return write_json(folder / CARD, replace(card, scores={**card.scores, key: _entry(study, result)}).as_json())


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
