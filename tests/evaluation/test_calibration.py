"""Confidence: fitted on validation alone, told in the report, kept in the card."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from lora_med.adapters.store.card import read_card
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.evaluation.eval_options import EvalOptions
from lora_med.evaluation.record_scores import record_scores
from lora_med.evaluation.report.write_report import write_report
from lora_med.evaluation.runner import evaluate
from lora_med.evaluation.statistics.calibration import confidence, fit
from lora_med.models.base import load_base
from tests.evaluation.published import publish_random
from tests.evaluation.test_runner import QUESTIONS
from tests.tiny import make_tiny

BOASTS = [[math.log(9), 0.0]] * 4  # 9 to 1 for the first option


def test_temperature_and_threshold_come_from_the_validation_items() -> None:
    fitted = fit(BOASTS, [0, 0, 0, 1], risk=0.25)
    assert fitted.temperature == pytest.approx(2, rel=1e-3)  # odds of 3 to 1, as it is right
    assert fitted.threshold == pytest.approx(0.75, abs=1e-3)
    found = confidence([[math.log(9), 0.0], [0.1, 0.0]], [0, 1], fitted)
    assert found.plain.error == pytest.approx((0.1 + 0.525) / 2, abs=1e-3)
    assert found.scaled is not None and found.scaled.temperature == fitted.temperature
    assert found.referral is not None
    assert (found.referral.coverage, found.referral.risk) == (0.5, 0.0)  # the second is not sure enough


def test_where_no_threshold_keeps_the_risk_all_is_to_refer() -> None:
    fitted = fit(BOASTS, [1, 1, 1, 1], risk=0.1)
    assert fitted.threshold is None
    assert confidence(BOASTS, [0, 0, 0, 1], fitted).referral is None


def test_the_report_draws_it_and_the_card_keeps_what_was_fitted(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "base")
    publish_random(folder, "one", tmp_path / "store", template="pubmedqa")
    base = load_base(str(folder), quantization="none", dtype="float32")
    half = len(QUESTIONS) // 2
    found = evaluate(
        base,
        ["one"],
        HeldOutRecords(tuple(QUESTIONS[:half]), "open", "custom", validation=tuple(QUESTIONS[half:])),
        EvalOptions("pubmedqa", store=tmp_path / "store", bootstrap_samples=50, samples=0),
    )
    report = write_report([found], tmp_path / "out", title="sure")
    page = report.html.read_text()
    assert "temperature" in page and page.count("<svg") == 3
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    entry = json.loads(report.json.read_text())["evaluations"][0]["subjects"][1]["confidence"]
    assert entry["fitted"]["items"] == len(QUESTIONS) - half and entry["scaled"]["nll"] > 0
    record_scores(found, tmp_path / "store")
    (scores,) = read_card(tmp_path / "store/one").scores.values()
    assert scores["calibration"]["temperature"] == entry["fitted"]["temperature"]
